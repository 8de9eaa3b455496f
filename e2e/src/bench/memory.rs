//! Memory by number of kept connections, and what is given back after they close.

use std::{path::Path, time::Duration};

use serde::Serialize;

use super::{
    backend,
    peer::Peer,
    process::{Memory, memory},
    wrk,
};
use crate::{cluster::progress::Progress, server::Server};

/// Time after the start until a proxy counts as idle.
const IDLE: Duration = Duration::from_secs(1);
/// Length of the load on each number of connections.
const LOAD: Duration = Duration::from_secs(4);
/// When it is read within that time: all connections are open and have been used.
const READ_AT: Duration = Duration::from_secs(3);

/// One proxy's memory.
#[derive(Debug, Clone, Serialize)]
pub struct Footprint {
    /// The proxy's name.
    pub peer: &'static str,
    /// Before the first request.
    pub idle: Memory,
    /// With 64 connections under load.
    pub at_64: Memory,
    /// With 400.
    pub at_400: Memory,
    /// After all connections have been closed for `settle`.
    pub after: Memory,
}

/// Measures each proxy in a process of its own, then waits `settle` for all of them together.
pub async fn measure(
    peers: &[Peer],
    directory: &Path,
    settle: Duration,
    progress: &Progress,
) -> anyhow::Result<Vec<Footprint>> {
    let backend = backend::start()?;
    let mut loaded: Vec<(Server, Footprint)> = Vec::new();
    for peer in peers {
        let proxy = peer.start(backend, directory).await?;
        tokio::time::sleep(IDLE).await;
        let idle = memory(proxy.pid()?)?;
        let at_64 = under_load(&proxy, 64).await?;
        let at_400 = under_load(&proxy, 400).await?;
        progress.say(format_args!(
            "memory of {}: {} KiB idle, {} KiB at 64, {} KiB at 400 connections",
            peer.name(),
            idle.rss,
            at_64.rss,
            at_400.rss
        ));
        let footprint = Footprint { peer: peer.name(), idle, at_64, at_400, after: Memory::default() };
        loaded.push((proxy, footprint));
    }
    let wait = tokio::time::sleep(settle);
    progress.during("waiting for memory to be given back", wait).await;
    let mut footprints = Vec::new();
    for (proxy, mut footprint) in loaded {
        footprint.after = memory(proxy.pid()?)?;
        proxy.stop().await?;
        footprints.push(footprint);
    }
    Ok(footprints)
}

async fn under_load(proxy: &Server, connections: u32) -> anyhow::Result<Memory> {
    let pid = proxy.pid()?;
    let url = proxy.url(backend::SMALL);
    let reading = async {
        tokio::time::sleep(READ_AT).await;
        memory(pid)
    };
    let (run, memory) = tokio::join!(wrk::run(&url, connections, LOAD), reading);
    run?;
    memory
}
