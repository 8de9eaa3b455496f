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

#[cfg(test)]
mod tests {
    use super::super::client::SWEEP;
    use super::*;

    /// When uvicorn closes an idle connection, which is the soonest of all engines.
    const KEEP_ALIVE: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn an_idle_connection_is_given_up_before_the_engine_s_keep_alive_is_over() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let _engine = listener.accept().await.unwrap();
        let rested = Tick::from_nanos(1_000_000_000);
        let upstream = Upstream::new(stream).rest(rested);
        let after = |idle: Duration| Tick::from_nanos(rested.as_nanos() + idle.as_nanos() as u64);
        assert!(upstream.is_fresh(after(IDLE_FOR.checked_sub(Duration::from_millis(1)).unwrap())));
        assert!(!upstream.is_fresh(after(IDLE_FOR)));
        assert!(upstream.is_usable(after(Duration::from_millis(999)), false));
        assert!(!upstream.is_usable(after(FRESH_AFTER), false), "what must not be sent twice");
        assert!(upstream.is_usable(after(FRESH_AFTER), true));
        // What is not fresh any more is closed at the next look.
        assert!(IDLE_FOR + SWEEP < KEEP_ALIVE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_does_not_stand_is_given_up_when_its_time_is_over() {
        // Its queue of connections is full: whoever comes next waits. Only the clock of this test goes on meanwhile.
        let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        full.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        full.listen(0).unwrap();
        let address = full.local_addr().unwrap().as_socket().unwrap();
        let soon = Duration::from_millis(200);
        let _waiting: Vec<_> = (0..4).map(|_| std::net::TcpStream::connect_timeout(&address, soon)).collect();
        for (limit, expected) in [(Some(soon), soon), (None, CONNECT_TIMEOUT)] {
            let began = tokio::time::Instant::now();
            let error = Target::remote(address).connect(limit).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
            let took = began.elapsed();
            assert!((expected..expected + Duration::from_millis(2)).contains(&took), "{took:?}");
        }
    }
}
