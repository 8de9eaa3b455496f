//! What requests read of the tiers: published by whoever ticks, read without a lock.

use std::time::Duration;

use crossbeam_utils::CachePadded;
use tidegate_policy::report::TierName;

use crate::Tick;
use crate::sync::{AtomicF64, AtomicU32, AtomicU64, Ordering::Relaxed};
use crate::tiers::Standing;

const TIERS: [TierName; 3] = [TierName::Qps, TierName::GpuMemory, TierName::Latency];

/// The published state of all tiers. Most requests read one word: nobody sheds.
#[derive(Debug)]
pub(crate) struct Gate {
    shedding: CachePadded<AtomicU32>,
    tiers: [Published; TIERS.len()],
}

#[derive(Debug)]
struct Published {
    value: AtomicF64,
    threshold: AtomicF64,
    /// Nanoseconds of the clock from which low passes again; 0 while the tier is not recovering.
    readmits_at: AtomicU64,
    hold: AtomicU64,
    /// Nanoseconds of the clock from which on it sheds.
    since: AtomicU64,
}

/// A tier that sheds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Shed {
    pub(crate) tier: TierName,
    pub(crate) value: f64,
    pub(crate) threshold: f64,
    /// Calm that is needed at least before low passes again.
    pub(crate) countdown: Duration,
    /// How long it sheds already.
    pub(crate) lasts: Duration,
}

impl Gate {
    /// A gate where nobody sheds.
    pub(crate) fn new() -> Self {
        Self {
            shedding: CachePadded::new(AtomicU32::new(0)),
            tiers: std::array::from_fn(|_| Published {
                value: AtomicF64::new(0.0),
                threshold: AtomicF64::new(0.0),
                readmits_at: AtomicU64::new(0),
                hold: AtomicU64::new(0),
                since: AtomicU64::new(0),
            }),
        }
    }

    /// Publishes how all tiers stand.
    pub(crate) fn publish<'a>(&self, standings: impl Iterator<Item = Standing<'a>>) {
        let mut shedding = 0;
        for standing in standings {
            let published = &self.tiers[index(standing.name)];
            published.value.store(standing.value.unwrap_or(0.0));
            published.threshold.store(standing.threshold.unwrap_or(0.0));
            let readmits_at = standing.hysteresis.readmits_at(standing.recovery).map_or(0, Tick::as_nanos);
            published.readmits_at.store(readmits_at, Relaxed);
            let hold = standing.recovery.hold_millis.duration().as_nanos();
            published.hold.store(hold as u64, Relaxed);
            published.since.store(standing.hysteresis.shed_since().as_nanos(), Relaxed);
            shedding |= u32::from(standing.shedding()) << index(standing.name);
        }
        self.shedding.store(shedding, Relaxed);
    }

    /// The tier that sheds and has the longest way to recovery, if any sheds.
    pub(crate) fn shed(&self, now: Tick) -> Option<Shed> {
        match self.shedding.load(Relaxed) {
            0 => None,
            shedding => self.longest(now, shedding),
        }
    }

    /// What is published of a tier that lets low back in, and when the next one may pass.
    #[cold]
    pub(crate) fn letting_in(&self, tier: TierName, countdown: Duration) -> Shed {
        let published = &self.tiers[index(tier)];
        Shed {
            tier,
            value: published.value.load(),
            threshold: published.threshold.load(),
            countdown,
            lasts: Duration::ZERO,
        }
    }

    #[cold]
    fn longest(&self, now: Tick, shedding: u32) -> Option<Shed> {
        let sheds = TIERS.into_iter().filter(|tier| shedding >> index(*tier) & 1 == 1);
        sheds.map(|tier| self.tiers[index(tier)].shed(tier, now)).max_by_key(|shed| shed.countdown)
    }
}

impl Published {
    fn shed(&self, tier: TierName, now: Tick) -> Shed {
        let countdown = match self.readmits_at.load(Relaxed) {
            0 => Duration::from_nanos(self.hold.load(Relaxed)),
            at => Tick::from_nanos(at).since(now),
        };
        Shed {
            tier,
            value: self.value.load(),
            threshold: self.threshold.load(),
            countdown,
            lasts: now.since(Tick::from_nanos(self.since.load(Relaxed))),
        }
    }
}

const fn index(tier: TierName) -> usize {
    match tier {
        TierName::Qps => 0,
        TierName::GpuMemory => 1,
        TierName::Latency => 2,
    }
}
