//! The law a key is held to, whichever algorithm it is.

use std::num::NonZeroU64;
use std::time::Duration;

use tidegate_policy::{Algorithm, Limit, Millis};

use super::concurrency::Concurrency;
use super::fixed_window::FixedWindow;
use super::sliding_log::SlidingLog;
use super::sliding_window::SlidingWindow;
use super::token_bucket::TokenBucket;
use crate::Tick;
use crate::sync::{AtomicU64, Ordering};

/// An algorithm with its parameters. The state of a key is a few words, which the law alone understands; all
/// zeroes is the state of a key never seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Law {
    TokenBucket(TokenBucket),
    SlidingWindow(SlidingWindow),
    SlidingLog(SlidingLog),
    FixedWindow(FixedWindow),
    Concurrency(Concurrency),
}

/// What a request took from a key, to give it back: two words, which the law alone understands. One of them is never
/// zero, so that there is room to say that nothing was taken, and why.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Taken {
    pub(super) before: u64,
    pub(super) after: NonZeroU64,
}

impl Taken {
    /// Zero counts as one.
    #[inline]
    pub(super) fn new(before: u64, after: u64) -> Self {
        Self { before, after: NonZeroU64::new(after).unwrap_or(NonZeroU64::MIN) }
    }
}

/// What an attempt to spend has come to, in two words, so that a function can answer with it in registers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Verdict {
    /// That of what was taken; zero: it is refused.
    after: u64,
    /// That of what was taken, or the instant until when it is refused.
    before_or_until: u64,
}

impl From<Result<Taken, Tick>> for Verdict {
    #[inline]
    fn from(result: Result<Taken, Tick>) -> Self {
        match result {
            Ok(Taken { before, after }) => Self { after: after.get(), before_or_until: before },
            Err(until) => Self { after: 0, before_or_until: until.as_nanos() },
        }
    }
}

impl Verdict {
    #[inline]
    pub(super) fn result(self) -> Result<Taken, Tick> {
        match NonZeroU64::new(self.after) {
            Some(after) => Ok(Taken { before: self.before_or_until, after }),
            None => Err(Tick::from_nanos(self.before_or_until)),
        }
    }
}

impl Law {
    /// The law of a rule that is in force since `born`.
    pub(crate) fn new(limit: &Limit, born: Tick) -> Self {
        // A document that validates has a window where one is needed. Without, nothing comes back.
        let window = limit.window_millis.map_or(Duration::MAX, Millis::duration);
        let bucket = |burst| TokenBucket::new(limit.limit, window, burst);
        match limit.algorithm {
            Algorithm::TokenBucket { burst, initial: None }
            | Algorithm::LeakyBucket { burst, max_wait_millis: None } => Self::TokenBucket(bucket(burst)),
            Algorithm::TokenBucket { burst, initial: Some(initial) } => {
                Self::TokenBucket(bucket(burst).filled(initial, born))
            }
            Algorithm::LeakyBucket { burst, max_wait_millis: Some(longest) } => {
                Self::TokenBucket(bucket(burst).paced(longest.duration()))
            }
            Algorithm::SlidingWindow { sub_windows } => {
                Self::SlidingWindow(SlidingWindow::new(limit.limit, window, sub_windows))
            }
            Algorithm::SlidingLog => Self::SlidingLog(SlidingLog::new(limit.limit, window)),
            Algorithm::FixedWindow => Self::FixedWindow(FixedWindow::new(limit.limit, window)),
            Algorithm::Concurrency => Self::Concurrency(Concurrency::new(limit.limit)),
        }
    }

    /// Words of state that one key needs.
    pub(crate) fn words(self) -> usize {
        match self {
            Self::TokenBucket(_) | Self::FixedWindow(_) | Self::Concurrency(_) => 1,
            Self::SlidingWindow(window) => window.words(),
            Self::SlidingLog(log) => log.words(),
        }
    }

    /// What may count at once.
    pub(crate) fn size(&self) -> u64 {
        match self {
            Self::TokenBucket(bucket) => bucket.size(),
            Self::SlidingWindow(window) => window.limit(),
            Self::SlidingLog(log) => log.limit(),
            Self::FixedWindow(window) => window.limit(),
            Self::Concurrency(limit) => limit.limit(),
        }
    }

    /// Whether a request would pass at `now`, else the first instant at which it would. Spends nothing.
    pub(crate) fn judge(&self, now: Tick, cost: u32, state: &[AtomicU64]) -> Result<(), Tick> {
        match self {
            Self::TokenBucket(bucket) => bucket.judge(now, cost, &state[0]),
            Self::SlidingWindow(window) => window.judge(now, cost, state),
            Self::SlidingLog(log) => log.judge(now, state),
            Self::FixedWindow(window) => window.judge(now, cost, &state[0]),
            Self::Concurrency(limit) => limit.judge(now, cost, &state[0]),
        }
    }

    /// The same for a key never seen.
    pub(crate) fn judge_new(&self, now: Tick, cost: u32) -> Result<(), Tick> {
        match self {
            Self::TokenBucket(bucket) => bucket.judge_new(now, cost),
            _ if u64::from(cost) > self.size() => Err(Tick::NEVER),
            _ => Ok(()),
        }
    }

    /// Spends, or says when it could be done.
    pub(crate) fn take(&self, now: Tick, cost: u32, state: &[AtomicU64]) -> Result<Taken, Tick> {
        self.attempt(now, cost, state).result()
    }

