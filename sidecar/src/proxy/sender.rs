//! The way of a request to the engine: its head, then its body as it arrives from the client.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http_body::{Body as _, Frame};
use tokio::net::TcpStream;

use super::codec::Framing;
use super::outbox::Outbox;
use super::request_body::{BodyError, RequestBody};

/// Why the rest of a request cannot be sent.
#[derive(Debug)]
pub(super) enum Unsent {
    /// The client went away, or its body broke off.
    Client(BodyError),
    /// The body is not as long as its head said.
    Length,
    /// The engine takes no more.
    Engine,
}

/// Sends one request.
#[derive(Debug)]
pub(super) struct Sender {
    outbox: Outbox,
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
            outbox: Outbox::new(head),
            body: body.filter(|_| !matches!(framing, Framing::None | Framing::Length(0))),
            chunked: framing == Framing::Chunked,
            left: if let Framing::Length(length) = framing { length } else { 0 },
            heard_client: false,
            waits_for_client: false,
        }
    }

    /// Whether everything was sent.
    pub(super) fn is_done(&self) -> bool {
        self.body.is_none() && self.outbox.is_empty()
    }

    /// Whether the client sent anything since this was asked last.
    pub(super) fn heard_client(&mut self) -> bool {
        std::mem::take(&mut self.heard_client)
    }

    /// Whether everything that the client has sent so far was sent on, and more is to come.
    pub(super) fn waits_for_client(&self) -> bool {
        self.waits_for_client && self.outbox.is_empty()
    }

    /// Sends what can be sent. Ready when that is all.
    pub(super) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut TcpStream,
    ) -> Poll<Result<(), Unsent>> {
        loop {
            let more_to_take = self.poll_take(cx)?;
            if self.outbox.is_empty() {
                return if more_to_take { Poll::Pending } else { Poll::Ready(Ok(())) };
            }
            ready!(self.outbox.poll_send(cx, stream)).map_err(|_| Unsent::Engine)?;
        }
    }

    /// Takes from the client what is there. Whether more is to come.
    fn poll_take(&mut self, cx: &mut Context<'_>) -> Result<bool, Unsent> {
        self.waits_for_client = false;
        while !self.outbox.is_full() {
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
                if !self.chunked {
                    self.left = self.left.checked_sub(data.len() as u64).ok_or(Unsent::Length)?;
                }
                self.outbox.push(data, self.chunked);
                // A body of known length says so with its last piece: the head and all of it go in one send.
                if is_last { self.finish(None) } else { Ok(()) }
            }
            Err(frame) => self.finish(frame.into_trailers().ok().as_ref()),
        }
    }

    /// The body is over. What its length promised has to have come: the engine would take the next request for the rest
    /// of this one.
    fn finish(&mut self, trailers: Option<&http::HeaderMap>) -> Result<(), Unsent> {
        if self.body.take().is_some() && self.chunked {
            self.outbox.end_chunks(trailers);
        }
        if self.left == 0 { Ok(()) } else { Err(Unsent::Length) }
    }
}
