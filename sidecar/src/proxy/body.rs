//! Bodies of answers, on their way to the client.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::client::Client;
use super::exchange::{Exchange, Failure, Piece};
use super::progress::Progress;

/// The body of an answer.
pub(super) enum AnswerBody {
    /// None.
    Empty,
    /// The engine's, as it arrives.
    Engine(Box<EngineBody>),
    /// A short one of the proxy itself, until it was taken.
    Own(Option<Bytes>),
}

/// A response of the engine under way.
pub(super) struct EngineBody {
    client: Rc<Client>,
    /// Taken when the response is whole.
    live: Option<Live>,
    /// To be told with the next poll.
    failure: Option<Failure>,
}

#[derive(Debug)]
struct Live {
    exchange: Box<Exchange>,
    progress: Progress,
}

impl EngineBody {
    /// The body of the response of `exchange`, whose head was received. Empty when there is none.
    pub(super) fn answer(client: Rc<Client>, exchange: Box<Exchange>, progress: Progress) -> AnswerBody {
        let mut body = Self { client, live: Some(Live { exchange, progress }), failure: None };
        if body.live.as_ref().is_some_and(|live| live.exchange.is_done()) {
            body.finish();
            return AnswerBody::Empty;
        }
        AnswerBody::Engine(Box::new(body))
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        if let Some(failure) = self.failure.take() {
            return Poll::Ready(Some(Err(failure)));
        }
        let Some(live) = &mut self.live else { return Poll::Ready(None) };
        let piece = match ready!(live.exchange.poll_body(cx)) {
            Ok(piece) => piece,
            Err(failure) => {
                self.live = None;
                self.failure = Some(failure);
                // hyper throws away what it has not sent yet when a body fails, and sends it when a body pauses.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        };
        let frame = match piece {
            Piece::Data(data) => {
                live.progress.received(&data);
                Some(Frame::data(data))
            }
            Piece::Trailers(trailers) => Some(Frame::trailers(trailers)),
            Piece::End => None,
        };
        if live.exchange.is_done() {
            self.finish();
        }
        Poll::Ready(frame.map(Ok))
    }

    /// The response is whole: the engine's connection can take the next request.
    fn finish(&mut self) {
        let Some(Live { exchange, progress }) = self.live.take() else { return };
        let now = progress.finish();
        let client = &self.client;
        if exchange.is_sent() {
            client.request_over();
        }
        if let Some(upstream) = exchange.into_reusable() {
            client.idle.set(Some(upstream.rest(now)));
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Engine(body) => body.poll_frame(cx),
            Self::Own(data) => Poll::Ready(data.take().map(|data| Ok(Frame::data(data)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Engine(body) => body.live.is_none() && body.failure.is_none(),
            Self::Own(data) => data.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        let length = match self {
            Self::Empty => Some(0),
            Self::Engine(body) => body.live.as_ref().and_then(|live| live.exchange.length()),
            Self::Own(data) => Some(data.as_ref().map_or(0, |data| data.len() as u64)),
        };
        length.map_or_else(SizeHint::new, SizeHint::with_exact)
    }
}
