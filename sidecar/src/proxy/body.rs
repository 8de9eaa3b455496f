//! Bodies of answers, on their way to the client.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::client::Client;
use super::exchange::{Exchange, Failure, Piece};
use super::patience::{Late, Watch};
use super::pause::Pause;
use super::progress::{Passes, Progress};
use super::relay::RelayBody;
use crate::request_log;

/// The body of an answer.
pub(super) struct AnswerBody {
    kind: Kind,
    /// The stream that it goes to. A connection of HTTP/1 sees by itself whether its client takes what is written.
    stream: Option<Rc<Client>>,
}

enum Kind {
    /// None.
    Empty,
    /// The engine's, as it arrives.
    Engine(Box<EngineBody>),
    /// The engine's, over HTTP/2.
    Relay(Box<RelayBody>),
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
    pause: Pause,
}

#[derive(Debug)]
struct Live {
    exchange: Box<Exchange>,
    progress: Box<Progress>,
    watch: Option<Box<Watch>>,
}

impl EngineBody {
    /// The body of the response of `exchange`, whose head was received. Empty when there is none.
    pub(super) fn answer(
        client: Rc<Client>,
        exchange: Box<Exchange>,
        progress: Box<Progress>,
        watch: Option<Box<Watch>>,
    ) -> AnswerBody {
        let live = Some(Live { exchange, progress, watch });
        let mut body = Self { client, live, failure: None, pause: Pause::default() };
        if body.live.as_ref().is_some_and(|live| live.exchange.is_done()) {
            body.finish();
            return AnswerBody::empty();
        }
        AnswerBody { kind: Kind::Engine(Box::new(body)), stream: None }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        if let Some(failure) = self.failure.take() {
            return Poll::Ready(Some(Err(failure)));
        }
        while self.client.holds_enough() {
            ready!(self.pause.poll(cx));
        }
        let Some(live) = &mut self.live else { return Poll::Ready(None) };
        let piece = match live.exchange.poll_body(cx) {
            Poll::Ready(Ok(piece)) => piece,
            Poll::Ready(Err(failure)) => {
                if !matches!(failure, Failure::Client(_) | Failure::Length) {
                    live.progress.broke_off();
                }
                self.fail(failure, cx);
                return Poll::Pending;
            }
            Poll::Pending => {
                let Some(watch) = &mut live.watch else { return Poll::Pending };
                let late = ready!(watch.patience.poll_late(cx));
                return self.cut(late, cx);
            }
        };
        let frame = match piece {
            Piece::Data(data) => {
                let passes = live.progress.received(&data);
                if let Some(watch) = &mut live.watch {
                    watch.patience.heard();
                }
                match passes {
                    Passes::All => Some(Frame::data(data)),
                    // An answer that said how long it is cannot end otherwise.
                    Passes::Last(last) if live.exchange.length().is_none() => return self.end_with(last),
                    Passes::Last(_) | Passes::End(..) | Passes::Never => {
                        self.fail(Failure::Exhausted, cx);
                        return Poll::Pending;
                    }
                }
            }
            Piece::Trailers(trailers) => {
                live.progress.trailers(&trailers);
                Some(Frame::trailers(trailers))
            }
            Piece::End => None,
        };
        if live.exchange.is_done() {
            self.finish();
        }
        Poll::Ready(frame.map(Ok))
    }

    fn fail(&mut self, failure: Failure, cx: &Context<'_>) {
        self.live = None;
        self.failure = Some(failure);
        // hyper throws away what it has not sent yet of a stream when its body fails, and sends it when a body pauses.
        cx.waker().wake_by_ref();
    }

    /// The engine took too long. Events have an end that says so, everything else breaks off.
    fn cut(&mut self, late: Late, cx: &Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        let Some(Live { exchange, mut progress, watch }) = self.live.take() else { return Poll::Ready(None) };
        progress.late(late, watch.as_ref().is_some_and(|watch| watch.is_stream));
        let client = &self.client;
        let failure = Failure::Late(late);
        request_log::engine_failed(client.shared.clock.now(), client.target.address(), &failure);
        let Some(end) = watch.and_then(|watch| watch.end()) else {
            self.fail(failure, cx);
            return Poll::Pending;
        };
        if exchange.is_sent() {
            client.request_over();
        }
        Poll::Ready(Some(Ok(Frame::data(end))))
    }

    /// The answer ends with this, whatever else the engine has to say.
    fn end_with(&mut self, last: Bytes) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        if self.live.take().is_some_and(|live| live.exchange.is_sent()) {
            self.client.request_over();
        }
        Poll::Ready(Some(Ok(Frame::data(last))))
    }

    /// The response is whole: the engine's connection can take the next request.
    fn finish(&mut self) {
        let Some(Live { exchange, progress, .. }) = self.live.take() else { return };
        let now = progress.finish();
        let client = &self.client;
        if exchange.is_sent() {
            client.request_over();
        }
        if let Some(upstream) = exchange.into_reusable() {
            client.pool.put(upstream.rest(now));
        }
    }
}

impl AnswerBody {
    /// None.
    pub(super) fn empty() -> Self {
        Self { kind: Kind::Empty, stream: None }
    }

    /// The proxy's own.
    pub(super) fn own(data: Bytes) -> Self {
        let kind = if data.is_empty() { Kind::Empty } else { Kind::Own(Some(data)) };
        Self { kind, stream: None }
    }

    /// The engine's, over HTTP/2.
    pub(super) fn relay(body: RelayBody) -> Self {
        Self { kind: Kind::Relay(Box::new(body)), stream: None }
    }

    /// It goes to this stream.
    pub(super) fn send_to(&mut self, stream: Rc<Client>) {
        stream.offered(!self.is_end_stream());
        self.stream = Some(stream);
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let body = self.get_mut();
        let polled = match &mut body.kind {
            Kind::Empty => Poll::Ready(None),
            Kind::Engine(body) => body.poll_frame(cx),
            Kind::Relay(body) => body.poll_frame(cx),
            Kind::Own(data) => Poll::Ready(data.take().map(|data| Ok(Frame::data(data)))),
        };
        if let Some(stream) = &body.stream {
            // The next piece is asked for when the client has taken this one.
            stream.offered(matches!(polled, Poll::Ready(Some(Ok(_)))));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Empty => true,
            Kind::Engine(body) => body.live.is_none() && body.failure.is_none(),
            Kind::Relay(body) => body.is_end_stream(),
            Kind::Own(data) => data.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        let length = match &self.kind {
            Kind::Relay(body) => return body.size_hint(),
            Kind::Empty => Some(0),
            Kind::Engine(body) => body.live.as_ref().and_then(|live| live.exchange.length()),
            Kind::Own(data) => Some(data.as_ref().map_or(0, |data| data.len() as u64)),
        };
        length.map_or_else(SizeHint::new, SizeHint::with_exact)
    }
}
