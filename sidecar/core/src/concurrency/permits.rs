//! Places in flight, taken and given back with one compare-and-swap.

use crossbeam_utils::CachePadded;
use tidegate_policy::PriorityClass;

use crate::sync::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};

/// Where a place was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pool {
    /// Of what is kept for high.
    Reserve,
    /// Of what all share.
    Common,
}

impl Pool {
    /// One place, in the word of both counts.
    const fn unit(self) -> u64 {
        match self {
            Self::Reserve => 1 << 32,
            Self::Common => 1,
        }
    }
}

/// Places in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InUse {
    pub(crate) reserve: u32,
    pub(crate) common: u32,
}

impl InUse {
    #[allow(clippy::cast_possible_truncation)] // each half is a count of its own
    const fn of(word: u64) -> Self {
        Self { reserve: (word >> 32) as u32, common: word as u32 }
    }

    pub(crate) const fn total(self) -> u32 {
        self.reserve.saturating_add(self.common)
    }
}

/// How many places there are for whom. Each of the common ones is at most the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Places for high alone.
    pub(crate) reserve: u32,
    /// Places for all, as far as high may fill them
    pub(crate) common: u32,
    /// as far as medium may
    pub(crate) medium: u32,
    /// and as far as low may.
    pub(crate) low: u32,
}

/// All places of a pod.
#[derive(Debug)]
pub(crate) struct Permits {
    taken: CachePadded<Taken>,
    bounds: CachePadded<Published>,
}

#[derive(Debug)]
struct Taken {
    /// Both counts.
    word: AtomicU64,
    /// The most there were at once since somebody asked.
    peak: AtomicU32,
}

#[derive(Debug)]
struct Published {
    reserve: AtomicU32,
    common: AtomicU32,
    medium: AtomicU32,
    low: AtomicU32,
    /// High has found no place.
    starved: AtomicBool,
}

impl Permits {
    /// Places without bounds: nobody has said how many there are.
    pub(crate) fn new() -> Self {
        Self {
            taken: CachePadded::new(Taken { word: AtomicU64::new(0), peak: AtomicU32::new(0) }),
            bounds: CachePadded::new(Published {
                reserve: AtomicU32::new(0),
                common: AtomicU32::new(u32::MAX),
                medium: AtomicU32::new(u32::MAX),
                low: AtomicU32::new(u32::MAX),
                starved: AtomicBool::new(false),
            }),
        }
    }

    /// Says how many places there are. Those in use beyond stay in use.
    ///
    /// Low gets none from the moment on that high has found none, until it would have found one again.
    pub(crate) fn publish(&self, bounds: Bounds) {
        let published = &self.bounds;
        published.reserve.store(bounds.reserve, Relaxed);
        published.common.store(bounds.common, Relaxed);
        published.medium.store(bounds.medium, Relaxed);
        published.starved.store(self.pool(PriorityClass::High, self.in_use()).is_none(), SeqCst);
        published.low.store(bounds.low, SeqCst);
        if published.starved.load(SeqCst) {
            published.low.store(0, SeqCst);
        }
    }

    pub(crate) fn bounds(&self) -> Bounds {
        Bounds {
            reserve: self.bounds.reserve.load(Relaxed),
            common: self.bounds.common.load(Relaxed),
            medium: self.bounds.medium.load(Relaxed),
            low: self.bounds.low.load(Relaxed),
        }
    }

    /// Takes a place, if there is one for this class. High takes of its reserve first.
    #[inline]
    pub(crate) fn take(&self, class: PriorityClass) -> Option<Pool> {
        let mut word = self.taken.word.load(SeqCst);
        loop {
            let Some(pool) = self.pool(class, InUse::of(word)) else {
                if class == PriorityClass::High {
                    self.starve();
                }
                return None;
            };
            match self.taken.word.compare_exchange_weak(word, word + pool.unit(), SeqCst, Relaxed) {
                Ok(_) => {
                    self.note(InUse::of(word).total().saturating_add(1));
                    return Some(pool);
                }
                Err(now) => word = now,
            }
        }
    }

    /// Gives a place back.
    #[inline]
    pub(crate) fn give_back(&self, pool: Pool) {
        self.taken.word.fetch_sub(pool.unit(), SeqCst);
    }

    pub(crate) fn in_use(&self) -> InUse {
        InUse::of(self.taken.word.load(SeqCst))
    }

    /// The most that were in use at once since the last call.
    pub(crate) fn peak(&self) -> u32 {
        let now = self.in_use().total();
        self.taken.peak.swap(now, Relaxed).max(now)
    }

    #[inline]
    fn pool(&self, class: PriorityClass, used: InUse) -> Option<Pool> {
        let bounds = &self.bounds;
        let common = match class {
            PriorityClass::High if used.reserve < bounds.reserve.load(Relaxed) => return Some(Pool::Reserve),
            PriorityClass::High => bounds.common.load(Relaxed),
            PriorityClass::Medium => bounds.medium.load(Relaxed),
            PriorityClass::Low => bounds.low.load(SeqCst),
        };
        (used.common < common).then_some(Pool::Common)
    }

    fn note(&self, in_use: u32) {
        if in_use > self.taken.peak.load(Relaxed) {
            self.taken.peak.fetch_max(in_use, Relaxed);
        }
    }

    #[cold]
    fn starve(&self) {
        self.bounds.starved.store(true, SeqCst);
        self.bounds.low.store(0, SeqCst);
    }
}

#[cfg(all(test, loom))]
mod models;
#[cfg(test)]
#[cfg(not(loom))]
mod tests;
