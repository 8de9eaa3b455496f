//! How long an answer may take once its head is there.
//!
//! An answer under a limit has one timer, from when it is first waited for: most answers are whole before. A piece that
//! comes only notes the time: the timer looks when it fires, and is set anew to when the limit is over then.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tidegate_core::TimeLimits;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::refusal::Trouble;
use crate::refusal::stream::Events;

/// What was waited for in vain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Late {
    /// The first byte of a stream.
    FirstByte,
    /// The next piece of an answer.
    NextChunk,
    /// The end of an answer.
    End,
}

/// The limits of an answer under way, and what becomes of it when one is over.
#[derive(Debug)]
pub(super) struct Watch {
    pub(super) patience: Patience,
    pub(super) is_stream: bool,
    /// Whose events it consists of, where one can be put at its end.
    pub(super) events: Option<Events>,
}

/// The limits of an answer under way.
#[derive(Debug)]
pub(super) struct Patience {
    first_byte: Option<Instant>,
    between_chunks: Option<Duration>,
    end: Option<Instant>,
    /// When the last piece came, or the head.
    heard: Instant,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Patience {
    /// That of an answer whose request the engine had whole at `began`; none where nothing limits it.
    pub(super) fn new(limits: &TimeLimits, began: Instant, is_stream: bool) -> Option<Self> {
        let total = if is_stream { limits.total_of_stream } else { limits.total };
        let first_byte = limits.first_byte.filter(|_| is_stream).map(|limit| began + limit);
        if (first_byte, limits.between_chunks, total) == (None, None, None) {
            return None;
        }
        Some(Self {
            first_byte,
            between_chunks: limits.between_chunks,
            end: total.map(|limit| began + limit),
            heard: if limits.between_chunks.is_some() { Instant::now() } else { began },
            timer: None,
        })
    }

    /// A piece of the answer is there.
    pub(super) fn heard(&mut self) {
        if self.between_chunks.is_some() {
            self.heard = Instant::now();
        }
        // Whatever is due now may be due before what the timer was set to.
        if self.first_byte.take().is_some() {
            self.set();
        }
    }

    /// Ready when a limit is over. To be asked when there is nothing to read, so that a client that takes its time does
    /// not make the engine late.
    pub(super) fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<Late> {
        loop {
            let Some((due, late)) = self.next() else { return Poll::Pending };
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
            ready!(timer.as_mut().poll(cx));
            if Instant::now() >= due {
                return Poll::Ready(late);
            }
            timer.as_mut().reset(due);
        }
    }

    fn next(&self) -> Option<(Instant, Late)> {
        let piece = match (self.first_byte, self.between_chunks) {
            (Some(due), _) => Some((due, Late::FirstByte)),
            (None, Some(limit)) => Some((self.heard + limit, Late::NextChunk)),
            (None, None) => None,
        };
        let end = self.end.map(|due| (due, Late::End));
        // Of two that are over at once, the end is: it would not have come with the next piece.
        end.into_iter().chain(piece).min_by_key(|(due, _)| *due)
    }

    fn set(&mut self) {
        let due = self.next();
        if let (Some(timer), Some((due, _))) = (&mut self.timer, due) {
            timer.as_mut().reset(due);
        }
    }
}

impl Watch {
    /// The end of a stream of events that can have one.
    pub(super) fn end(&self) -> Option<Bytes> {
        let trouble = Trouble::EngineTimedOut;
        self.events.map(|events| events.end(trouble.code(), trouble.message()))
    }
}

impl Late {
    /// As in logs.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::FirstByte => "the first byte of its answer",
            Self::NextChunk => "the next piece of its answer",
            Self::End => "the end of its answer",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn limits() -> TimeLimits {
        TimeLimits {
            first_byte: Some(10 * SECOND),
            between_chunks: Some(2 * SECOND),
            total: Some(30 * SECOND),
            total_of_stream: Some(60 * SECOND),
            connect: None,
        }
    }

    async fn late(patience: &mut Patience) -> Late {
        poll_fn(|cx| patience.poll_late(cx)).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_is_late_by_whatever_limit_is_over_first() {
        let began = Instant::now();
        let mut patience = Patience::new(&limits(), began, true).unwrap();
        assert_eq!((late(&mut patience).await, began.elapsed().as_secs()), (Late::FirstByte, 10));
        let began = Instant::now();
        let mut patience = Patience::new(&limits(), began, true).unwrap();
        for _ in 0..59 {
            tokio::time::advance(SECOND).await;
            patience.heard();
        }
        assert_eq!((late(&mut patience).await, began.elapsed().as_secs()), (Late::End, 60));
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_is_measured_from_the_last_piece() {
        let began = Instant::now();
        let mut patience = Patience::new(&limits(), began, true).unwrap();
        patience.heard();
        for _ in 0..3 {
            tokio::select! {
                late = late(&mut patience) => panic!("{late:?}"),
                () = tokio::time::sleep(Duration::from_millis(1500)) => {}
            }
            patience.heard();
        }
        assert_eq!((late(&mut patience).await, began.elapsed().as_millis()), (Late::NextChunk, 6500));
    }

    #[tokio::test(start_paused = true)]
    async fn a_plain_answer_has_its_own_end_and_no_first_byte() {
        let began = Instant::now();
        let only = TimeLimits { first_byte: Some(SECOND), total: Some(3 * SECOND), ..TimeLimits::default() };
        let mut patience = Patience::new(&only, began, false).unwrap();
        assert_eq!((late(&mut patience).await, began.elapsed().as_secs()), (Late::End, 3));
        assert!(Patience::new(&TimeLimits { total: None, ..only }, began, false).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_not_waited_for_has_no_timer() {
        let mut patience = Patience::new(&limits(), Instant::now(), true).unwrap();
        patience.heard();
        assert!(patience.timer.is_none());
        assert!(poll_fn(|cx| Poll::Ready(patience.poll_late(cx).is_pending())).await);
        assert!(patience.timer.is_some());
    }
}
