//! A client's HTTP/2 connection. Its limits are Envoy's for the edge of a network, or tighter.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::Request;
use http::header::{self, HeaderMap};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::client::{Client, HEAD_SWEEPS, HURRIED_SWEEPS, IDLE_SWEEPS, SWEEP};
use super::codec::Framing;
use super::exchange::Failure;
use super::pause::Pause;
use super::pool::Pool;
use super::request_body::RequestBody;
use super::streams::Streams;
use super::upstream::Target;
use super::{Config, handler};
use crate::metrics::ProtocolRefusal;
use crate::pressure::Level;
use crate::request_log;
use crate::shared::Shared;

/// What a client may send on one stream, and on all of them, before it was taken.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// What is kept for a client that does not take it.
const SEND_BUFFER: usize = 64 * 1024;

/// Streams that a client has reset before they were served, and streams that were reset for a mistake of the client:
/// more in a row end the connection (CVE-2023-44487, CVE-2025-8671).
const RESETS: usize = 20;
const MISTAKES: usize = 100;

/// A connection that is silent for so long is asked whether it is still there, and has so long to say so.
const PING_AFTER: Duration = Duration::from_secs(30);
const PONG_WITHIN: Duration = Duration::from_secs(15);

/// The connection preface.
const PREFACE_BYTES: usize = 24;

/// Where a connection comes from and where its requests go.
pub(super) struct Origin {
    pub(super) shared: Arc<Shared>,
    pub(super) config: Arc<Config>,
    pub(super) address: IpAddr,
    pub(super) target: Target,
}

/// Serves until the client closes, breaks the rules, or has nothing to say for too long.
pub(super) async fn drive(stream: TcpStream, origin: Origin) {
    let (streams, pool) = (Streams::default(), Rc::new(Pool::default()));
    let received = Rc::new(Cell::new(0));
    let (shared, address) = (origin.shared.clone(), origin.address);
    let counted =
        Counted { stream, received: received.clone(), shared: shared.clone(), pause: Pause::default() };
    let io = TokioIo::new(counted);
    let service = {
        let (streams, pool) = (streams.clone(), pool.clone());
        service_fn(move |request: Request<Incoming>| {
            let client = Rc::new(Client::of_stream(&origin, pool.clone()));
            streams.arrive(client.clone());
            let (parts, body) = request.into_parts();
            let framing = framing(&parts.headers, &body);
            async move {
                let body = RequestBody::of_stream(body);
                let mut answer = handler::handle(client.clone(), parts, Some(framing), body).await?;
                answer.body_mut().send_to(client);
                Ok::<_, Failure>(answer)
            }
        })
    };
    let mut connection = pin!(builder(&streams, &shared).serve_connection(io, service));
    let mut watch = Watch { received, idle: 0, sweeps: 0, leaving: false };
    let mut sweep = pin!(tokio::time::sleep(SWEEP));
    let ended = poll_fn(|cx| {
        if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
            return Poll::Ready(ended.map_err(|error| refusal(&error)));
        }
        let mut leave = shared.drain.is_draining();
        while sweep.as_mut().poll(cx).is_ready() {
            pool.drop_stale(shared.clock.now());
            streams.sweep();
            match watch.look(&streams, shared.pressure.level()) {
                Look::GoOn => {}
                Look::Idle => leave = true,
                Look::NoPreface => return Poll::Ready(Err(Some(ProtocolRefusal::HeadTimeout))),
            }
            sweep.as_mut().reset(Instant::now() + SWEEP);
        }
        if leave && !std::mem::replace(&mut watch.leaving, true) {
            connection.as_mut().graceful_shutdown();
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    })
    .await;
    streams.end();
    if let Err(Some(refusal)) = ended {
        request_log::protocol_refused(&shared, address, refusal);
    }
}

/// A stream's framing is HTTP/2's own, and there is one way to read it.
fn framing(headers: &HeaderMap, body: &Incoming) -> Framing {
    match body.size_hint().exact() {
        Some(0) if headers.contains_key(header::CONTENT_LENGTH) => Framing::Length(0),
        Some(0) => Framing::None,
        Some(length) => Framing::Length(length),
        None => Framing::Chunked,
    }
}

fn builder(streams: &Streams, shared: &Shared) -> http2::Builder<Streams> {
    let mut builder = http2::Builder::new(streams.clone());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(shared.caps.streams)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(shared.caps.header_bytes)
        .max_send_buf_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(RESETS)
        .max_local_error_reset_streams(MISTAKES)
        .keep_alive_interval(PING_AFTER)
        .keep_alive_timeout(PONG_WITHIN);
    builder
}

/// What a connection that ended badly is counted as: a breach of the rules, if it was the client's.
fn refusal(error: &hyper::Error) -> Option<ProtocolRefusal> {
    let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    // As h2 words what this side found wrong. That the other side ended it, or the network, is no breach.
    cause.starts_with("connection error detected").then_some(ProtocolRefusal::Http2)
}

/// Whether a connection is still of use.
struct Watch {
    received: Rc<Cell<usize>>,
    sweeps: u16,
    /// Sweeps without a stream.
    idle: u16,
    leaving: bool,
}

enum Look {
    GoOn,
    Idle,
    NoPreface,
}

impl Watch {
    fn look(&mut self, streams: &Streams, level: Level) -> Look {
        self.sweeps = self.sweeps.saturating_add(1);
        self.idle = if streams.is_empty() { self.idle.saturating_add(1) } else { 0 };
        if self.sweeps >= HEAD_SWEEPS && self.received.get() < PREFACE_BYTES {
            Look::NoPreface
        } else if self.idle >= if level >= Level::Tight { HURRIED_SWEEPS } else { IDLE_SWEEPS } {
            Look::Idle
        } else {
            Look::GoOn
        }
    }
}

/// Counts what is read.
struct Counted {
    stream: TcpStream,
    received: Rc<Cell<usize>>,
    shared: Arc<Shared>,
    pause: Pause,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.shared.pressure.level() == Level::Full {
            ready!(self.pause.poll(cx));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        let new = buffer.filled().len() - before;
        self.shared.pressure.moved(new);
        self.received.set(self.received.get().saturating_add(new));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
