//! The engine simulator: OpenAI-compatible endpoints in front of a model of batching and KV cache.

use std::process::ExitCode;

use clap::Args;

/// Flags of `tidegate-e2e engine`.
#[derive(Debug, Args)]
pub struct EngineArgs {}

/// Runs `tidegate-e2e engine`.
///
/// # Errors
/// When the command cannot do its work.
#[allow(clippy::unused_async)]
pub async fn run(_args: EngineArgs) -> anyhow::Result<ExitCode> {
    anyhow::bail!("engine: not part of this build")
}
