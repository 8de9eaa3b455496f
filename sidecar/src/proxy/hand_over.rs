//! The body of a request for a server outside of this pod, whose connection is driven by a task of its own. The client's
//! connection is read by the task of its request alone, which hands over what it reads.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::codec::Framing;
use super::request_body::{BodyError, RequestBody};

/// The end of a body that is handed over.
#[derive(Debug)]
pub(super) struct Received {
    /// Pieces; none for the end.
    pieces: Receiver<Option<Frame<Bytes>>>,
    hint: SizeHint,
}

/// The begin of a body that is handed over.
#[derive(Debug)]
pub(super) struct Giver {
    body: RequestBody,
    pieces: Sender<Option<Frame<Bytes>>>,
}

/// Hands over `body`, one piece at a time.
pub(super) fn hand_over(body: RequestBody, framing: Framing) -> (Giver, Received) {
    let (pieces, received) = channel(1);
    let hint = match framing {
        Framing::None => SizeHint::with_exact(0),
        Framing::Length(length) => SizeHint::with_exact(length),
        Framing::Chunked => SizeHint::new(),
    };
    (Giver { body, pieces }, Received { pieces: received, hint })
}

impl Giver {
    /// Gives what comes until `answered` is ready, which nothing more is given for.
    ///
    /// # Errors
    /// When the client has left.
    pub(super) async fn give_while<T>(self, answered: impl Future<Output = T>) -> Result<T, BodyError> {
        let (mut giving, mut answered) = (Some(Box::pin(self.give())), pin!(answered));
        poll_fn(|cx| {
            if let Some(polled) = &mut giving
                && let Poll::Ready(given) = polled.as_mut().poll(cx)
            {
                given?;
                giving = None;
            }
            answered.as_mut().poll(cx).map(Ok)
        })
        .await
    }

    /// Gives until the body is over, or nobody takes more of it.
    async fn give(mut self) -> Result<(), BodyError> {
        while let Some(frame) = poll_fn(|cx| Pin::new(&mut self.body).poll_frame(cx)).await {
            if self.pieces.send(Some(frame?)).await.is_err() {
                return Ok(());
            }
        }
        // Nobody has to take the end.
        let _ = self.pieces.send(None).await;
        Ok(())
    }
}

impl Body for Received {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match ready!(self.pieces.poll_recv(cx)) {
            Some(piece) => Poll::Ready(piece.map(Ok)),
            // It was given up in the middle, because the answer is there already: the rest of that is still wanted.
            None => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.hint.exact() == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.hint
    }
}
