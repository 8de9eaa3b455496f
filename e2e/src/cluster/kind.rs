//! kind: kubeadm's nodes as containers of a Docker engine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use anyhow::{Context, bail};
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::ListParams;

use crate::cluster::owner::Owner;
use crate::cluster::progress::Progress;
use crate::cluster::{Cluster, ClusterKind, Lifetime, Pending, binaries, cache, client, process};

/// The node image that this version of kind is released with.
pub(super) const NODE_IMAGE: &str =
    "kindest/node:v1.37.0@sha256:a1ed56cfb0e7b93589bdf97c8cd566405a265939e3620fc4f5de89adff580ae5";
const NAME: &str = "tidegate";
/// Range of the Services' addresses, kind's default.
const SERVICES: &str = "10.96.0.0/16";
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
        let program = binaries::kind(&self.progress).await?.display().to_string();
        process::run(&program, args).await
    }

    async fn bring_up(&self, lifetime: Lifetime) -> anyhow::Result<()> {
        if !docker_answers().await {
            bail!("no Docker engine answers `docker info`: start one, or take --cluster local");
        }
        if !has_image(&self.node_image, &self.progress).await {
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
        fs::write(owner_file(), serde_json::to_vec(&Owner::by_lifetime(lifetime)?)?)?;
        self.create().await
    }

    async fn create(&self) -> anyhow::Result<()> {
        let config = tempfile::Builder::new().suffix(".yaml").tempfile()?;
        fs::write(config.path(), self.config())?;
        let (config, kubeconfig) = (config.path().display().to_string(), kubeconfig().display().to_string());
        let create = ["create", "cluster", "--name", NAME, "--image", &self.node_image, "--config", &config];
        let arguments = [create.as_slice(), &["--kubeconfig", &kubeconfig, "--wait", "120s"]].concat();
        self.progress.say("kind create cluster");
        self.progress.during("kind create cluster", self.run(&arguments)).await?;
        for node in self.names().await? {
            let make = format!("mkdir -p {DRIVER} && chmod 1777 {DRIVER}");
            process::run("docker", &["exec", &node, "sh", "-c", &make]).await?;
        }
        route_to_pods().await?;
        self.progress.say("the kind cluster is up");
        Ok(())
    }

    async fn remove(&self) -> anyhow::Result<()> {
        for node in self.names().await.unwrap_or_default() {
            if let Ok(address) = address_of(&node).await {
                process::try_run("ip", &["route", "flush", "via", &address]).await;
            }
        }
        self.run(&["delete", "cluster", "--name", NAME]).await?;
        for file in [kubeconfig(), owner_file()] {
            let _absent = fs::remove_file(file);
        }
        Ok(())
    }

    fn config(&self) -> String {
        let mut text = "kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\n".to_owned();
        if !Path::new("/sys/fs/cgroup/cgroup.procs").exists() {
            // Newer kubelets refuse cgroup v1 unless they are told that it is meant.
            text.push_str(
                "kubeadmConfigPatches:\n- |\n  kind: KubeletConfiguration\n  failCgroupV1: false\n",
            );
        }
        text.push_str("nodes:\n- role: control-plane\n");
        for _worker in 0..self.workers {
            text.push_str("- role: worker\n");
        }
        text
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
        kubeconfig().exists() && owner.is_some_and(|owner| owner.is_none_or(Owner::is_alive))
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
            let output = process::command("docker").args(["exec", node]).args(command).output().await;
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

/// Whether a kind cluster can be had here.
pub(super) async fn is_possible(node_image: &str, progress: &Progress) -> bool {
    docker_answers().await && has_image(node_image, progress).await
}

async fn docker_answers() -> bool {
    process::succeeds("docker", &["info"]).await
}

/// Whether the Docker engine has an image, now or after pulling it.
async fn has_image(image: &str, progress: &Progress) -> bool {
    if process::succeeds("docker", &["image", "inspect", image]).await {
        return true;
    }
    let what = format!("docker pull {image}");
    progress.say(&what);
    progress.during(&what, process::succeeds("docker", &["pull", "--quiet", image])).await
}

async fn address_of(node: &str) -> anyhow::Result<String> {
    let format = "{{.NetworkSettings.Networks.kind.IPAddress}}";
    Ok(process::run("docker", &["inspect", "--format", format, node]).await?.trim().to_owned())
}

/// Tests talk to pods and Services by their addresses: this machine routes them through the nodes.
async fn route_to_pods() -> anyhow::Result<()> {
    let client = client::from_file(&kubeconfig()).await?;
    let nodes = Api::<Node>::all(client).list(&ListParams::default()).await?.items;
    for (position, node) in nodes.iter().enumerate() {
        let name = node.metadata.name.clone().unwrap_or_default();
        let address = address_of(&name).await?;
        let range = node.spec.as_ref().and_then(|spec| spec.pod_cidr.clone());
        let range = range.with_context(|| format!("node {name} has no range of pod addresses"))?;
        let ranges = [Some(range), (position == 0).then(|| SERVICES.to_owned())];
        for range in ranges.into_iter().flatten() {
            process::run("ip", &["route", "replace", &range, "via", &address])
                .await
                .context("cannot route to the pods: run this as root, on the machine of the Docker engine")?;
        }
    }
    Ok(())
}

fn kubeconfig() -> PathBuf {
    cache::directory().unwrap_or_else(|_no_home| std::env::temp_dir()).join("kind.kubeconfig")
}

fn owner_file() -> PathBuf {
    kubeconfig().with_extension("owner.json")
}
