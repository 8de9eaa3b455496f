//! Open-loop traffic.

use std::process::ExitCode;

use clap::Args;

/// Flags of `tidegate-e2e load`.
#[derive(Debug, Args)]
pub struct LoadArgs {}

/// Runs `tidegate-e2e load`.
///
/// # Errors
/// When the command cannot do its work.
#[allow(clippy::unused_async)]
pub async fn run(_args: LoadArgs) -> anyhow::Result<ExitCode> {
    anyhow::bail!("load: not part of this build")
}
