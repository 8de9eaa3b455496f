//! kind: kubeadm's nodes as containers of a Docker engine.
//!
//! Where an engine answers, its own, with the node image that kind is released with. On a bare machine Debian's engine is
//! started for the time of the cluster ([`engine`]), with a node image made on this machine ([`node_image`]).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use anyhow::{Context, bail};

use crate::cluster::kind::docker::Docker;
use crate::cluster::owner::Owner;
use crate::cluster::progress::Progress;
use crate::cluster::{Cluster, ClusterKind, Lifetime, Pending, binaries, cache, client, process};

mod docker;
mod engine;
mod network;
mod node_image;
pub(super) mod runtime;

/// The node image that this version of kind is released with.
pub(super) const NODE_IMAGE: &str =
    "kindest/node:v1.37.0@sha256:a1ed56cfb0e7b93589bdf97c8cd566405a265939e3620fc4f5de89adff580ae5";
const NAME: &str = "tidegate";
/// Where a node finds the simulated GPU driver.
const DRIVER: &str = "/var/lib/tidegate-e2e/driver";

/// A kind cluster named `tidegate`.
pub(super) struct KindCluster {
    workers: u8,
    node_image: String,
    progress: Progress,
}

impl KindCluster {
    /// A handle.
    pub(super) fn new(workers: u8, node_image: String, progress: Progress) -> Self {
        Self { workers, node_image, progress }
    }

    async fn run(&self, args: &[&str]) -> anyhow::Result<String> {
        let program = binaries::kind(&self.progress).await?;
        process::output(Docker::in_use().command(program).args(args)).await
    }

    async fn bring_up(&self, lifetime: Lifetime) -> anyhow::Result<()> {
        if matches!(Docker::in_use(), Docker::Own(_)) {
            if self.is_up() {
                self.progress.say("the kind cluster is up already");
                return Ok(());
            }
            self.progress.say("removing what an earlier run has left");
            self.remove().await?;
        }
        if !Docker::Host.answers().await {
            return self.bring_up_on_own_engine(lifetime).await;
        }
        if !Docker::Host.has_image(&self.node_image, &self.progress).await {
            bail!(
                "the Docker engine neither has nor can pull {}: name one that it has by --node-image, or take --cluster local",
                self.node_image
            );
        }
        if self.run(&["get", "clusters"]).await?.lines().any(|name| name == NAME) {
            if self.is_up() {
                self.progress.say("the kind cluster is up already");
                return Ok(());
            }
            self.progress.say("removing what an earlier run has left");
            self.remove().await?;
        }
        record_owner(lifetime)?;
        self.create(&Docker::Host, &self.node_image).await
    }

    async fn bring_up_on_own_engine(&self, lifetime: Lifetime) -> anyhow::Result<()> {
        engine::check().await?;
        let archive = if self.node_image == NODE_IMAGE {
            Some(node_image::archive(&self.progress).await?)
        } else {
            None
        };
        record_owner(lifetime)?;
        let docker = engine::start(&self.progress).await?;
        let Some(archive) = archive else {
            if !docker.has_image(&self.node_image, &self.progress).await {
                bail!(
                    "{} cannot be pulled: without --node-image one is made on this machine",
                    self.node_image
                );
            }
            return self.create(&docker, &self.node_image).await;
        };
        let what = "docker load of the node image";
        self.progress.say(what);
        let path = archive.display().to_string();
        self.progress.during(what, docker.run(&["load", "--quiet", "--input", &path])).await?;
        self.create(&docker, &node_image::reference()).await
    }

    async fn create(&self, docker: &Docker, image: &str) -> anyhow::Result<()> {
        let is_ours = image == node_image::reference();
        let config = tempfile::Builder::new().suffix(".yaml").tempfile()?;
        fs::write(config.path(), config_text(self.workers, is_ours))?;
        let (config, kubeconfig) = (config.path().display().to_string(), kubeconfig().display().to_string());
        let create = ["create", "cluster", "--name", NAME, "--image", image, "--config", &config];
        // Nodes of our image are ready when they have got their network, below.
        let wait = if is_ours { "0s" } else { "120s" };
        let arguments = [create.as_slice(), &["--kubeconfig", &kubeconfig, "--wait", wait]].concat();
        self.progress.say("kind create cluster");
        self.progress.during("kind create cluster", self.run(&arguments)).await?;
        for node in self.names().await? {
            let make = format!("mkdir -p {DRIVER} && chmod 1777 {DRIVER}");
            docker.run(&["exec", &node, "sh", "-c", &make]).await?;
        }
        let client = client::from_file(&self.kubeconfig()).await?;
        if is_ours {
            self.progress.say("connecting the nodes");
            network::connect(&client, docker, usize::from(self.workers) + 1).await?;
        }
        network::route_to_pods(&client, docker).await?;
        self.progress.say("the kind cluster is up");
        Ok(())
    }

