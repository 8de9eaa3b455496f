//! Memory by number of kept connections, at rest and under load, and what is given back after they close.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::Path,
    time::Duration,
};

use anyhow::Context as _;
use serde::Serialize;

use super::{
    backend,
    figure::Figure,
    peer::{Peer, Protocol},
    process::{Memory, memory},
    wrk,
};
use crate::{cluster::progress::Progress, server::Server};

/// Time after the start until a proxy counts as idle, and after the last request until its connections are at rest.
const IDLE: Duration = Duration::from_secs(2);
/// Length of the load on each number of connections.
const LOAD: Duration = Duration::from_secs(4);
/// When it is read within that time: all connections are open and have been used.
const READ_AT: Duration = Duration::from_secs(3);

/// Connections at rest, and what the sidecar may take with them, in MiB.
const HELD: [(u32, u64); 3] = [(64, 6), (400, 11), (1000, 22)];
/// Connections under load, and what the sidecar may take with them, in MiB.
const LOADED: [(u32, u64); 2] = [(400, 14), (1000, 25)];
/// What the sidecar may take before the first request, in MiB.
const AT_REST: u64 = 5;
/// What it may keep after the last, of that.
const KEPT: f64 = 1.3;

/// Memory with so many connections.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Sample {
    /// Connections.
    pub connections: u32,
    /// Of the proxy's processes together.
    pub memory: Memory,
}

/// One proxy's memory.
#[derive(Debug, Clone, Serialize)]
pub struct Footprint {
    /// The proxy's name.
    pub peer: &'static str,
    /// Before the first request.
    pub idle: Memory,
    /// With connections that have carried one request each, with a key of its own.
    pub held: Vec<Sample>,
    /// With connections under load.
    pub loaded: Vec<Sample>,
    /// After all connections have been closed for `settle`.
    pub after: Memory,
}

impl Footprint {
    /// What was promised of the sidecar's.
    pub fn figures(&self) -> Vec<Figure> {
        let mut figures = vec![mebibytes("idle", self.idle.rss, AT_REST)];
        let samples = |kind: &'static str, samples: &[Sample], promised: &[(u32, u64)]| {
            let figure = |sample: &Sample| {
                let (_, bound) = promised.iter().find(|(number, _)| *number == sample.connections)?;
                Some(mebibytes(
                    &format!("{} connections {kind}", sample.connections),
                    sample.memory.rss,
                    *bound,
                ))
            };
            samples.iter().filter_map(figure).collect::<Vec<_>>()
        };
        figures.extend(samples("held", &self.held, &HELD));
        figures.extend(samples("under load", &self.loaded, &LOADED));
        let kept = self.after.rss as f64 / self.idle.rss.max(1) as f64;
        figures.push(Figure::at_most("resident after close ÷ idle", kept, "", KEPT, "one run"));
        figures
    }
}

fn mebibytes(when: &str, kibibytes: u64, bound: u64) -> Figure {
    Figure::at_most(format!("resident, {when}"), kibibytes as f64 / 1024.0, "MiB", bound as f64, "one run")
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
        let proxy = peer.start(backend, directory, Protocol::Http1).await?;
        tokio::time::sleep(IDLE).await;
        let pid = proxy.pid()?;
        let mut footprint = Footprint {
            peer: peer.name(),
            idle: memory(pid)?,
            held: Vec::new(),
            loaded: Vec::new(),
            after: Memory::default(),
        };
        let mut connections = Vec::new();
        for (number, _) in HELD {
            hold(proxy.address, &mut connections, number as usize)?;
            tokio::time::sleep(IDLE).await;
            footprint.held.push(Sample { connections: number, memory: memory(pid)? });
        }
        drop(connections);
        for (number, _) in LOADED {
            footprint.loaded.push(Sample { connections: number, memory: under_load(&proxy, number).await? });
        }
        progress.say(format_args!("memory of {}: {footprint:?}", peer.name()));
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

/// Opens connections until there are so many, and sends one request on each new one.
pub(super) fn hold(proxy: SocketAddr, connections: &mut Vec<TcpStream>, number: usize) -> anyhow::Result<()> {
    while connections.len() < number {
        let mut stream = TcpStream::connect(proxy)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        ask(&mut stream, connections.len())?;
        connections.push(stream);
    }
    Ok(())
}

/// Asks for two bytes with this key, and reads them.
pub(super) fn ask(stream: &mut TcpStream, key: usize) -> anyhow::Result<()> {
    let request = format!("GET {} HTTP/1.1\r\nHost: bench\r\nx-api-key: {key}\r\n\r\n", backend::SMALL);
    stream.write_all(request.as_bytes())?;
    read_small(stream)
}

/// Reads the answer with two bytes.
pub(super) fn read_small(stream: &mut TcpStream) -> anyhow::Result<()> {
    let mut answer = [0; 1024];
    let mut length = 0;
    while !answer[..length].ends_with(b"\r\n\r\nok") {
        let rest = answer.get_mut(length..).filter(|rest| !rest.is_empty()).context("too long an answer")?;
        let read = stream.read(rest)?;
        anyhow::ensure!(read > 0, "closed after {:?}", String::from_utf8_lossy(&answer[..length]));
        length += read;
    }
    anyhow::ensure!(answer.starts_with(b"HTTP/1.1 200"), "{:?}", String::from_utf8_lossy(&answer[..length]));
    Ok(())
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
