//! The cluster that the current kubeconfig points at.

use std::path::{Path, PathBuf};
use std::process::Output;

use anyhow::bail;
use k8s_openapi::api::core::v1::Node;
use kube::api::ListParams;
use kube::{Api, ResourceExt};

use crate::cluster::progress::Progress;
use crate::cluster::{Cluster, ClusterKind, Lifetime, Pending, client};

/// A cluster that somebody else brings up and takes down.
pub(super) struct CurrentCluster {
    progress: Progress,
}

impl CurrentCluster {
    /// A handle.
    pub(super) fn new(progress: Progress) -> Self {
        Self { progress }
    }
}

impl Cluster for CurrentCluster {
    fn kind(&self) -> ClusterKind {
        ClusterKind::Current
    }

    fn up(&self, _lifetime: Lifetime) -> Pending<'_, ()> {
        Box::pin(async {
            let names = self.node_names().await?;
            self.progress.say(format_args!("the current cluster answers; nodes: {}", names.join(", ")));
            Ok(())
        })
    }

    fn down(&self) -> Pending<'_, ()> {
        Box::pin(async {
            self.progress.say("the current cluster is not ours to take down");
            Ok(())
        })
    }

    fn is_up(&self) -> bool {
        self.kubeconfig().exists()
    }

    /// Nobody but the cluster's owner can put an image on its nodes, so this says where the images are.
    fn load_images<'a>(&'a self, archives: &'a [PathBuf]) -> Pending<'a, ()> {
        Box::pin(async move {
            self.progress.say("push these images to a registry that the current cluster pulls from (docker load, docker push):");
            for archive in archives {
                self.progress.say(format_args!("  {}", archive.display()));
            }
            Ok(())
        })
    }

    fn kubeconfig(&self) -> PathBuf {
        let listed = std::env::var_os("KUBECONFIG").filter(|value| !value.is_empty());
        let first = listed.and_then(|value| std::env::split_paths(&value).next());
        first.unwrap_or_else(|| std::env::home_dir().unwrap_or_default().join(".kube/config"))
    }

    fn node_names(&self) -> Pending<'_, Vec<String>> {
        Box::pin(async {
            let nodes = Api::<Node>::all(client::from_file(&self.kubeconfig()).await?)
                .list(&ListParams::default())
                .await?;
            Ok(nodes.iter().map(ResourceExt::name_any).collect())
        })
    }

    fn exec<'a>(&'a self, node: &'a str, _command: &'a [&'a str]) -> Pending<'a, Output> {
        Box::pin(async move {
            bail!(
                "no command can be run on node {node} of the current cluster: take --cluster local or --cluster kind"
            )
        })
    }

    fn save_node_logs<'a>(&'a self, _directory: &'a Path) -> Pending<'a, ()> {
        Box::pin(async { Ok(()) })
    }
}
