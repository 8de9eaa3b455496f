//! The body of a request, of which a bounded part can be taken before it is sent.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::codec::Broken;
use super::wire::{Wire, WireBody};
use crate::caps::Room;

/// What remains of a request's body.
#[derive(Debug)]
pub(super) struct RequestBody {
    early: Early,
    /// Trailers that were met ahead.
    trailers: Option<Frame<Bytes>>,
    rest: Rest,
    ended: bool,
}

/// What was not taken yet.
#[derive(Debug)]
enum Rest {
    /// Nothing: the body is sent again.
    Nothing,
    /// It comes over HTTP/1.
    Wire(WireBody),
    /// It comes over HTTP/2.
    Stream(Incoming),
}

/// Why the rest of a body does not come.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError {
    /// The client's connection failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The client's stream of HTTP/2 failed.
    #[error(transparent)]
    Http2(#[from] hyper::Error),
    /// It is not framed as its head said.
    #[error("the client sent {0}")]
    Broken(#[from] Broken),
}

/// What was taken ahead. In one piece: a client that sends byte by byte would have each cost a hundred.
#[derive(Debug, Default)]
struct Early {
    /// The first piece as it came: often it is all of the body.
    first: Bytes,
    /// All pieces, once there were several.
    gathered: BytesMut,
    /// The room that they take of all that may be taken ahead.
    room: Option<Room>,
}

impl Early {
    fn bytes(&self) -> &[u8] {
        if self.gathered.is_empty() { &self.first } else { &self.gathered }
    }

    fn push(&mut self, data: Bytes) {
        if let Some(room) = &mut self.room {
            room.grow(data.len());
        }
        if self.gathered.is_empty() && self.first.is_empty() {
            self.first = data;
            return;
        }
        if self.gathered.is_empty() {
            self.gathered.extend_from_slice(&std::mem::take(&mut self.first));
        }
        self.gathered.extend_from_slice(&data);
    }

    fn take(&mut self) -> Option<Bytes> {
        self.room = None;
        let first = std::mem::take(&mut self.first);
        if !first.is_empty() {
            return Some(first);
        }
        Some(std::mem::take(&mut self.gathered).freeze()).filter(|data| !data.is_empty())
    }
}

impl RequestBody {
    /// That of a stream of HTTP/2.
    pub(super) fn of_stream(body: Incoming) -> Self {
        Self::new(Rest::Stream(body))
    }

    /// That of the request under way on a connection of HTTP/1.
    pub(super) fn of_wire(wire: Rc<Wire>) -> Self {
        Self::new(Rest::Wire(WireBody(wire)))
    }

    fn new(rest: Rest) -> Self {
        Self { early: Early::default(), trailers: None, rest, ended: false }
    }

    /// A body that was taken whole before.
    pub(super) fn replay(body: Bytes) -> Self {
        let early = Early { first: body, ..Early::default() };
        Self { early, trailers: None, rest: Rest::Nothing, ended: true }
    }

    /// The whole body, when it has no more than `most` bytes and no trailers. What was taken of a longer one stays
    /// here.
    pub(super) async fn whole(&mut self, most: usize) -> Result<Option<Bytes>, BodyError> {
        poll_fn(|cx| self.poll_ahead(cx, most + 1)).await?;
        let whole = self.ended && self.trailers.is_none() && self.early().len() <= most;
        Ok(whole.then(|| self.early.take().unwrap_or_default()))
    }

    /// What is taken ahead from now on takes this room until it is sent on.
    pub(super) fn take_room(&mut self, mut room: Room) {
        room.grow(self.early.bytes().len());
        self.early.room = Some(room);
    }

    /// What was taken ahead and not sent on.
    pub(super) fn early(&self) -> &[u8] {
        self.early.bytes()
    }

    /// Takes the next piece ahead. Ready with false at the end of the body.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, BodyError>> {
        if self.ended || self.trailers.is_some() {
            return Poll::Ready(Ok(false));
        }
        let Some(frame) = ready!(self.rest.poll_frame(cx)).transpose()? else {
            self.ended = true;
            return Poll::Ready(Ok(false));
        };
        match frame.into_data() {
            Ok(data) => self.early.push(data),
            Err(trailers) => self.trailers = Some(trailers),
        }
        Poll::Ready(Ok(true))
    }

    /// Takes what is there, up to about `most` bytes. Ready at the end of the body, or when that is enough.
    pub(super) fn poll_ahead(&mut self, cx: &mut Context<'_>, most: usize) -> Poll<Result<(), BodyError>> {
        while self.early().len() < most && ready!(self.poll_next(cx))? {}
        Poll::Ready(Ok(()))
    }
}

impl Rest {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self {
            Self::Nothing => Poll::Ready(None),
            Self::Wire(body) => Pin::new(body).poll_frame(cx),
            Self::Stream(body) => Pin::new(body).poll_frame(cx).map_err(BodyError::from),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Nothing => true,
            Self::Wire(body) => body.is_end_stream(),
            Self::Stream(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Nothing => SizeHint::with_exact(0),
            Self::Wire(body) => body.size_hint(),
            Self::Stream(body) => body.size_hint(),
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(data) = self.early.take() {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if let Some(trailers) = self.trailers.take() {
            self.ended = true;
            return Poll::Ready(Some(Ok(trailers)));
        }
        if self.ended { Poll::Ready(None) } else { self.rest.poll_frame(cx) }
    }

    fn is_end_stream(&self) -> bool {
        self.early().is_empty() && self.trailers.is_none() && (self.ended || self.rest.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let (rest, early) = (self.rest.size_hint(), self.early().len() as u64);
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + early);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + early);
        }
        hint
    }
}
