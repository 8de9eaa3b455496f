//! The device plugin simulator: `nvidia.com/gpu` over the kubelet's registration socket.
//!
//! It does what NVIDIA's plugin does on a node with GPUs: it lists them, one device for each or `replicas` for
//! time-slicing, and tells a container which it was given. What stands for the hardware are the files that the
//! simulated NVML library reads ([`gpus`]).

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use tokio::net::UnixListener;

mod api;
mod gpus;
mod plugin;
mod registration;

use gpus::GpuDir;
use plugin::Plugin;

/// Our own socket, beside the kubelet's.
const SOCKET: &str = "tidegate-e2e-gpu.sock";
/// The kubelet's.
const KUBELET_SOCKET: &str = "kubelet.sock";
/// How often the kubelet's socket is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// Flags of `tidegate-e2e device-plugin`.
#[derive(Debug, Args)]
pub struct DevicePluginArgs {
    /// Directory of the GPUs' files, as the node and the containers see it.
    #[arg(long)]
    gpu_dir: PathBuf,
    /// Devices offered for each GPU: more than one is time-slicing, with ids such as `GPU-…::0`.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    replicas: u32,
    /// GPUs that there shall be at least; missing ones are made.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=64))]
    create: u32,
    /// Memory of a GPU that is made, such as 40Gi.
    #[arg(long, default_value = "40Gi", value_parser = gpus::bytes)]
    memory: u64,
    /// Keeps the UUIDs of GPUs made on two nodes apart.
    #[arg(long, env = "NODE_NAME", default_value = "local")]
    node_name: String,
    /// The simulated library, to be copied as libnvidia-ml.so.1 beside the directory of the GPUs.
    #[arg(long)]
    install_library: Option<PathBuf>,
    /// Resource that is offered.
    #[arg(long, default_value = "nvidia.com/gpu")]
    resource: String,
    /// Directory of the kubelet's registration socket.
    #[arg(long, default_value = "/var/lib/kubelet/device-plugins")]
    kubelet_dir: PathBuf,
}

/// Runs `tidegate-e2e device-plugin` until SIGTERM or SIGINT.
///
/// # Errors
/// When the GPUs' files or the library cannot be written, or no socket can be opened.
pub async fn run(args: DevicePluginArgs) -> anyhow::Result<ExitCode> {
    let gpus = GpuDir::open(&args.gpu_dir)?;
    let made = gpus.fill_up(args.create, args.memory, &args.node_name)?;
    if let Some(library) = &args.install_library {
        gpus.install_library(library)?;
    }
    eprintln!("device-plugin: {} GPUs in {}, {made} of them new", gpus.list().len(), args.gpu_dir.display());
    let plugin = Arc::new(Plugin::new(gpus, args.replicas));
    tokio::select! {
        result = serve(&plugin, &args.kubelet_dir, &args.resource) => result?,
        result = stopped() => result?,
    }
    let _already_gone = std::fs::remove_file(args.kubelet_dir.join(SOCKET));
    Ok(ExitCode::SUCCESS)
}

async fn stopped() -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// Serves and registers, and does both anew for each kubelet: one that starts deletes all plugins' sockets.
async fn serve(plugin: &Arc<Plugin>, dir: &Path, resource: &str) -> anyhow::Result<()> {
    let (own, kubelet) = (dir.join(SOCKET), dir.join(KUBELET_SOCKET));
    loop {
        let identity = registration::wait_for(&kubelet, LOOK).await;
        if let Err(error) = std::fs::remove_file(&own)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            return Err(error).with_context(|| own.display().to_string());
        }
        let listener =
            UnixListener::bind(&own).with_context(|| format!("cannot listen at {}", own.display()))?;
        let router = plugin::router(Arc::clone(plugin));
        let server = tokio::spawn(async move { axum::serve(listener, router).await });
        match registration::register(&kubelet, SOCKET, resource).await {
            Ok(()) => {
                eprintln!("device-plugin: {resource} is registered with the kubelet");
                registration::until_changed(&kubelet, identity, &own, LOOK).await;
                eprintln!("device-plugin: the kubelet started anew");
            }
            Err(error) => {
                eprintln!("device-plugin: the kubelet does not take the registration: {error:#}");
                tokio::time::sleep(LOOK).await;
            }
        }
        server.abort();
    }
}

#[cfg(test)]
mod tests;
