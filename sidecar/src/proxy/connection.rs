//! A client's connection from its first byte to its last, when it speaks HTTP/1.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};

use super::client::{Client, SWEEP, Switched, Turn};
use super::detect::{Spoken, detect};
use super::http2::{self, Origin};
use super::pause::Pause;
use super::{handler, splice};
use crate::clock::Moment;
use crate::metrics::ProtocolRefusal;
use crate::pressure::Level;
use crate::request_log;

/// Answers up to this size are sent from one buffer.
const COPY_UP_TO: usize = 2048;

/// How much is read, and for how long, from a client that still sends when its connection is being closed. Closing
/// at once would reset it, and with that take away the answer it has not read yet.
const LINGER_BYTES: usize = 1 << 20;
const LINGER: Duration = Duration::from_secs(10);
/// The same while memory is scarce.
const HURRIED_LINGER: Duration = Duration::from_secs(1);

/// How often a connection is looked at while it has buffers that it may not need any more: a part of a sweep.
const LOOK: Duration = Duration::from_millis(500);
const LOOKS: u32 = (SWEEP.as_millis() / LOOK.as_millis()) as u32;

thread_local! {
    /// Where a head and a small body are put together: one room for all connections, which stays in the cache.
    static JOINED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Serves a connection that arrived at a guarded port.
pub(super) async fn serve(stream: TcpStream, origin: Origin) {
    match Box::pin(detect(&stream)).await {
        Ok(Ok(Spoken::Http1)) => drive(stream, Rc::new(Client::of_connection(&origin))).await,
        Ok(Ok(Spoken::Http2)) => Box::pin(http2::drive(stream, origin)).await,
        Ok(Err(refusal)) => request_log::protocol_refused(&origin.shared, origin.address, refusal),
        Err(_) => {}
    }
}

async fn drive(stream: TcpStream, client: Rc<Client>) {
    let mut watched =
        Watched { stream, client: client.clone(), pause: Pause::default(), ahead: Bytes::new() };
    let mut looks = Looks::begin();
    let ended = loop {
        // With room of its own, which is given back with hyper's buffers when the client sends nothing for a while.
        let (left, ended) = Box::pin(spell(watched, &client, &mut looks)).await;
        watched = left;
        match ended {
            Some(ended) => break ended,
            None => {
                if let Err(ended) = rest(&watched.stream, &client, &mut looks).await {
                    break Err(ended);
                }
            }
        }
    };
    let Watched { stream, ahead, .. } = watched;
    match ended {
        Ok(()) => match client.switched.take() {
            Some(Switched { upstream, progress }) => {
                Box::pin(splice::switched(stream, &ahead, upstream)).await;
                drop(progress);
            }
            None => Box::pin(linger(stream, &client)).await,
        },
        Err(ended) => {
            ended.count(&client);
            Box::pin(linger(stream, &client)).await;
        }
    }
}

/// Serves requests until the connection ends, or until none has come for a while: then there is no end to tell. What was
/// read and not used is left in front of what is read next.
async fn spell(
    watched: Watched,
    client: &Rc<Client>,
    looks: &mut Looks,
) -> (Watched, Option<Result<(), Ended>>) {
    let mut builder = http1::Builder::new();
    // Not `pipeline_flush`: with it hyper buffers a response without bound. With `half_close` it does not read while
    // the engine has its turn, for which it would hold a second buffer: `Watched` sees whether the client has left.
    builder.max_buf_size(client.shared.caps.buffer()).header_read_timeout(None).half_close(true);
    let service = {
        let client = client.clone();
        // hyper keeps the room of a service's future for as long as the connection lasts: that of a pointer.
        service_fn(move |request| Box::pin(handler::handle(client.clone(), request)))
    };
    let mut connection = builder.serve_connection(TokioIo::new(watched), service);
    let ended = poll_fn(|cx| {
        let _moment = Moment::begin();
        if let Poll::Ready(ended) = Pin::new(&mut connection).poll(cx) {
            return Poll::Ready(Some(ended.map_err(|error| Ended::by(&error))));
        }
        while looks.poll(cx, LOOK).is_ready() {
            if let Err(ended) = looks.sweep_if_due(client, 1) {
                return Poll::Ready(Some(Err(ended)));
            }
            if client.is_at_rest() {
                return Poll::Ready(None);
            }
        }
        Poll::Pending
    })
    .await;
    let parts = connection.into_parts();
    let mut watched = parts.io.into_inner();
    watched.ahead = parts.read_buf;
    (watched, ended)
}

/// Waits until the client sends something, or leaves. An error when that takes too long.
async fn rest(stream: &TcpStream, client: &Client, looks: &mut Looks) -> Result<(), Ended> {
    poll_fn(|cx| {
        if stream.poll_read_ready(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        while looks.poll(cx, SWEEP).is_ready() {
            if let Err(ended) = looks.sweep_if_due(client, LOOKS) {
                return Poll::Ready(Err(ended));
            }
        }
        Poll::Pending
    })
    .await
}

/// The looks at a connection that come by time.
struct Looks {
    timer: Pin<Box<Sleep>>,
    since_sweep: u32,
}

impl Looks {
    fn begin() -> Self {
        Self { timer: Box::pin(sleep(LOOK)), since_sweep: 0 }
    }

    /// Ready when it is time for one; the next is due `next` later.
    fn poll(&mut self, cx: &mut Context<'_>, next: Duration) -> Poll<()> {
        ready!(self.timer.as_mut().poll(cx));
        self.timer.as_mut().reset(Instant::now() + next);
        Poll::Ready(())
    }

    /// Sweeps, if with so many looks more it is time to. An error when the connection has waited too long.
    fn sweep_if_due(&mut self, client: &Client, looks: u32) -> Result<(), Ended> {
        self.since_sweep += looks;
        if self.since_sweep < LOOKS {
            return Ok(());
        }
        self.since_sweep = 0;
        client.pool.drop_stale(client.shared.clock.now());
        if client.waits_in_vain() { Err(Ended::InVain(client.turn.get())) } else { Ok(()) }
    }
}

/// Why a connection ended badly.
enum Ended {
    InVain(Turn),
    Refused(ProtocolRefusal),
    Broken,
}

impl Ended {
    fn by(error: &hyper::Error) -> Self {
        if error.is_parse_too_large() {
            Self::Refused(ProtocolRefusal::HeadTooLarge)
        } else if error.is_parse() {
            Self::Refused(ProtocolRefusal::Malformed)
        } else {
            Self::Broken
        }
    }

    fn count(&self, client: &Client) {
        let reason = match self {
            Self::Refused(reason) => *reason,
            Self::InVain(Turn::Head) => ProtocolRefusal::HeadTimeout,
            Self::InVain(_) | Self::Broken => return,
        };
        request_log::protocol_refused(&client.shared, client.address, reason);
    }
}

/// Ends a connection so that what was sent arrives.
async fn linger(mut stream: TcpStream, client: &Client) {
    if stream.shutdown().await.is_err() {
        return;
    }
    let at_most = if client.shared.pressure.level() == Level::Calm { LINGER } else { HURRIED_LINGER };
    // Not in the task itself, where it would take its room for as long as the connection lasts.
    let mut sink = vec![0; 4096];
    let mut left = LINGER_BYTES;
    let _ = tokio::time::timeout(at_most, async {
        while let Ok(read) = stream.read(&mut sink).await
            && read > 0
            && left > read
        {
            left -= read;
        }
    })
    .await;
}

/// The pieces one after the other, when they are short.
fn join<'a>(pieces: &[io::IoSlice<'_>], joined: &'a mut Vec<u8>) -> Option<&'a [u8]> {
    if pieces.iter().map(|piece| piece.len()).sum::<usize>() > COPY_UP_TO {
        return None;
    }
    joined.clear();
    for piece in pieces {
        joined.extend_from_slice(piece);
    }
    Some(joined)
}

/// Tells the client's state what is read.
struct Watched {
    stream: TcpStream,
    client: Rc<Client>,
    pause: Pause,
    /// Was read before and not used: it comes first.
    ahead: Bytes,
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.ahead.is_empty() {
            let taken = self.ahead.len().min(buffer.remaining());
            buffer.put_slice(&self.ahead.split_to(taken));
            return Poll::Ready(Ok(()));
        }
        while let Some(once) = self.client.is_to_wait() {
            ready!(self.pause.poll(cx));
            if once {
                break;
            }
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        self.client.heard(&buffer.filled()[before..]);
        if self.client.watch.borrow().is_broken() {
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        Poll::Ready(Ok(()))
    }
}

impl Watched {
    /// An error when the client has left before it has its answer. What it sends ahead is not read yet.
    fn poll_left(&self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.client.turn.get() != Turn::Engine {
            return Ok(());
        }
        // No system call unless the runtime has seen something to read.
        match self.stream.poll_peek(cx, &mut ReadBuf::new(&mut [0])) {
            Poll::Ready(Ok(0)) => Err(io::ErrorKind::ConnectionAborted.into()),
            Poll::Ready(Err(error)) => Err(error),
            Poll::Ready(Ok(_)) | Poll::Pending => Ok(()),
        }
    }

    /// Of what hyper sends.
    fn wrote(&self, cx: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.client.wrote(written.is_pending());
        if written.is_pending() {
            self.poll_left(cx)?;
        }
        written
    }

    /// Interim responses go before what hyper wants to send.
    fn poll_interim(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut interim = self.client.interim.borrow_mut();
        while !interim.is_empty() {
            let sent = ready!(Pin::new(&mut self.stream).poll_write(cx, &interim))?;
            interim.advance(sent);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.client.flushed(false);
        ready!(self.poll_interim(cx))?;
        let written = Pin::new(&mut self.stream).poll_write(cx, data);
        self.wrote(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.client.flushed(false);
        ready!(self.poll_interim(cx))?;
        // A head and a small body go as one buffer: copying them is cheaper than what the kernel does for several.
        let written = JOINED.with_borrow_mut(|joined| match join(pieces, joined) {
            Some(joined) => Pin::new(&mut self.stream).poll_write(cx, joined),
            None => Pin::new(&mut self.stream).poll_write_vectored(cx, pieces),
        });
        self.wrote(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// hyper calls it whenever it has nothing left to send, and thus while the engine has its turn.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_interim(cx))?;
        self.client.flushed(true);
        self.poll_left(cx)?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