    /// The same in registers. What is short is written out here, the rest is called.
    #[inline(always)]
    #[allow(clippy::inline_always)] // nearly all that there is to do for a rule
    pub(super) fn attempt(&self, now: Tick, cost: u32, state: &[AtomicU64]) -> Verdict {
        match self {
            Self::TokenBucket(bucket) => bucket.take(now, cost, &state[0]).into(),
            Self::Concurrency(limit) => limit.take(now, cost, &state[0]).into(),
            Self::SlidingWindow(window) => attempt_in(window, now, cost, state),
            Self::SlidingLog(_) | Self::FixedWindow(_) => self.attempt_seldom(now, cost, state),
        }
    }

    #[inline(never)]
    fn attempt_seldom(&self, now: Tick, cost: u32, state: &[AtomicU64]) -> Verdict {
        match self {
            Self::SlidingLog(log) => log.take(now, state).into(),
            Self::FixedWindow(window) => window.take(now, cost, &state[0]).into(),
            _ => self.attempt(now, cost, state),
        }
    }

    /// Gives `amount` of what was taken back.
    pub(crate) fn give_back(&self, taken: Taken, amount: u32, state: &[AtomicU64]) {
        match self {
            Self::TokenBucket(bucket) => bucket.give_back(taken, amount, &state[0]),
            Self::SlidingWindow(window) => window.give_back(taken, amount, state),
            Self::SlidingLog(log) => log.give_back(taken, state),
            Self::FixedWindow(window) => window.give_back(taken, amount, &state[0]),
            Self::Concurrency(limit) => limit.give_back(amount, &state[0]),
        }
    }

    /// Spends `amount` whether it is there or not.
    pub(crate) fn charge(&self, now: Tick, amount: u32, state: &[AtomicU64]) -> Taken {
        match self {
            Self::TokenBucket(bucket) => bucket.charge(now, amount, &state[0]),
            Self::SlidingWindow(window) => window.charge(now, amount, state),
            Self::FixedWindow(window) => window.charge(now, amount, &state[0]),
            // Permits come back whole, and a log knows no cost but one: there is nothing to settle.
            Self::SlidingLog(_) | Self::Concurrency(_) => Taken::new(0, 0),
        }
    }

    /// Whether the state says no more than that of a key never seen.
    pub(crate) fn is_fresh(&self, now: Tick, state: &[AtomicU64]) -> bool {
        match self {
            Self::TokenBucket(bucket) => bucket.is_fresh(now, &state[0]),
            _ => self.outstanding(now, state) == 0,
        }
    }

    /// What counts against the limit at `now`.
    pub(crate) fn outstanding(&self, now: Tick, state: &[AtomicU64]) -> u64 {
        match self {
            Self::TokenBucket(bucket) => bucket.outstanding(now, &state[0]),
            Self::SlidingWindow(window) => window.outstanding(now, state),
            Self::SlidingLog(log) => log.outstanding(now, state),
            Self::FixedWindow(window) => window.outstanding(now, &state[0]),
            Self::Concurrency(_) => state[0].load(Ordering::SeqCst),
        }
    }

    /// How long a request that took `cost` has to wait for its turn.
    pub(crate) fn wait(&self, now: Tick, cost: u32, taken: Taken) -> Duration {
        match self {
            Self::TokenBucket(bucket) => bucket.wait(now, cost, taken),
            Self::SlidingWindow(_) | Self::SlidingLog(_) | Self::FixedWindow(_) | Self::Concurrency(_) => {
                Duration::ZERO
            }
        }
    }

    /// Whether state written under the other law means the same under this one.
    pub(crate) fn reads(self, other: Self) -> bool {
        match (self, other) {
            (Self::TokenBucket(new), Self::TokenBucket(old)) => new.interval() == old.interval(),
            (Self::SlidingWindow(new), Self::SlidingWindow(old)) => new.same_ring(old),
            (Self::SlidingLog(new), Self::SlidingLog(old)) => new == old,
            (Self::FixedWindow(new), Self::FixedWindow(old)) => new.same_windows(old),
            (Self::Concurrency(_), Self::Concurrency(_)) => true,
            _ => false,
        }
    }

    /// Writes state of another law of the same kind into `to`, which is all zeroes, so that it means the same.
    pub(crate) fn convert(self, old: Self, now: Tick, from: &[AtomicU64], to: &[AtomicU64]) {
        match (self, old) {
            (Self::TokenBucket(new), Self::TokenBucket(old)) => {
                let word = new.convert(old, now, from[0].load(Ordering::Relaxed));
                to[0].store(word, Ordering::Relaxed);
            }
            (Self::SlidingWindow(new), Self::SlidingWindow(old)) => new.convert(old, now, from, to),
            (Self::SlidingLog(new), Self::SlidingLog(old)) => new.convert(old, from, to),
            (Self::FixedWindow(new), Self::FixedWindow(old)) => {
                let word = new.convert(old, now, from[0].load(Ordering::Relaxed));
                to[0].store(word, Ordering::Relaxed);
            }
            // Of other kinds nothing can be kept; in flight stays what it is, in the table that it is in.
            _ => {}
        }
    }
}

#[inline(never)]
fn attempt_in(window: &SlidingWindow, now: Tick, cost: u32, state: &[AtomicU64]) -> Verdict {
    window.take(now, cost, state).into()
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
