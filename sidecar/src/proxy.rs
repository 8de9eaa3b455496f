//! The data path: accepts connections, asks for a decision, and passes requests on to the engine of the pod.
//!
//! ```text
//!  accept ─▶ connection ─▶ handler ─▶ exchange ─▶ body
//!             (wire)       (decision)  (sender, upstream)
//! ```
//!
//! Everything of a client's connection runs in one task: the client's side, which is the untrusted one, and one connection
//! to the engine, over the same codec of HTTP/1. There are no channels between them. hyper serves HTTP/2.

mod accept;
mod answer;
mod body;
mod call;
mod client;
mod codec;
mod connection;
mod deadline;
mod detect;
mod exchange;
mod fallback;
mod forward;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod guard;
mod hand_over;
mod handler;
mod http2;
mod judge;
mod outbox;
mod patience;
mod pause;
mod pool;
mod prefix;
mod progress;
mod queue;
mod receive;
mod relay;
mod request_body;
mod sender;
mod shape;
mod splice;
mod sse;
mod streams;
mod upstream;
mod wire;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use anyhow::Context as _;
use tokio::runtime::{Builder, LocalOptions};
use tokio::task::JoinSet;

use crate::shared::Shared;
use accept::Door;

/// What is guarded, and how to reach it.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// Ports of the pod whose requests are judged. A redirected connection finds its own by its original
    /// destination.
    pub guarded: Vec<u16>,
    /// Ports that are listened on in place of guarded ones, without redirection, and those they stand for.
    pub named: Vec<(u16, u16)>,
    /// Ports of the pod that are spliced as bytes, without judgement.
    pub opaque: Vec<u16>,
    /// Ports of the pod whose engine speaks HTTP/2 without TLS: what comes over HTTP/2 goes on over it, and not only
    /// gRPC.
    pub http2: Vec<u16>,
    /// Without redirection: where everything goes that reaches the listener.
    pub upstream: Option<SocketAddr>,
    /// Exact paths that are answered by the engine without judgement, beside `/metrics`.
    pub unlimited_paths: Vec<String>,
}

/// Serves on `listeners` until [`Drain::stop`](crate::drain::Drain::stop), on a runtime of the calling thread. Call it
/// once for each worker thread, each with listeners of its own (`SO_REUSEPORT`).
///
/// # Errors
/// When the runtime cannot be built or a listener cannot be used.
pub fn serve(listeners: Vec<TcpListener>, config: &Arc<Config>, shared: &Arc<Shared>) -> anyhow::Result<()> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .context("cannot build the runtime of a worker thread")?;
    runtime.block_on(async {
        let mut accepting = JoinSet::new();
        for listener in listeners {
            let door = Door::open(listener, config).context("cannot use the listening socket")?;
            accepting.spawn_local(accept::run(door, Arc::clone(config), Arc::clone(shared)));
        }
        while let Some(ended) = accepting.join_next().await {
            ended.context("accepting connections")?;
        }
        Ok(())
    })
}
