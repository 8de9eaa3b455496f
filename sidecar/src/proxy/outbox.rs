//! Bytes that wait to be sent over a connection.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::HeaderMap;
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;

use super::codec::{encode_chunk_size, encode_trailers};

/// Pieces of a body up to this size are copied behind the head or each other, so that one send takes them all.
const COPY_UP_TO: usize = 4 * 1024;

/// No more of a body is taken while so much waits to be sent.
const BUFFERED: usize = 16 * 1024;

/// A message on its way: its head, and as much of its body as was taken.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// To be sent first.
    small: BytesMut,
    /// To be sent after it, uncopied.
    large: Bytes,
    /// To be sent after that: the end of a chunk, and of a chunked body.
    tail: BytesMut,
}

impl Outbox {
    /// Begins with `head`.
    pub(super) fn new(head: BytesMut) -> Self {
        Self { small: head, ..Self::default() }
    }

    /// Whether everything was sent.
    pub(super) fn is_empty(&self) -> bool {
        self.small.is_empty() && self.large.is_empty() && self.tail.is_empty()
    }

    /// Whether more of a body has to wait until some of this was sent.
    pub(super) fn is_full(&self) -> bool {
        self.small.len() >= BUFFERED || !self.large.is_empty() || !self.tail.is_empty()
    }

    /// Takes a piece of a body. Not to be called while it is full.
    pub(super) fn push(&mut self, data: Bytes, chunked: bool) {
        // An empty chunk would end the body.
        if data.is_empty() {
            return;
        }
        if chunked {
            encode_chunk_size(&mut self.small, data.len());
        }
        if data.len() <= COPY_UP_TO {
            self.small.put_slice(&data);
        } else {
            self.large = data;
        }
        if chunked {
            self.behind().put_slice(b"\r\n");
        }
    }

    /// A chunked body is over.
    pub(super) fn end_chunks(&mut self, trailers: Option<&HeaderMap>) {
        match trailers {
            Some(trailers) => encode_trailers(self.behind(), trailers),
            None => self.behind().put_slice(b"0\r\n\r\n"),
        }
    }

    /// What is sent behind everything else.
    fn behind(&mut self) -> &mut BytesMut {
        if self.large.is_empty() { &mut self.small } else { &mut self.tail }
    }

    /// Sends as much as goes at once. Not to be called while it is empty.
    pub(super) fn poll_send(&mut self, cx: &mut Context<'_>, stream: &mut TcpStream) -> Poll<io::Result<()>> {
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
