//! The local cluster: a real control plane and real kubelets on this machine, without a container engine or a registry.
//!
//! A node is a set of namespaces whose PID 1 is this very program ([`node_init`]); etcd, the API server, the controllers, the
//! scheduler, containerd, the kubelet and kube-proxy run in it as ordinary processes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use crate::cluster::local::config::NodeSpec;
use crate::cluster::local::mark::Mark;
use crate::cluster::local::state::State;
use crate::cluster::owner::Owner;
use crate::cluster::progress::Progress;
use crate::cluster::{
    Cluster, ClusterKind, Lifetime, Pending, binaries, cache, cgroup, client, images, packages, process,
    readiness,
};
use crate::harness::eventually;
use anyhow::{Context, bail};

mod components;
mod config;
mod health;
mod layout;
mod mark;
mod network;
pub(super) mod node_init;
mod pki;
mod state;

/// How long nodes and DNS may take to come up.
const PATIENCE: Duration = Duration::from_mins(2);

/// The local cluster of this machine; there is one.
pub(super) struct LocalCluster {
    workers: u8,
    progress: Progress,
}

impl LocalCluster {
    /// A handle; nothing is started.
    pub(super) fn new(workers: u8, progress: Progress) -> Self {
        Self { workers, progress }
    }

    async fn bring_up(&self, lifetime: Lifetime) -> anyhow::Result<()> {
        packages::install(&self.progress).await?;
        let binaries = binaries::kubernetes(&self.progress).await?;
        let support = images::support::build(&self.progress).await?;
        let _lock = lock().await?;
        if self.keeps_running_cluster()? {
            return Ok(());
        }
        self.clean().await?;
        State::record(Owner::by_lifetime(lifetime)?, self.workers)?;
        self.create(&binaries, &support).await
    }

    /// Whether a usable cluster is up already.
    fn keeps_running_cluster(&self) -> anyhow::Result<bool> {
        let Some(state) = State::load() else { return Ok(false) };
        match state.owner {
            Some(owner) if owner.is_alive() => {
                bail!(
                    "process {} is using the local cluster, and there is one per machine: wait for it or end it",
                    owner.pid()
                )
            }
            Some(_) => Ok(false),
            None if !self.is_up() => Ok(false),
            None if state.workers != self.workers => bail!(
                "the local cluster is up with --workers {}: take it down first, or ask for the same number",
                state.workers
            ),
            None => {
                self.progress.say("the local cluster is up already");
                Ok(true)
            }
        }
    }

    /// Removes what an earlier run has left, whatever its end was.
    async fn clean(&self) -> anyhow::Result<()> {
        if State::load().is_none()
            && !network::is_there()
            && !cgroup::any_process(layout::CGROUP)
            && !layout::run().exists()
        {
            return Ok(());
        }
        self.progress.say("removing what an earlier run has left");
        self.remove().await
    }

    async fn create(&self, binaries: &Path, support: &images::support::Support) -> anyhow::Result<()> {
        mount_run_directory().await?;
        pki::create(binaries, self.workers).await?;
        network::create(self.workers).await?;
        for index in 0..=self.workers {
            let spec = NodeSpec {
                index,
                binaries: binaries.to_path_buf(),
                first_images: vec![support.pause.clone()],
                more_images: vec![support.coredns.clone(), support.busybox.clone()],
                cgroups: cgroup::create(&[layout::CGROUP, &layout::node_name(index), "system"])?,
            };
            spec.write(self.workers)?;
            start_node(&spec)?;
        }
        self.progress.say("node processes started");
        tokio::select! {
            ready = self.wait_until_ready(binaries) => ready,
            death = dead_node(self.workers) => Err(death),
        }
    }