    async fn remove(&self) -> anyhow::Result<()> {
        match Docker::in_use() {
            Docker::Own(_) => engine::remove().await?,
            Docker::Host if Docker::Host.answers().await => {
                for node in self.names().await.unwrap_or_default() {
                    if let Ok(address) = Docker::Host.address_of(&node).await {
                        process::try_run("ip", &["route", "flush", "via", &address]).await;
                    }
                }
                self.run(&["delete", "cluster", "--name", NAME]).await?;
            }
            Docker::Host => {}
        }
        for file in [kubeconfig(), owner_file()] {
            let _absent = fs::remove_file(file);
        }
        Ok(())
    }

    async fn names(&self) -> anyhow::Result<Vec<String>> {
        let text = self.run(&["get", "nodes", "--name", NAME]).await?;
        let mut names: Vec<String> = text.lines().map(str::to_owned).collect();
        names.sort_by_key(|name| (!name.ends_with("control-plane"), name.clone()));
        Ok(names)
    }
}

impl Cluster for KindCluster {
    fn kind(&self) -> ClusterKind {
        ClusterKind::Kind
    }

    fn up(&self, lifetime: Lifetime) -> Pending<'_, ()> {
        Box::pin(self.bring_up(lifetime))
    }

    fn down(&self) -> Pending<'_, ()> {
        Box::pin(async {
            self.remove().await?;
            self.progress.say("the kind cluster is down");
            Ok(())
        })
    }

    fn is_up(&self) -> bool {
        let owner =
            fs::read(owner_file()).ok().and_then(|text| serde_json::from_slice::<Option<Owner>>(&text).ok());
        let runs = match Docker::in_use() {
            Docker::Own(_) => engine::is_running(),
            Docker::Host => true,
        };
        runs && kubeconfig().exists() && owner.is_some_and(|owner| owner.is_none_or(Owner::is_alive))
    }

    fn load_images<'a>(&'a self, archives: &'a [PathBuf]) -> Pending<'a, ()> {
        Box::pin(async move {
            for archive in archives {
                self.run(&["load", "image-archive", &archive.display().to_string(), "--name", NAME]).await?;
            }
            Ok(())
        })
    }

    fn kubeconfig(&self) -> PathBuf {
        kubeconfig()
    }

    fn node_names(&self) -> Pending<'_, Vec<String>> {
        Box::pin(self.names())
    }

    fn exec<'a>(&'a self, node: &'a str, command: &'a [&'a str]) -> Pending<'a, Output> {
        Box::pin(async move {
            let output = Docker::in_use().command("docker").args(["exec", node]).args(command).output().await;
            output.context("cannot start docker")
        })
    }

    fn save_node_logs<'a>(&'a self, directory: &'a Path) -> Pending<'a, ()> {
        Box::pin(async move {
            let target = directory.join("kind").display().to_string();
            self.run(&["export", "logs", &target, "--name", NAME]).await.map(drop)
        })
    }
}

/// Whether a kind cluster can be had on an engine that answers here.
pub(super) async fn is_possible(node_image: &str, progress: &Progress) -> bool {
    Docker::Host.answers().await && Docker::Host.has_image(node_image, progress).await
}

/// What kind is told about the cluster.
fn config_text(workers: u8, image_is_ours: bool) -> String {
    let mut text = "kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\n".to_owned();
    let mut patches = Vec::new();
    if !Path::new("/sys/fs/cgroup/cgroup.procs").exists() {
        // Newer kubelets refuse cgroup v1 unless they are told that it is meant.
        patches.push("kind: KubeletConfiguration\nfailCgroupV1: false\n".to_owned());
    }
    if image_is_ours {
        text.push_str("networking: {disableDefaultCNI: true, kubeProxyMode: nftables}\n");
        patches.push(node_image::kubeadm_patch());
    }
    if !patches.is_empty() {
        text.push_str("kubeadmConfigPatches:\n");
    }
    for patch in patches {
        text.push_str("- |\n");
        patch.lines().for_each(|line| text.extend(["  ", line, "\n"]));
    }
    text.push_str("nodes:\n- role: control-plane\n");
    for _worker in 0..workers {
        text.push_str("- role: worker\n");
    }
    text
}

fn record_owner(lifetime: Lifetime) -> anyhow::Result<()> {
    Ok(fs::write(owner_file(), serde_json::to_vec(&Owner::by_lifetime(lifetime)?)?)?)
}

fn kubeconfig() -> PathBuf {
    cache::directory().unwrap_or_else(|_no_home| std::env::temp_dir()).join("kind.kubeconfig")
}

fn owner_file() -> PathBuf {
    kubeconfig().with_extension("owner.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_of_our_own_image_bring_their_network_and_the_names_of_their_images() {
        for (workers, is_ours) in [(0, false), (2, false), (0, true), (2, true)] {
            let config: serde_json::Value = serde_saphyr::from_str(&config_text(workers, is_ours)).unwrap();
            assert_eq!(config["nodes"].as_array().unwrap().len(), usize::from(workers) + 1);
            assert_eq!(config["networking"]["disableDefaultCNI"].as_bool().unwrap_or(false), is_ours);
            let patches = config["kubeadmConfigPatches"].as_array().cloned().unwrap_or_default();
            let names_images = patches
                .iter()
                .any(|patch| patch.as_str().unwrap().contains("imageRepository: tidegate.local"));
            assert_eq!(names_images, is_ours);
        }
    }
}
