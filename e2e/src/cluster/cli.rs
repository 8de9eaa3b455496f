//! The command line of the clusters.

use std::process::ExitCode;

use clap::Args;

/// Flags of `tidegate-e2e cluster`.
#[derive(Debug, Args)]
pub struct ClusterArgs {}

/// Flags of `tidegate-e2e test`.
#[derive(Debug, Args)]
pub struct TestArgs {}

/// Flags of `tidegate-e2e node-init`.
#[derive(Debug, Args)]
pub struct NodeInitArgs {}

/// Runs `tidegate-e2e cluster`.
#[allow(clippy::unused_async)]
pub async fn run(_args: ClusterArgs) -> anyhow::Result<ExitCode> {
    anyhow::bail!("cluster: not part of this build")
}

/// Runs `tidegate-e2e test`.
#[allow(clippy::unused_async)]
pub async fn test(_args: TestArgs) -> anyhow::Result<ExitCode> {
    anyhow::bail!("test: not part of this build")
}

/// Runs PID 1 of a node.
pub fn node_init(_args: &NodeInitArgs) -> anyhow::Result<ExitCode> {
    anyhow::bail!("node-init: not part of this build")
}
