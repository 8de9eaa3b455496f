//! The way of a request to the engine: its head, then its body as it arrives from the client.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http_body::{Body as _, Frame};
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;

use super::codec::{Framing, encode_chunk_size, encode_trailers};
use super::request_body::RequestBody;

/// Pieces of a body up to this size are copied behind the head or each other, so that one send takes them all.
const COPY_UP_TO: usize = 4 * 1024;

/// No more of the body is taken from the client while so much waits to be sent.
const BUFFERED: usize = 16 * 1024;

/// Why the rest of a request cannot be sent.
#[derive(Debug)]
pub(super) enum Unsent {
    /// The client went away, or its body broke off.
    Client(hyper::Error),
    /// The body is not as long as its head said.
    Length,
    /// The engine takes no more.
    Engine,
}

/// Sends one request.
#[derive(Debug)]
pub(super) struct Sender {
    /// To be sent first.
    small: BytesMut,
    /// To be sent after it, uncopied.
    large: Bytes,
    /// To be sent after that: the end of a chunk, and of a chunked body.
    tail: BytesMut,
    /// What remains of the body; none when it was taken whole.
    body: Option<RequestBody>,
    chunked: bool,
    /// Of a body with a length, what was not taken yet.
    left: u64,
    heard_client: bool,
    waits_for_client: bool,
}

impl Sender {
    /// Begins with `head`. A `body` of no bytes is not asked for.
    pub(super) fn new(head: BytesMut, framing: Framing, body: Option<RequestBody>) -> Self {
        Self {
            small: head,
            large: Bytes::new(),
            tail: BytesMut::new(),
            body: body.filter(|_| !matches!(framing, Framing::None | Framing::Length(0))),
            chunked: framing == Framing::Chunked,
            left: if let Framing::Length(length) = framing { length } else { 0 },
            heard_client: false,
            waits_for_client: false,
        }
    }

    /// Whether everything was sent.
    pub(super) fn is_done(&self) -> bool {
        self.body.is_none() && self.is_flushed()
    }

    fn is_flushed(&self) -> bool {
        self.small.is_empty() && self.large.is_empty() && self.tail.is_empty()
    }

    /// Whether the client sent anything since this was asked last.
    pub(super) fn heard_client(&mut self) -> bool {
        std::mem::take(&mut self.heard_client)
    }

    /// Whether everything that the client has sent so far was sent on, and more is to come.
    pub(super) fn waits_for_client(&self) -> bool {
        self.waits_for_client && self.is_flushed()
    }

    /// Sends what can be sent. Ready when that is all.
    pub(super) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut TcpStream,
    ) -> Poll<Result<(), Unsent>> {
        loop {
            let more_to_take = self.poll_take(cx)?;
            if self.is_flushed() {
                return if more_to_take { Poll::Pending } else { Poll::Ready(Ok(())) };
            }
            ready!(self.poll_write(cx, stream)).map_err(|_| Unsent::Engine)?;
        }
    }

    /// Takes from the client what is there. Whether more is to come.
    fn poll_take(&mut self, cx: &mut Context<'_>) -> Result<bool, Unsent> {
        self.waits_for_client = false;
        while self.small.len() < BUFFERED && self.large.is_empty() && self.tail.is_empty() {
            let Some(body) = &mut self.body else { return Ok(false) };
            let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(cx) else {
                self.waits_for_client = true;
                return Ok(true);
            };
            self.heard_client = true;
            let is_last = body.is_end_stream();
            match frame {
                Some(frame) => self.push(frame.map_err(Unsent::Client)?, is_last)?,
                None => self.finish(None)?,
            }
        }
        Ok(self.body.is_some())
    }

    fn push(&mut self, frame: Frame<Bytes>, is_last: bool) -> Result<(), Unsent> {
        match frame.into_data() {
            Ok(data) => {
                self.push_data(data)?;
                // A body of known length says so with its last piece: the head and all of it go in one send.
                if is_last { self.finish(None) } else { Ok(()) }
            }
            Err(frame) => self.finish(frame.into_trailers().ok().as_ref()),
        }
    }

    fn push_data(&mut self, data: Bytes) -> Result<(), Unsent> {
        // An empty chunk would end the body.
        if data.is_empty() {
            return Ok(());
        }
        if self.chunked {
            encode_chunk_size(&mut self.small, data.len());
        } else {
            self.left = self.left.checked_sub(data.len() as u64).ok_or(Unsent::Length)?;
        }
        if data.len() <= COPY_UP_TO {
            self.small.put_slice(&data);
        } else {
            self.large = data;
        }
        if self.chunked {
            self.behind().put_slice(b"\r\n");
        }
        Ok(())
    }

    /// The body is over. What its length promised has to have come: the engine would take the next request for the rest
    /// of this one.
    fn finish(&mut self, trailers: Option<&http::HeaderMap>) -> Result<(), Unsent> {
        if self.body.take().is_some() && self.chunked {
            match trailers {
                Some(trailers) => encode_trailers(self.behind(), trailers),
                None => self.behind().put_slice(b"0\r\n\r\n"),
            }
        }
        if self.left == 0 { Ok(()) } else { Err(Unsent::Length) }
    }

    /// What is sent behind everything else.
    fn behind(&mut self) -> &mut BytesMut {
        if self.large.is_empty() { &mut self.small } else { &mut self.tail }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, stream: &mut TcpStream) -> Poll<io::Result<()>> {
        let stream = Pin::new(stream);
        let sent = if self.large.is_empty() {
            ready!(stream.poll_write(cx, if self.small.is_empty() { &self.tail } else { &self.small }))?
        } else {
            let pieces = [&self.small[..], &self.large[..], &self.tail[..]].map(IoSlice::new);
            ready!(stream.poll_write_vectored(cx, &pieces))?
        };
        if sent == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        let small = sent.min(self.small.len());
        let large = (sent - small).min(self.large.len());
        self.small.advance(small);
        self.large.advance(large);
        self.tail.advance(sent - small - large);
        Poll::Ready(Ok(()))
    }
}
