//! What happens beside the requests: ticks, readings, and what requests find published of them.

use tidegate_policy::report::{EngineLoad, TierName, TierStatus};
use tidegate_policy::{Mode, PolicyDocument};

use super::{Engine, places};
use crate::concurrency::{Flow, Limiter, Progress};
use crate::gradient::{Seen, Throughput};
use crate::lane::Lane;
use crate::meter::Meter;
use crate::tiers::{LatencySource, Tiers, Traffic, Work};
use crate::{EngineReading, Signal, Tick};

/// State that only ticks, readings and snapshots touch.
#[derive(Debug, Clone)]
pub(super) struct Control {
    tiers: Option<Tiers>,
    throughput: Throughput,
    reserved_high: f64,
    /// The newest; it grows old when no other comes.
    reading: Option<EngineReading>,
    limiter: Option<Limiter>,
}

impl Control {
    pub(super) fn new(document: &PolicyDocument, now: Tick, meter: &Meter, flow: &Flow) -> Self {
        let tiers = document.tiers.as_ref();
        let limiter = places::concurrency(document)
            .map(|config| Limiter::new(&config, reserved_high(document), now, flow));
        Self {
            tiers: tiers.map(|policy| Tiers::new(policy, now, traffic(meter))),
            throughput: Throughput::new(now, Seen::default()),
            reserved_high: reserved_high(document),
            reading: None,
            limiter,
        }
    }

    pub(super) fn succeed(&self, document: &PolicyDocument, now: Tick, meter: &Meter, flow: &Flow) -> Self {
        let reserved = reserved_high(document);
        let limiter = places::concurrency(document).map(|config| {
            let before = self.limiter.as_ref();
            before.map_or_else(
                || Limiter::new(&config, reserved, now, flow),
                |limiter| limiter.succeed(&config, reserved),
            )
        });
        let tiers = document.tiers.as_ref().map(|policy| {
            let before = self.tiers.as_ref();
            before.map_or_else(
                || Tiers::new(policy, now, traffic(meter)),
                |tiers| tiers.succeed(policy, now, traffic(meter)),
            )
        });
        Self {
            tiers,
            throughput: self.throughput.clone(),
            reserved_high: reserved,
            reading: self.reading,
            limiter,
        }
    }

    pub(super) fn observe(&mut self, now: Tick, signal: Signal, meter: &Meter) {
        if let Signal::Engine(reading) = signal {
            self.reading = Some(reading);
        }
        if let Some(tiers) = &mut self.tiers {
            match signal {
                Signal::GpuMemory(reading) => tiers.observe(now, reading, traffic(meter)),
                Signal::Engine(reading) => tiers.observe_engine(now, reading, traffic(meter)),
            }
        }
    }

    pub(super) fn limiter(&self) -> Option<&Limiter> {
        self.limiter.as_ref()
    }

    pub(super) fn engine_load(&self, now: Tick) -> Option<EngineLoad> {
        let reading = self.reading?;
        Some(EngineLoad {
            kv_cache_usage: reading.kv_cache_usage,
            running: reading.running,
            waiting: reading.waiting,
            preemptions: reading.preemptions,
            age_millis: u64::try_from(now.since(reading.at).as_millis()).unwrap_or(u64::MAX),
        })
    }

    pub(super) fn status(&self, now: Tick) -> Vec<TierStatus> {
        self.tiers.as_ref().map(|tiers| tiers.status(now)).unwrap_or_default()
    }

    pub(super) fn onset(&self) -> Option<f64> {
        self.tiers.as_ref().and_then(Tiers::onset)
    }

    /// Requests that the running sample may still take; None when it has taken too many, or any number will do.
    fn remaining(&self, now: Tick, offered: u64) -> Remaining {
        match self.tiers.as_ref().and_then(Tiers::allowance) {
            None => Remaining::Any,
            Some(allowance) => match allowance.remaining(now, offered) {
                Some(n) => Remaining::Requests(n),
                None => Remaining::Exceeded,
            },
        }
    }

