//! What requests read of the tiers: published by whoever ticks, read without a lock.

use std::time::Duration;

use crossbeam_utils::CachePadded;
use tidegate_policy::Millis;
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
    /// Of hold time and ramp.
    way_back: AtomicU64,
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
    /// It is on its way back, which takes so long in all; None while the end is not in sight.
    pub(crate) way_back: Option<Duration>,
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
                way_back: AtomicU64::new(0),
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
            let hold = standing.recovery.hold_millis.duration();
            let ramp = standing.recovery.ramp_millis.map_or(Duration::ZERO, Millis::duration);
            published.hold.store(hold.as_nanos() as u64, Relaxed);
            published.way_back.store((hold + ramp).as_nanos() as u64, Relaxed);
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
            way_back: Some(published.way_back()),
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
        let hold = Duration::from_nanos(self.hold.load(Relaxed));
        let countdown = match self.readmits_at.load(Relaxed) {
            0 => hold,
            at => Tick::from_nanos(at).since(now),
        };
        // A calm that has just begun is as likely a breath as the end.
        let way_back = (countdown * 2 <= hold).then(|| self.way_back());
        Shed {
            tier,
            value: self.value.load(),
            threshold: self.threshold.load(),
            countdown,
            lasts: now.since(Tick::from_nanos(self.since.load(Relaxed))),
            way_back,
        }
    }

    fn way_back(&self) -> Duration {
        Duration::from_nanos(self.way_back.load(Relaxed))
    }
}

const fn index(tier: TierName) -> usize {
    match tier {
        TierName::Qps => 0,
        TierName::GpuMemory => 1,
        TierName::Latency => 2,
    }
}
