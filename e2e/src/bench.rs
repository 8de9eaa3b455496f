//! The sidecar's cost beside other proxies.

use std::process::ExitCode;

use clap::Args;

/// Flags of `tidegate-e2e bench`.
#[derive(Debug, Args)]
pub struct BenchArgs {}

/// Runs `tidegate-e2e bench`.
///
/// # Errors
/// When the command cannot do its work.
#[allow(clippy::unused_async)]
pub async fn run(_args: BenchArgs) -> anyhow::Result<ExitCode> {
    anyhow::bail!("bench: not part of this build")
}