    /// The pressure in the two parts by which it acts on medium: on the rate of requests, and on the places in flight.
    /// Without a limit of places all of it acts on the rate. With one, a ceiling of requests per second acts if
    /// somebody wrote it: a learned one says that demand is unusual, and the limit knows what the engine can take of
    /// it.
    fn pressures(&self) -> (f64, f64) {
        let Some(tiers) = &self.tiers else { return (0.0, 0.0) };
        if self.limiter.is_none() {
            return (tiers.pressure(), 0.0);
        }
        let rate =
            if tiers.has_written_rate() { tiers.pressure_of(|tier| tier == TierName::Qps) } else { 0.0 };
        (rate, tiers.pressure_of(|tier| tier != TierName::Qps))
    }

    fn holding(&self) -> bool {
        self.tiers.as_ref().is_some_and(Tiers::holding)
    }
}

/// What a sample may still take.
enum Remaining {
    Any,
    Requests(u64),
    Exceeded,
}

fn traffic(meter: &Meter) -> Traffic {
    let work = Work { admitted: meter.admitted(), tokens: meter.tokens(), succeeded: meter.succeeded() };
    Traffic { offered: meter.offered(), work }
}

fn reserved_high(document: &PolicyDocument) -> f64 {
    document.priority.reserved_high.map_or(0.0, tidegate_policy::Ratio::get)
}

impl Engine {
    /// Brings the tiers up to `now` and publishes them.
    pub(super) fn refresh(&self, now: Tick, control: &mut Control) {
        let seen = Seen {
            offered: self.meter.offered(),
            admitted: self.meter.admitted(),
            slowed: self.gradient.refused().wrapping_add(self.flow.totals().all_refused()),
        };
        // Before the tiers: what was admitted up to a trip still counts as not held back.
        let holding = control.holding();
        control.throughput.tick(now, seen, holding);
        if let Some(tiers) = &mut control.tiers {
            tiers.regulate(control.limiter.as_ref().is_some_and(Limiter::heeds_the_engine));
            let latencies = self.latencies.as_deref().map(|meter| meter as &dyn LatencySource);
            tiers.tick(now, Traffic { offered: seen.offered, ..traffic(&self.meter) }, latencies);
        }
        self.publish(now, control, seen.offered);
    }

    /// A lane has reached its checkpoint: trips when the running sample has taken more than it may. When somebody
    /// else is at the tiers already, the next request looks again.
    #[cold]
    pub(super) fn look_for_burst(&self, now: Tick, lane: Lane) {
        let Ok(mut control) = self.control.try_lock() else { return };
        match control.remaining(now, self.meter.offered()) {
            Remaining::Any => self.meter.disarm(),
            Remaining::Requests(n) => self.meter.arm_lane(lane, n),
            Remaining::Exceeded => self.refresh(now, &mut control),
        }
    }

    fn move_limit(&self, now: Tick, control: &mut Control, pressure: f64) {
        let (Some(limiter), Some(places)) = (&mut control.limiter, &self.places) else { return };
        let enforced = self.tiers.as_ref().is_some_and(|tiers| tiers.mode == Mode::Enforce);
        let progress = Progress {
            queue: self.queue.waits(),
            pressure: if enforced { pressure } else { 0.0 },
            reading: control.reading,
        };
        places.advise(limiter.tick(now, &self.flow, &self.permits, progress));
    }

    fn publish(&self, now: Tick, control: &mut Control, offered: u64) {
        let (rate, places) = control.pressures();
        self.move_limit(now, control, places);
        let Some(tiers) = &control.tiers else {
            self.gradient.set(0.0, 0.0, 0.0, 0.0);
            self.ramp.set(None, 0.0);
            self.meter.disarm();
            return;
        };
        let reserved = if tiers.shedding() { control.reserved_high } else { 0.0 };
        let base = control.throughput.base(tiers.ceiling(), reserved);
        self.gradient.set(tiers.pressure(), rate, base, control.throughput.demand());
        let grips = tiers.standings().map(|standing| (standing.name, standing.hysteresis.grip()));
        self.ramp.set(grips.max_by(|a, b| a.1.total_cmp(&b.1)), base);
        self.gate.publish(tiers.standings());
        match control.remaining(now, offered) {
            Remaining::Requests(n) => self.meter.arm(n),
            // It has tripped over this sample; the next one is armed when it begins.
            Remaining::Exceeded | Remaining::Any => self.meter.disarm(),
        }
    }
}