    async fn wait_until_ready(&self, binaries: &Path) -> anyhow::Result<()> {
        let client = client::from_file(&pki::admin_kubeconfig()).await?;
        eventually("the API server", PATIENCE, async || {
            client.apiserver_version().await.map_err(|error| error.to_string())
        })
        .await?;
        self.progress.say("API server is up");
        apply_dns(binaries).await?;
        for index in 0..=self.workers {
            let name = layout::node_name(index);
            readiness::of_node(&client, &name).await?;
            self.progress.say(format_args!("node {name} is Ready"));
        }
        readiness::of_dns(&client).await?;
        eventually("every node has its images", PATIENCE, async || {
            let all = (0..=self.workers).all(|index| layout::node_dir(index).join("started").exists());
            all.then_some(()).ok_or("some are still being imported")
        })
        .await?;
        self.progress.say("cluster DNS is up");
        Ok(())
    }

    async fn remove(&self) -> anyhow::Result<()> {
        cgroup::remove(layout::CGROUP).await?;
        network::remove().await;
        let run = layout::run();
        // Several mounts lie on top of each other when a run was killed between its mount and its record.
        while process::succeeds("umount", &[&run.display().to_string()]).await {}
        cache::remove_dir(&run)?;
        if let Some(state) = State::load() {
            state.undo();
        }
        Ok(())
    }

    async fn load(&self, archives: &[PathBuf]) -> anyhow::Result<()> {
        let loads = node_indices()
            .into_iter()
            .flat_map(|index| archives.iter().map(move |archive| load_one(index, archive)));
        futures::future::try_join_all(loads).await.map(drop)
    }
}

impl Cluster for LocalCluster {
    fn kind(&self) -> ClusterKind {
        ClusterKind::Local
    }

    fn up(&self, lifetime: Lifetime) -> Pending<'_, ()> {
        Box::pin(self.bring_up(lifetime))
    }

    fn down(&self) -> Pending<'_, ()> {
        Box::pin(async {
            let _lock = lock().await?;
            self.remove().await?;
            self.progress.say("the local cluster is down");
            Ok(())
        })
    }

    fn is_up(&self) -> bool {
        // What belonged to a process that has died is no cluster but garbage, although it still runs.
        let is_garbage = State::load().is_none_or(|state| state.owner.is_some_and(|owner| !owner.is_alive()));
        let nodes = node_indices();
        !is_garbage && !nodes.is_empty() && nodes.into_iter().all(|index| node_pid(index).is_some())
    }

    fn load_images<'a>(&'a self, archives: &'a [PathBuf]) -> Pending<'a, ()> {
        Box::pin(self.load(archives))
    }

    fn kubeconfig(&self) -> PathBuf {
        pki::admin_kubeconfig()
    }

    fn node_names(&self) -> Pending<'_, Vec<String>> {
        Box::pin(async { Ok(node_indices().into_iter().map(layout::node_name).collect()) })
    }

    fn exec<'a>(&'a self, node: &'a str, command: &'a [&'a str]) -> Pending<'a, Output> {
        Box::pin(async move {
            let index = node_indices().into_iter().find(|&index| layout::node_name(index) == node);
            let index = index.with_context(|| format!("the local cluster has no node {node}"))?;
            Ok(inside(index)?.args(command).output().await?)
        })
    }

    fn save_node_logs<'a>(&'a self, directory: &'a Path) -> Pending<'a, ()> {
        Box::pin(async move { save_logs(directory) })
    }
}

/// Copies the ends of the logs of every node's own processes.
fn save_logs(directory: &Path) -> anyhow::Result<()> {
    for index in node_indices() {
        let logs = layout::node_dir(index).join("log");
        let target = directory.join(layout::node_name(index));
        fs::create_dir_all(&target)?;
        for log in fs::read_dir(&logs)?.flatten() {
            fs::write(target.join(log.file_name()), process::tail(&log.path(), 1000))?;
        }
    }
    Ok(())
}

/// Held by whoever changes the cluster. The file stays: removing a lock file lets two hold it.
async fn lock() -> anyhow::Result<fs::File> {
    cache::exclusive(PathBuf::from("/run/lock/tidegate-e2e.lock")).await
}

async fn mount_run_directory() -> anyhow::Result<()> {
    let run = layout::run();
    fs::create_dir_all(&run)?;
    let path = run.display().to_string();
    process::run("mount", &["-t", "tmpfs", "-o", "size=75%,mode=755", "tidegate-e2e", &path]).await.map(drop)
}

