//! The demo.

use std::process::ExitCode;

use clap::Args;

/// Flags of `tidegate-e2e demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {}

/// Runs `tidegate-e2e demo`.
///
/// # Errors
/// When the command cannot do its work.
#[allow(clippy::unused_async)]
pub async fn run(_args: DemoArgs) -> anyhow::Result<ExitCode> {
    anyhow::bail!("demo: not part of this build")
}

/// Flags of `tidegate-e2e demo-standalone`.
#[derive(Debug, Args)]
pub struct StandaloneArgs {}

/// Runs `tidegate-e2e demo-standalone`.
///
/// # Errors
/// When the command cannot do its work.
#[allow(clippy::unused_async)]
pub async fn run_standalone(_args: StandaloneArgs) -> anyhow::Result<ExitCode> {
    anyhow::bail!("demo-standalone: not part of this build")
}
