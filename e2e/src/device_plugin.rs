//! The device plugin simulator: `nvidia.com/gpu` over the kubelet's registration socket.

use std::process::ExitCode;

use clap::Args;

/// Flags of `tidegate-e2e device-plugin`.
#[derive(Debug, Args)]
pub struct DevicePluginArgs {}

/// Runs `tidegate-e2e device-plugin`.
///
/// # Errors
/// When the command cannot do its work.
#[allow(clippy::unused_async)]
pub async fn run(_args: DevicePluginArgs) -> anyhow::Result<ExitCode> {
    anyhow::bail!("device-plugin: not part of this build")
}
