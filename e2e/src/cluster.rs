//! Clusters for tests: one trait, three kinds.
//!
//! `local` runs a real control plane and real kubelets in namespaces of this machine, `kind` runs kubeadm's nodes in a
//! Docker engine, `current` is whatever the kubeconfig points at. The same tests run on each.

use std::path::{Path, PathBuf};
use std::process::Output;

use clap::{Args, ValueEnum};
use futures::future::LocalBoxFuture;

use crate::cluster::progress::Progress;

pub mod binaries;
pub mod cache;
mod cgroup;
pub mod cli;
mod client;
mod cni;
mod current;
mod dump;
mod guard;
pub mod images;
mod kind;
mod local;
mod owner;
pub mod packages;
pub mod process;
pub mod progress;
mod readiness;
mod routes;
pub mod session;
mod sysctls;

/// What the trait's methods return: a boxed future, so that `dyn Cluster` works; it stays on the thread of its caller.
pub type Pending<'a, T> = LocalBoxFuture<'a, anyhow::Result<T>>;

/// A Kubernetes cluster that tests run against.
pub trait Cluster: Send + Sync {
    /// Which kind it is.
    fn kind(&self) -> ClusterKind;

    /// Brings the cluster up until every node is Ready and DNS answers. A running cluster of the same shape is kept.
    fn up(&self, lifetime: Lifetime) -> Pending<'_, ()>;

    /// Takes the cluster down and everything with it that `up` put on this machine.
    fn down(&self) -> Pending<'_, ()>;

    /// Whether `up` has been called and its cluster still runs.
    fn is_up(&self) -> bool;

    /// Loads docker-archives (see [`images`]) into the container runtime of every node.
    fn load_images<'a>(&'a self, archives: &'a [PathBuf]) -> Pending<'a, ()>;

    /// Path of the kubeconfig with the rights of a cluster administrator.
    fn kubeconfig(&self) -> PathBuf;

    /// Names of the nodes, the control plane's first.
    fn node_names(&self) -> Pending<'_, Vec<String>>;

    /// Runs a command on a node, with the node's file system, processes and network.
    fn exec<'a>(&'a self, node: &'a str, command: &'a [&'a str]) -> Pending<'a, Output>;

    /// Copies the logs of the nodes' own processes (kubelet, container runtime, control plane) into a directory.
    fn save_node_logs<'a>(&'a self, directory: &'a Path) -> Pending<'a, ()>;
}

/// When a cluster ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Lifetime {
    /// With `cluster down`.
    Kept,
    /// With the process that brings it up: if that one dies without a word, the next run takes what is left for garbage.
    ThisProcess,
}

/// Which cluster to use.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum ClusterKind {
    /// Control plane and kubelets as processes of this machine; needs root on Debian.
    Local,
    /// kind, on a Docker engine.
    Kind,
    /// The cluster that the current kubeconfig points at.
    Current,
}

impl ClusterKind {
    /// The kind of cluster that this machine can have: kind where a Docker engine answers and has or can pull the node
    /// image, else local where this process is root, else none.
    pub async fn possible_here(progress: &Progress) -> Option<Self> {
        if kind::is_possible(kind::NODE_IMAGE, progress).await {
            return Some(Self::Kind);
        }
        rustix::process::geteuid().is_root().then_some(Self::Local)
    }

    /// The name as it is written on the command line and in `TIDEGATE_E2E_CLUSTER`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Kind => "kind",
            Self::Current => "current",
        }
    }
}

/// Flags that choose a cluster.
#[derive(Clone, Debug, Args)]
pub struct ClusterChoice {
    /// Which cluster to use.
    #[arg(long = "cluster", value_enum, default_value = "local", env = "TIDEGATE_E2E_CLUSTER")]
    pub kind: ClusterKind,
    /// Nodes beside the control plane's own, which runs pods too (0 to 8).
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=8))]
    pub workers: u8,
    /// Node image for `--cluster kind`: one that the Docker engine has or can pull.
    #[arg(long, default_value = kind::NODE_IMAGE)]
    pub node_image: String,
}

impl ClusterChoice {
    /// A cluster of one node, with the node image that is known to work.
    pub fn of(kind: ClusterKind) -> Self {
        Self { kind, workers: 0, node_image: kind::NODE_IMAGE.to_owned() }
    }

    /// The chosen cluster; nothing is started by this call.
    pub fn open(&self, progress: &Progress) -> Box<dyn Cluster> {
        match self.kind {
            ClusterKind::Local => Box::new(local::LocalCluster::new(self.workers, progress.clone())),
            ClusterKind::Kind => {
                Box::new(kind::KindCluster::new(self.workers, self.node_image.clone(), progress.clone()))
            }
            ClusterKind::Current => Box::new(current::CurrentCluster::new(progress.clone())),
        }
    }
}
