//! Bodies of answers that come over HTTP/2 and go on over HTTP/2.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;

use super::call::Stop;
use super::exchange::Failure;
use super::patience::{Late, Watch};
use super::progress::{Passes, Progress};
use crate::refusal::{Dialect, grpc};

/// A response of the engine under way.
pub(super) struct RelayBody {
    /// Taken when it is over.
    live: Option<(Incoming, Box<Progress>)>,
    watch: Option<Box<Watch>>,
    dialect: Dialect,
    /// What stands behind an answer that was ended here.
    trailers: Option<HeaderMap>,
    stop: Option<Stop>,
}

impl RelayBody {
    pub(super) fn new(
        body: Incoming,
        progress: Box<Progress>,
        dialect: Dialect,
        watch: Option<Box<Watch>>,
        stop: Option<Stop>,
    ) -> Self {
        let mut relay = Self { live: Some((body, progress)), watch, dialect, trailers: None, stop };
        if relay.is_whole() {
            relay.finish();
        }
        relay
    }

    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        let Some((body, progress)) = &mut self.live else {
            return Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))));
        };
        let Poll::Ready(frame) = Pin::new(body).poll_frame(cx) else {
            let Some(watch) = &mut self.watch else { return Poll::Pending };
            let late = ready!(watch.patience.poll_late(cx));
            return Poll::Ready(self.cut(late));
        };
        match frame {
            Some(Ok(frame)) => {
                let passes = frame.data_ref().map_or(Passes::All, |data| progress.received(data));
                if let Some(last) = self.last(passes) {
                    return Poll::Ready(Some(last));
                }
                if let (Some(_), Some(watch)) = (frame.data_ref(), &mut self.watch) {
                    watch.patience.heard();
                }
                match frame.trailers_ref() {
                    Some(trailers) => self.end(trailers),
                    None if self.is_whole() => self.finish(),
                    None => {}
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                progress.broke_off();
                self.live = None;
                Poll::Ready(Some(match self.dialect {
                    Dialect::Grpc => Ok(Frame::trailers(grpc::broken_off())),
                    Dialect::OpenAi => Err(Failure::Http2(error)),
                }))
            }
            None => {
                self.finish();
                Poll::Ready(None)
            }
        }
    }

    /// The engine took too long.
    fn cut(&mut self, late: Late) -> Option<Result<Frame<Bytes>, Failure>> {
        let (_, mut progress) = self.live.take()?;
        let watch = self.watch.take()?;
        self.stop();
        progress.late(late, watch.is_stream);
        Some(match (self.dialect, watch.end()) {
            (Dialect::Grpc, _) => Ok(Frame::trailers(grpc::too_late())),
            (Dialect::OpenAi, Some(end)) => Ok(Frame::data(end)),
            (Dialect::OpenAi, None) => Err(Failure::Late(late)),
        })
    }

    /// What the answer ends with, if it has to end here.
    fn last(&mut self, passes: Passes) -> Option<Result<Frame<Bytes>, Failure>> {
        let last = match passes {
            Passes::All => return None,
            Passes::Last(last) => Ok(Frame::data(last)),
            Passes::End(last, trailers) => {
                self.trailers = Some(trailers);
                Ok(Frame::data(last))
            }
            Passes::Never => Err(Failure::Exhausted),
        };
        self.live = None;
        self.stop();
        Some(last)
    }

    fn stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            stop.stop();
        }
    }

    fn is_whole(&self) -> bool {
        self.live.as_ref().is_some_and(|(body, _)| body.is_end_stream())
    }

    /// A call that failed at its end is no whole answer.
    fn end(&mut self, trailers: &HeaderMap) {
        if let Some((_, progress)) = &mut self.live {
            progress.trailers(trailers);
        }
        let failed = grpc::status(trailers).is_some_and(|status| status >= 500);
        if self.dialect == Dialect::Grpc && failed {
            self.live = None;
        } else {
            self.finish();
        }
    }

    fn finish(&mut self) {
        if let Some((_, progress)) = self.live.take() {
            progress.finish();
        }
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.live.is_none() && self.trailers.is_none()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        let over = if self.trailers.is_some() { SizeHint::new() } else { SizeHint::with_exact(0) };
        self.live.as_ref().map_or(over, |(body, _)| body.size_hint())
    }
}
