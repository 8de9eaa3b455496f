//! The law a key is held to, whichever algorithm it is.

use tidegate_policy::{Algorithm, Limit};

use super::sliding_window::{self, SlidingWindow};
use super::token_bucket::{self, TokenBucket};
use crate::Tick;
use crate::sync::{AtomicU64, Ordering};

/// An algorithm with its parameters. The state of a key is a few words, which the law alone understands; all
/// zeroes is the state of a key never seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Law {
    TokenBucket(TokenBucket),
    SlidingWindow(SlidingWindow),
}

/// What a request took from a key.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Taken {
    TokenBucket(token_bucket::Taken),
    SlidingWindow(sliding_window::Taken),
}

impl Law {
    pub(crate) fn new(limit: &Limit) -> Self {
        let window = limit.window_millis.duration();
        match limit.algorithm {
            Algorithm::TokenBucket { burst } => {
                Self::TokenBucket(TokenBucket::new(limit.limit, window, burst))
            }
            Algorithm::SlidingWindow { sub_windows } => {
                Self::SlidingWindow(SlidingWindow::new(limit.limit, window, sub_windows))
            }
        }
    }

    /// Words of state that one key needs.
    pub(crate) fn words(self) -> usize {
        match self {
            Self::TokenBucket(_) => 1,
            Self::SlidingWindow(window) => window.words(),
        }
    }

    /// Requests that may count at once.
    pub(crate) fn size(self) -> u64 {
        match self {
            Self::TokenBucket(bucket) => bucket.size(),
            Self::SlidingWindow(window) => window.limit(),
        }
    }

    /// Whether a request would pass at `now`, else the first instant at which it would. Spends nothing.
    pub(crate) fn judge(self, now: Tick, state: &[AtomicU64]) -> Result<(), Tick> {
        match self {
            Self::TokenBucket(bucket) => bucket.judge(now, &state[0]),
            Self::SlidingWindow(window) => window.judge(now, state),
        }
    }

    /// Spends, or says when it could be done.
    pub(crate) fn take(self, now: Tick, state: &[AtomicU64]) -> Result<Taken, Tick> {
        match self {
            Self::TokenBucket(bucket) => bucket.take(now, &state[0]).map(Taken::TokenBucket),
            Self::SlidingWindow(window) => window.take(now, state).map(Taken::SlidingWindow),
        }
    }

    /// Undoes `take`.
    pub(crate) fn give_back(self, taken: Taken, state: &[AtomicU64]) {
        match (self, taken) {
            (Self::TokenBucket(bucket), Taken::TokenBucket(taken)) => bucket.give_back(taken, &state[0]),
            (Self::SlidingWindow(window), Taken::SlidingWindow(taken)) => window.give_back(taken, state),
            // A receipt never leaves the rule that gave it.
            (Self::TokenBucket(_), Taken::SlidingWindow(_))
            | (Self::SlidingWindow(_), Taken::TokenBucket(_)) => {}
        }
    }

    /// Whether the state says no more than that of a key never seen.
    pub(crate) fn is_fresh(self, now: Tick, state: &[AtomicU64]) -> bool {
        match self {
            Self::TokenBucket(_) => TokenBucket::is_fresh(now, &state[0]),
            Self::SlidingWindow(window) => window.is_fresh(now, state),
        }
    }

    /// Requests that count against the limit at `now`.
    pub(crate) fn outstanding(self, now: Tick, state: &[AtomicU64]) -> u64 {
        match self {
            Self::TokenBucket(bucket) => bucket.outstanding(now, &state[0]),
            Self::SlidingWindow(window) => window.outstanding(now, state),
        }
    }

    /// Whether state written under the other law means the same under this one.
    pub(crate) fn reads(self, other: Self) -> bool {
        match (self, other) {
            (Self::TokenBucket(new), Self::TokenBucket(old)) => new.interval() == old.interval(),
            (Self::SlidingWindow(new), Self::SlidingWindow(old)) => new.same_ring(old),
            (Self::TokenBucket(_), Self::SlidingWindow(_))
            | (Self::SlidingWindow(_), Self::TokenBucket(_)) => false,
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
            (Self::TokenBucket(_), Self::SlidingWindow(_))
            | (Self::SlidingWindow(_), Self::TokenBucket(_)) => {}
        }
    }
}
