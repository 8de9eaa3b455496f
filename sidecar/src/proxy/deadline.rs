//! Until when an answer has to be there.
//!
//! Registering a timer and removing it again costs each request more than its decision. So a connection has one timer,
//! which is left where it is while the deadline is later: it fires in vain once in a timeout, and is then set anew.

use std::cell::RefCell;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::time::{Instant, Sleep, sleep_until};

/// A timer for one deadline after the other.
#[derive(Debug, Default)]
pub(super) struct Timer(RefCell<Option<Pin<Box<Sleep>>>>);

impl Timer {
    /// Ready at `deadline`, which may be another each time.
    pub(super) fn poll(&self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        let mut timer = self.0.borrow_mut();
        let sleep = timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if sleep.deadline() > deadline {
            sleep.as_mut().reset(deadline);
        }
        loop {
            ready!(sleep.as_mut().poll(cx));
            if sleep.deadline() >= deadline {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_deadline_is_kept_whatever_the_one_before_was() {
        let timer = Timer::default();
        for (wait, looks) in [(500, 1), (1000, 3), (100, 2), (100, 1), (0, 1)] {
            let start = Instant::now();
            let deadline = start + Duration::from_millis(wait);
            for _ in 1..looks {
                // A deadline that is met leaves the timer behind.
                assert!(poll_fn(|cx| Poll::Ready(timer.poll(cx, deadline).is_pending())).await);
                tokio::time::advance(Duration::from_millis(10)).await;
            }
            poll_fn(|cx| timer.poll(cx, deadline)).await;
            // The wheel has a resolution of a millisecond.
            let late = start.elapsed().abs_diff(Duration::from_millis(wait));
            assert!(late <= Duration::from_millis(2), "{wait}: {late:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_later_deadline_is_not_met_by_the_timer_of_an_earlier_one() {
        let timer = Timer::default();
        let start = Instant::now();
        let early = start + Duration::from_millis(50);
        assert!(poll_fn(|cx| Poll::Ready(timer.poll(cx, early).is_pending())).await);
        poll_fn(|cx| timer.poll(cx, start + Duration::from_secs(3))).await;
        assert!(start.elapsed() >= Duration::from_secs(3));
    }
}
