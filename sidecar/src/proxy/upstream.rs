//! A connection to the engine.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use rustix::net::RecvFlags;
use tidegate_core::Tick;
use tokio::net::TcpStream;

use super::receive::poll_receive;

/// The engine is on the same host: what takes longer than this will not come.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection that has been idle for so long is looked at in the kernel before it is used again.
const PEEK_AFTER: Duration = Duration::from_millis(50);

/// Engines close idle connections after a few seconds (uvicorn after 5). What cannot be sent twice is not entrusted
/// to a connection that the engine may be closing at this moment.
const FRESH_AFTER: Duration = Duration::from_secs(1);

/// What was idle for so long is not used again at all, and closed at the next look: before the engine does.
const IDLE_FOR: Duration = Duration::from_secs(2);

/// Where an engine listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Target {
    address: SocketAddr,
    /// Tried when the first refuses.
    second: Option<SocketAddr>,
}

impl Target {
    /// An address outside of this pod.
    pub(super) fn remote(address: SocketAddr) -> Self {
        Self { address, second: None }
    }

    /// A port of this pod. An engine that a client reached over IPv6 may listen on IPv6 only.
    pub(super) fn local(port: u16, client_is_v6: bool) -> Self {
        let second = client_is_v6.then_some((Ipv6Addr::LOCALHOST, port).into());
        Self { address: (Ipv4Addr::LOCALHOST, port).into(), second }
    }

    /// The address that is tried first.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connects, within `limit` where that is given.
    pub(super) async fn connect(&self, limit: Option<Duration>) -> io::Result<TcpStream> {
        let limit = limit.unwrap_or(CONNECT_TIMEOUT);
        let stream = match (connect(self.address, limit).await, self.second) {
            (Err(error), Some(second)) if error.kind() == io::ErrorKind::ConnectionRefused => {
                connect(second, limit).await?
            }
            (connected, _) => connected?,
        };
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

async fn connect(address: SocketAddr, limit: Duration) -> io::Result<TcpStream> {
    let late = |_| {
        let message = format!("no connection to {address} in {} ms", limit.as_millis());
        io::Error::new(io::ErrorKind::TimedOut, message)
    };
    tokio::time::timeout(limit, TcpStream::connect(address)).await.map_err(late)?
}

/// An open connection, and what was received on it but not used yet.
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) stream: TcpStream,
    pub(super) received: Bytes,
    idle_since: Tick,
    /// It has carried a response before.
    pub(super) reused: bool,
}

impl Upstream {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream, received: Bytes::new(), idle_since: Tick::default(), reused: false }
    }

    /// It waits for the next request from now on.
    pub(super) fn rest(mut self, now: Tick) -> Self {
        self.idle_since = now;
        self.reused = true;
        self
    }

    /// Whether the next request can be sent on it. `replayable`: it can be sent again if the engine turns out to
    /// have closed the connection.
    pub(super) fn is_usable(&self, now: Tick, replayable: bool) -> bool {
        (replayable || now.since(self.idle_since) < FRESH_AFTER) && self.is_fresh(now)
    }

    /// Whether the engine keeps it open for the next request, as far as is known here. Anything that can be read is
    /// its end, or an answer that nobody asked for.
    pub(super) fn is_fresh(&self, now: Tick) -> bool {
        let nothing = |error: io::Error| error.kind() == io::ErrorKind::WouldBlock;
        if !self.received.is_empty() || now.since(self.idle_since) >= IDLE_FOR {
            return false;
        }
        if now.since(self.idle_since) < PEEK_AFTER {
            // No system call unless the runtime has seen something to read.
            return self.stream.try_read(&mut [0]).is_err_and(nothing);
        }
        let peeked = rustix::net::recv(&self.stream, &mut [0], RecvFlags::PEEK | RecvFlags::DONTWAIT);
        peeked.is_err_and(|error| nothing(error.into()))
    }

    /// Appends what has arrived, up to `most` bytes. The number of new bytes; 0 when the engine closed its side.
    pub(super) fn poll_receive(&mut self, cx: &mut Context<'_>, most: usize) -> Poll<io::Result<usize>> {
        poll_receive(&mut self.stream, &mut self.received, cx, most)
    }
}
