//! The body of a request, of which a bounded part can be taken before it is sent.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

/// No more is taken ahead than this.
const AHEAD: usize = 64 * 1024;

/// What remains of a request's body.
#[derive(Debug)]
pub(super) struct RequestBody {
    /// What was taken ahead.
    early: VecDeque<Frame<Bytes>>,
    /// Of it, in data.
    bytes: usize,
    rest: Incoming,
    ended: bool,
}

impl RequestBody {
    pub(super) fn new(body: Incoming) -> Self {
        Self { early: VecDeque::new(), bytes: 0, rest: body, ended: false }
    }

    /// Takes what is there. Ready at the end of the body, or when that is enough.
    pub(super) fn poll_ahead(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        while self.bytes < AHEAD && !self.ended {
            match ready!(Pin::new(&mut self.rest).poll_frame(cx)).transpose()? {
                Some(frame) => {
                    self.bytes += frame.data_ref().map_or(0, Bytes::len);
                    self.early.push_back(frame);
                }
                None => self.ended = true,
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.early.pop_front() {
            Some(frame) => {
                self.bytes -= frame.data_ref().map_or(0, Bytes::len);
                Poll::Ready(Some(Ok(frame)))
            }
            None if self.ended => Poll::Ready(None),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.early.is_empty() && (self.ended || self.rest.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let (rest, early) = (self.rest.size_hint(), self.bytes as u64);
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + early);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + early);
        }
        hint
    }
}