/// Starts a node's PID 1 in a session of its own, so that Ctrl-C at this terminal does not reach it.
fn start_node(spec: &NodeSpec) -> anyhow::Result<()> {
    let log = fs::File::create(spec.path("log/init.log"))?;
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let child = std::process::Command::new("setsid")
        .arg("nsenter")
        .arg(format!("--net=/run/netns/{}", spec.name()))
        .args([
            "unshare",
            "--mount",
            "--pid",
            "--uts",
            "--ipc",
            "--fork",
            "--kill-child",
            "--propagation",
            "private",
        ])
        .arg(program)
        .arg("node-init")
        .arg(spec.path("node.json"))
        .env("PATH", node_path(&spec.binaries))
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("cannot start setsid nsenter unshare")?;
    for cgroup in &spec.cgroups {
        fs::write(cgroup.join("cgroup.procs"), child.id().to_string())?;
    }
    Ok(())
}

fn node_path(binaries: &Path) -> String {
    format!("{}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", binaries.display())
}

/// The nodes of the cluster that is up, by their directories.
fn node_indices() -> Vec<u8> {
    (0..=8).filter(|&index| layout::node_dir(index).exists()).collect()
}

/// Number of a node's PID 1 on this machine, when it runs.
fn node_pid(index: u8) -> Option<u32> {
    let pid: u32 = fs::read_to_string(layout::node_dir(index).join("pid")).ok()?.trim().parse().ok()?;
    let command_line = fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
    command_line.contains("node-init").then_some(pid)
}

/// A command that runs inside a node; its program and arguments are still to be added.
fn inside(index: u8) -> anyhow::Result<tokio::process::Command> {
    let name = layout::node_name(index);
    let pid = node_pid(index).with_context(|| format!("node {name} does not run"))?;
    let spec: NodeSpec = serde_json::from_slice(&fs::read(layout::node_dir(index).join("node.json"))?)?;
    let mut command = process::command("nsenter");
    command
        .args(["-t", &pid.to_string(), "-m", "-p", "-n", "-u", "-i"])
        .env("PATH", node_path(&spec.binaries));
    Ok(command)
}

/// Imports an archive into a node unless that very content is there.
async fn load_one(index: u8, archive: &Path) -> anyhow::Result<()> {
    let mark = Mark::of(index, archive)?;
    if mark.is_set() {
        return Ok(());
    }
    let archive = fs::canonicalize(archive).with_context(|| format!("cannot find {}", archive.display()))?;
    let mut command = inside(index)?;
    command.args(["ctr", "-a", components::CONTAINERD, "-n", "k8s.io", "images", "import"]).arg(&archive);
    process::output(&mut command).await?;
    mark.set()
}

/// Waits until the PID 1 of a node has ended, and returns its last words.
async fn dead_node(workers: u8) -> anyhow::Error {
    loop {
        for index in 0..=workers {
            if layout::node_dir(index).join("pid").exists() && node_pid(index).is_none() {
                let log = process::tail(&layout::node_dir(index).join("log/init.log"), 5);
                return anyhow::anyhow!("node {} has ended: {log}", layout::node_name(index));
            }
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn apply_dns(binaries: &Path) -> anyhow::Result<()> {
    let manifest = binaries::kubernetes_files().join("coredns.yaml");
    let mut kubectl = process::command(binaries.join("kubectl"));
    kubectl.arg("--kubeconfig").arg(pki::admin_kubeconfig()).args(["create", "-f"]).arg(manifest);
    process::output(&mut kubectl).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nodes_have_names_and_addresses_of_their_own() {
        let names: std::collections::BTreeSet<_> = (0..=8).map(layout::node_name).collect();
        let addresses: std::collections::BTreeSet<_> = (0..=8).map(layout::node_address).collect();
        assert_eq!((names.len(), addresses.len()), (9, 9));
        assert!(
            (0..=8).all(|index| layout::link(index).len() <= 15),
            "the kernel's limit for names of links"
        );
    }
}
