//! kind: kubeadm's nodes as containers of a Docker engine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use anyhow::{Context, bail};

use crate::cluster::progress::Progress;
use crate::cluster::{Cluster, ClusterKind, Lifetime, Pending, binaries, cache, process};

/// The node image that `kind create cluster` gets unless a flag names another.
pub(super) const NODE_IMAGE: &str = "kindest/node:v1.34.4";
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

    async fn bring_up(&self) -> anyhow::Result<()> {
        if !docker_answers().await {
            bail!("no Docker engine answers `docker info`: start one, or take --cluster local");
        }
        let kind = binaries::kind(&self.progress).await?.display().to_string();
        if process::run(&kind, &["get", "clusters"]).await?.lines().any(|name| name == NAME) {
            self.progress.say("the kind cluster is up already");
            return Ok(());
        }
        let config = tempfile::Builder::new().suffix(".yaml").tempfile()?;
        fs::write(config.path(), self.config())?;
        let (config, kubeconfig) =
            (config.path().display().to_string(), self.kubeconfig().display().to_string());
        let create = [
            "create",
            "cluster",
            "--name",
            NAME,
            "--image",
            &self.node_image,
            "--config",
            &config,
            "--kubeconfig",
            &kubeconfig,
            "--wait",
            "120s",
        ];
        self.progress.say("kind create cluster");
        self.progress.during("kind create cluster", process::run(&kind, &create)).await?;
        for node in self.names().await? {
            let make = ["exec", &node, "sh", "-c", &format!("mkdir -p {DRIVER} && chmod 1777 {DRIVER}")];
            process::run("docker", &make).await?;
        }
        self.progress.say("the kind cluster is up");
        Ok(())
    }

    fn config(&self) -> String {
        let mut text =
            "kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\nnodes:\n- role: control-plane\n".to_owned();
        for _worker in 0..self.workers {
            text.push_str("- role: worker\n");
        }
        text
    }

    async fn names(&self) -> anyhow::Result<Vec<String>> {
        let kind = binaries::kind(&self.progress).await?.display().to_string();
        let text = process::run(&kind, &["get", "nodes", "--name", NAME]).await?;
        let mut names: Vec<String> = text.lines().map(str::to_owned).collect();
        names.sort_by_key(|name| (!name.ends_with("control-plane"), name.clone()));
        Ok(names)
    }
}

impl Cluster for KindCluster {
    fn kind(&self) -> ClusterKind {
        ClusterKind::Kind
    }

    fn up(&self, _lifetime: Lifetime) -> Pending<'_, ()> {
        Box::pin(self.bring_up())
    }

    fn down(&self) -> Pending<'_, ()> {
        Box::pin(async {
            let kind = binaries::kind(&self.progress).await?.display().to_string();
            process::run(&kind, &["delete", "cluster", "--name", NAME]).await?;
            let _absent = fs::remove_file(self.kubeconfig());
            self.progress.say("the kind cluster is down");
            Ok(())
        })
    }

    fn is_up(&self) -> bool {
        self.kubeconfig().exists()
    }

    fn load_images<'a>(&'a self, archives: &'a [PathBuf]) -> Pending<'a, ()> {
        Box::pin(async move {
            let kind = binaries::kind(&self.progress).await?.display().to_string();
            for archive in archives {
                process::run(
                    &kind,
                    &["load", "image-archive", &archive.display().to_string(), "--name", NAME],
                )
                .await?;
            }
            Ok(())
        })
    }

    fn kubeconfig(&self) -> PathBuf {
        cache::directory().unwrap_or_else(|_no_home| std::env::temp_dir()).join("kind.kubeconfig")
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
            let kind = binaries::kind(&self.progress).await?.display().to_string();
            let target = directory.join("kind").display().to_string();
            process::run(&kind, &["export", "logs", &target, "--name", NAME]).await.map(drop)
        })
    }
}

/// Whether a Docker engine is there.
pub(super) async fn docker_answers() -> bool {
    process::succeeds("docker", &["info"]).await
}
