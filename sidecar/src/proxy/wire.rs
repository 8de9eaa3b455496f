//! A client's connection of HTTP/1, shared by its driver and the body of the request under way. Both run in one task.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use http_body::{Body, Frame, SizeHint};
use tokio::io::{AsyncWrite as _, ReadBuf};
use tokio::net::TcpStream;

use super::client::{Client, Turn};
use super::codec::{BadHead, BodyDecoder, Decoded, Framing, ReceivedHead, parse_request};
use super::outbox::Outbox;
use super::pause::Pause;
use super::receive::poll_receive;
use super::request_body::BodyError;

/// What is read at once: a body in larger pieces than what stands before one, since those are kept while the request is
/// judged.
const HEAD_READ: usize = 16 * 1024;
const BODY_READ: usize = 64 * 1024;

/// Leave to send a body.
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// The connection, and where in it the client is.
pub(super) struct Wire {
    client: Rc<Client>,
    stream: RefCell<TcpStream>,
    /// Was read and not used.
    received: RefCell<Bytes>,
    /// Of `received`, so much is known to hold no whole head.
    looked_at: Cell<usize>,
    /// Where the body of the request under way ends.
    body: RefCell<BodyDecoder>,
    /// Its client waits for leave to send it.
    expects_continue: Cell<bool>,
    pause: RefCell<Pause>,
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire").field("body", &self.body).finish_non_exhaustive()
    }
}

/// Why no request can be read any more.
#[derive(Debug)]
pub(super) enum NoRequest {
    /// The client has left.
    Gone,
    /// It sent something else.
    Bad(BadHead),
}

impl Wire {
    pub(super) fn new(stream: TcpStream, client: Rc<Client>) -> Self {
        Self {
            client,
            stream: RefCell::new(stream),
            received: RefCell::default(),
            looked_at: Cell::new(0),
            body: RefCell::new(BodyDecoder::Done),
            expects_continue: Cell::new(false),
            pause: RefCell::default(),
        }
    }

    /// The connection, and what was read of it and not used.
    pub(super) fn into_parts(self) -> (TcpStream, Bytes) {
        (self.stream.into_inner(), self.received.into_inner())
    }

    /// Reads the head of the next request; none when the client has no more. The body before it has to be read.
    pub(super) fn poll_request(&self, cx: &mut Context<'_>) -> Poll<Result<Option<ReceivedHead>, NoRequest>> {
        loop {
            let parsed = self.parse().map_err(NoRequest::Bad)?;
            if let Some(head) = parsed {
                self.expects_continue.set(head.expects_continue);
                *self.body.borrow_mut() = decoder(head.framing);
                return Poll::Ready(Ok(Some(head)));
            }
            match ready!(self.poll_receive(cx, HEAD_READ)) {
                Ok(0) if self.has_nothing() => return Poll::Ready(Ok(None)),
                Ok(0) | Err(_) => return Poll::Ready(Err(NoRequest::Gone)),
                Ok(_) => {}
            }
        }
    }

    /// An end of a head is looked for before the head is read anew: one that comes byte by byte would be read as often.
    fn parse(&self) -> Result<Option<ReceivedHead>, BadHead> {
        let mut received = self.received.borrow_mut();
        let largest = self.client.shared.caps.largest_head();
        let looked_at = self.looked_at.replace(received.len());
        if received.is_empty() || (looked_at > 0 && received.len() < largest && !ends(&received, looked_at)) {
            return Ok(None);
        }
        let head = parse_request(&mut received, largest)?;
        if head.is_some() {
            self.looked_at.set(0);
        }
        Ok(head)
    }

    fn has_nothing(&self) -> bool {
        self.received.borrow().is_empty()
    }

    /// Whether the next request has begun to arrive with this one.
    pub(super) fn has_begun_next(&self) -> bool {
        !self.has_nothing()
    }

    /// Whether the request was read to its end.
    pub(super) fn has_whole_request(&self) -> bool {
        self.body.borrow().is_done()
    }

    fn poll_receive(&self, cx: &mut Context<'_>, most: usize) -> Poll<io::Result<usize>> {
        while let Some(once) = self.client.is_to_wait() {
            ready!(self.pause.borrow_mut().poll(cx));
            if once {
                break;
            }
        }
        let mut received = self.received.borrow_mut();
        let count = ready!(poll_receive(&mut self.stream.borrow_mut(), &mut received, cx, most))?;
        self.client.heard(count);
        Poll::Ready(Ok(count))
    }

    /// Sends interim responses that wait.
    ///
    /// # Errors
    /// When the client has left.
    pub(super) fn poll_interim(&self, cx: &mut Context<'_>) -> io::Result<()> {
        let mut interim = self.client.interim.borrow_mut();
        while !interim.is_empty() {
            match Pin::new(&mut *self.stream.borrow_mut()).poll_write(cx, &interim)? {
                Poll::Ready(sent) => interim.advance(sent),
                Poll::Pending => break,
            }
        }
        Ok(())
    }

    /// Sends some of what waits.
    pub(super) fn poll_send(&self, cx: &mut Context<'_>, outbox: &mut Outbox) -> Poll<io::Result<()>> {
        let sent = outbox.poll_send(cx, &mut self.stream.borrow_mut());
        self.client.wrote(sent.is_pending());
        sent
    }

    /// An error when the client has left before it has its answer. What it sends ahead is not read yet.
    pub(super) fn poll_left(&self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.client.turn.get() != Turn::Engine {
            return Ok(());
        }
        // No system call unless the runtime has seen something to read.
        match self.stream.borrow().poll_peek(cx, &mut ReadBuf::new(&mut [0])) {
            Poll::Ready(Ok(0)) => Err(io::ErrorKind::ConnectionAborted.into()),
            Poll::Ready(Err(error)) => Err(error),
            Poll::Ready(Ok(_)) | Poll::Pending => Ok(()),
        }
    }
}

/// Whether there is an empty line in `received`, which was looked at up to `looked_at`.
fn ends(received: &[u8], looked_at: usize) -> bool {
    let new = &received[looked_at.saturating_sub(3)..];
    new.windows(2).any(|two| two == b"\n\n") || new.windows(3).any(|three| three == b"\n\r\n")
}

fn decoder(framing: Option<Framing>) -> BodyDecoder {
    match framing {
        Some(Framing::Length(length)) => BodyDecoder::length(length),
        Some(Framing::Chunked) => BodyDecoder::chunked(),
        Some(Framing::None) | None => BodyDecoder::Done,
    }
}

/// The body of the request under way, as it arrives.
#[derive(Debug)]
pub(super) struct WireBody(pub(super) Rc<Wire>);

impl Body for WireBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let wire = &*self.0;
        loop {
            let decoded = wire.body.borrow_mut().decode(&mut wire.received.borrow_mut())?;
            match decoded {
                Decoded::Data(data) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Decoded::Trailers(trailers) => return Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
                Decoded::End => return Poll::Ready(None),
                Decoded::NeedMore => {}
            }
            if wire.expects_continue.replace(false) {
                wire.client.interim.borrow_mut().extend_from_slice(CONTINUE);
            }
            if ready!(wire.poll_receive(cx, BODY_READ))? == 0 {
                wire.body.borrow_mut().closed()?;
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.has_whole_request()
    }

    fn size_hint(&self) -> SizeHint {
        match *self.0.body.borrow() {
            BodyDecoder::Done => SizeHint::with_exact(0),
            BodyDecoder::Length(length) => SizeHint::with_exact(length),
            BodyDecoder::Chunked { .. } | BodyDecoder::UntilClose => SizeHint::new(),
        }
    }
}
