//! A client's connection from its first byte to its last.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::client::{Client, Switched, Turn};
use super::upstream::Target;
use super::{Config, handler, splice};
use crate::metrics::ProtocolRefusal;
use crate::request_log;
use crate::shared::Shared;

/// How often a connection looks whether it waits in vain. Coarse, so that requests need no timers of their own; and
/// together with the longest idle time of an engine's connection below the 5 s after which uvicorn closes it.
const SWEEP: Duration = Duration::from_secs(2);

/// Sweeps until a head must have arrived: 10 to 12 s.
const HEAD_SWEEPS: u16 = 6;

/// Sweeps without a byte until a body is given up: 58 to 60 s.
const BODY_SWEEPS: u16 = 30;

/// Sweeps until a client that takes nothing of its answer is given up: 58 to 60 s.
const BLOCKED_SWEEPS: u16 = 30;

/// Sweeps until an idle connection is closed: an hour.
const IDLE_SWEEPS: u16 = 1800;

/// How long a new connection may take to its first byte.
const FIRST_BYTE: Duration = Duration::from_secs(30);

/// A request's head, and what hyper buffers of its body.
const BUFFER: usize = 64 * 1024;

/// Answers up to this size are sent from one buffer.
const COPY_UP_TO: usize = 2048;

/// How much is read, and for how long, from a client that still sends when its connection is being closed. Closing
/// at once would reset it, and with that take away the answer it has not read yet.
const LINGER_BYTES: usize = 1 << 20;
const LINGER: Duration = Duration::from_secs(1);

/// Serves a connection that arrived at a guarded port.
pub(super) async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    target: Target,
    config: Arc<Config>,
    shared: Arc<Shared>,
) {
    match first_bytes(&stream).await {
        Ok(None) => {}
        Ok(Some(refusal)) => {
            request_log::protocol_refused(&shared, peer.ip(), refusal);
            return;
        }
        Err(_) => return,
    }
    let client = Rc::new(Client::new(shared, config, peer.ip().to_canonical(), target));
    drive(stream, client).await;
}

/// What a connection is refused for by its first bytes.
async fn first_bytes(stream: &TcpStream) -> io::Result<Option<ProtocolRefusal>> {
    let mut first = [0; 4];
    let Ok(peeked) = tokio::time::timeout(FIRST_BYTE, stream.peek(&mut first)).await else {
        return Ok(Some(ProtocolRefusal::HeadTimeout));
    };
    let first = &first[..peeked?];
    Ok(match first {
        [] => return Err(io::ErrorKind::UnexpectedEof.into()),
        // A TLS record of type handshake.
        [0x16, ..] => Some(ProtocolRefusal::Tls),
        b"PRI " => Some(ProtocolRefusal::Http2),
        // Methods are tokens, and so are the empty lines that some clients send before a request.
        [b'\r' | b'\n', ..] => None,
        [byte, ..] if byte.is_ascii_alphanumeric() => None,
        _ => Some(ProtocolRefusal::Malformed),
    })
}

async fn drive(stream: TcpStream, client: Rc<Client>) {
    let mut builder = http1::Builder::new();
    // Not `pipeline_flush`: with it hyper buffers a response without bound.
    builder.max_buf_size(BUFFER).header_read_timeout(None);
    let service = {
        let client = client.clone();
        service_fn(move |request| handler::handle(client.clone(), request))
    };
    let watched = Watched { stream, client: client.clone() };
    let mut connection = builder.serve_connection(TokioIo::new(watched), service);
    let mut sweep = pin!(tokio::time::sleep(SWEEP));
    let ended = poll_fn(|cx| {
        if let Poll::Ready(ended) = Pin::new(&mut connection).poll(cx) {
            return Poll::Ready(ended.map_err(|error| Ended::by(&error)));
        }
        while sweep.as_mut().poll(cx).is_ready() {
            client.drop_stale_upstream();
            if client.waits_in_vain() {
                return Poll::Ready(Err(Ended::InVain(client.turn.get())));
            }
            sweep.as_mut().reset(Instant::now() + SWEEP);
        }
        Poll::Pending
    })
    .await;
    let parts = connection.into_parts();
    let stream = parts.io.into_inner().stream;
    match ended {
        Ok(()) => match client.switched.take() {
            Some(Switched { upstream, progress }) => {
                splice::switched(stream, &parts.read_buf, upstream).await;
                drop(progress);
            }
            None => linger(stream).await,
        },
        Err(ended) => {
            ended.count(&client);
            linger(stream).await;
        }
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
        if error.is_parse_version_h2() {
            Self::Refused(ProtocolRefusal::Http2)
        } else if error.is_parse_too_large() {
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

impl Client {
    /// Called at each sweep.
    fn waits_in_vain(&self) -> bool {
        let sweeps = self.sweeps.get().saturating_add(1);
        self.sweeps.set(sweeps);
        sweeps
            >= match self.turn.get() {
                _ if self.blocked.get() => BLOCKED_SWEEPS,
                Turn::Idle => IDLE_SWEEPS,
                Turn::Head => HEAD_SWEEPS,
                Turn::Body => BODY_SWEEPS,
                // How long an engine may take is the breaker's to say, and a stream may be silent for minutes.
                Turn::Engine => return false,
            }
    }
}

/// Ends a connection so that what was sent arrives.
async fn linger(mut stream: TcpStream) {
    if stream.shutdown().await.is_err() {
        return;
    }
    // Not in the task itself, where it would take its room for as long as the connection lasts.
    let mut sink = vec![0; 4096];
    let mut left = LINGER_BYTES;
    let _ = tokio::time::timeout(LINGER, async {
        while let Ok(read) = stream.read(&mut sink).await
            && read > 0
            && left > read
        {
            left -= read;
        }
    })
    .await;
}

/// The pieces one after the other, when they fit.
fn join<'a>(pieces: &[io::IoSlice<'_>], small: &'a mut [u8; COPY_UP_TO]) -> Option<&'a [u8]> {
    let mut end = 0;
    for piece in pieces {
        small.get_mut(end..end + piece.len())?.copy_from_slice(piece);
        end += piece.len();
    }
    Some(&small[..end])
}

/// Tells the client's state what is read.
struct Watched {
    stream: TcpStream,
    client: Rc<Client>,
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        self.client.heard(&buffer.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, data);
        self.client.wrote(written.is_pending());
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // A head and a small body go as one buffer: copying them is cheaper than what the kernel does for several.
        let mut small = [0; COPY_UP_TO];
        let written = match join(pieces, &mut small) {
            Some(joined) => Pin::new(&mut self.stream).poll_write(cx, joined),
            None => Pin::new(&mut self.stream).poll_write_vectored(cx, pieces),
        };
        self.client.wrote(written.is_pending());
        written
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
