//! The three adaptive tiers of a policy.

mod baseline;
mod estimate;
mod gpu_memory;
mod hysteresis;
mod latency;
mod qps;
mod standing;

use tidegate_policy::report::{TierName, TierStatus};
use tidegate_policy::{Mode, Tiers as Policy};

pub(crate) use gpu_memory::Work;
pub(crate) use latency::Source as LatencySource;
pub(crate) use qps::{Allowance, Counts};
pub(crate) use standing::Standing;

use crate::pressure::{Fusion, Part};
use crate::{EngineReading, GpuMemoryReading, Tick};
use gpu_memory::GpuMemory;
use latency::Latency;
use qps::Qps;

/// What the tiers have seen and learned. Requests never look at it: they read what was published of it.
#[derive(Debug, Clone)]
pub(crate) struct Tiers {
    policy: String,
    mode: Mode,
    qps: Option<Qps>,
    gpu_memory: Option<GpuMemory>,
    latency: Option<Latency>,
    fusion: Fusion,
}

/// What went through the pod, as far as tiers look at it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Traffic {
    /// Requests that arrived.
    pub(crate) offered: u64,
    /// What was made of them.
    pub(crate) work: Work,
}

impl Traffic {
    fn counts(self) -> Counts {
        Counts { offered: self.offered, admitted: self.work.admitted, succeeded: self.work.succeeded }
    }
}

impl Tiers {
    /// Tiers without history. `traffic`: all so far.
    pub(crate) fn new(policy: &Policy, now: Tick, traffic: Traffic) -> Self {
        let recovery = policy.recovery;
        Self {
            policy: policy.policy.clone(),
            mode: policy.mode,
            qps: policy.qps.map(|config| Qps::new(config, recovery, now, traffic.counts())),
            gpu_memory: policy.gpu_memory.map(|config| GpuMemory::new(config, recovery, now)),
            latency: policy.latency.map(|config| Latency::new(config, recovery, now)),
            fusion: Fusion::new(policy.self_calibration, now),
        }
    }

    /// The tiers of the next policy, each with the history of the tier of its kind.
    pub(crate) fn succeed(&self, policy: &Policy, now: Tick, traffic: Traffic) -> Self {
        let recovery = policy.recovery;
        let fresh = Self::new(policy, now, traffic);
        let qps = self.qps.as_ref().zip(policy.qps).map(|(qps, config)| qps.succeed(config, recovery));
        let gpu_memory = self.gpu_memory.as_ref().zip(policy.gpu_memory);
        let latency =
            self.latency.as_ref().zip(policy.latency).filter(|(tier, config)| tier.measures(config));
        Self {
            qps: qps.or(fresh.qps),
            gpu_memory: gpu_memory
                .map(|(tier, config)| tier.succeed(config, recovery, now, traffic.work))
                .or(fresh.gpu_memory),
            latency: latency.map(|(tier, config)| tier.succeed(config, recovery)).or(fresh.latency),
            fusion: self.fusion.succeed(policy.self_calibration, now),
            ..fresh
        }
    }

    /// Says whether a limit of places goes down when the engine's memory is full.
    pub(crate) fn regulate(&mut self, regulated: bool) {
        if let Some(tier) = &mut self.gpu_memory {
            tier.regulate(regulated);
        }
    }

    /// Closes samples and periods that are over, judges ages, recovers. `latencies`: what the latency tier looks
    /// at.
    pub(crate) fn tick(&mut self, now: Tick, traffic: Traffic, latencies: Option<&dyn LatencySource>) {
        self.taint();
        if let Some(tier) = &mut self.qps {
            tier.tick(now, traffic.counts());
            tier.burst(now, traffic.counts());
        }
        if let Some(tier) = &mut self.gpu_memory {
            tier.tick(now, traffic.work);
        }
        if let (Some(tier), Some(source)) = (&mut self.latency, latencies) {
            tier.tick(now, source);
        }
        self.taint();
        let parts = self.parts();
        self.fusion.tick(now, &parts);
    }

    pub(crate) fn observe(&mut self, now: Tick, reading: GpuMemoryReading, traffic: Traffic) {
        let tripped = self.holding();
        if let Some(tier) = &mut self.gpu_memory {
            tier.observe(now, reading, traffic.work, tripped);
        }
        self.taint();
    }

    pub(crate) fn observe_engine(&mut self, now: Tick, reading: EngineReading, traffic: Traffic) {
        if let Some(tier) = &mut self.gpu_memory {
            tier.observe_engine(now, reading, traffic.work);
        }
        self.taint();
    }

    /// What the running sample may take.
    pub(crate) fn allowance(&self) -> Option<Allowance> {
        self.qps.as_ref().and_then(Qps::allowance)
    }

    /// The ceiling of requests per second in force.
    pub(crate) fn ceiling(&self) -> Option<f64> {
        self.qps.as_ref().and_then(Qps::ceiling)
    }

    /// Whether some tier refuses low priority.
    pub(crate) fn shedding(&self) -> bool {
        self.standings().any(|standing| standing.shedding())
    }

    /// Whether some tier holds traffic back: it sheds, or lets low priority back in by degrees.
    pub(crate) fn holding(&self) -> bool {
        self.standings().any(|standing| standing.hysteresis.holding())
    }

    /// The one pressure score.
    pub(crate) fn pressure(&self) -> f64 {
        self.fusion.score(&self.parts())
    }

    /// What of it comes from some of the tiers: no more than the highest of them presses.
    pub(crate) fn pressure_of(&self, chosen: impl Fn(TierName) -> bool) -> f64 {
        let theirs = self.standings().filter(|standing| chosen(standing.name));
        theirs.map(|standing| standing.pressure()).fold(0.0, f64::max).min(self.pressure())
    }

    /// Whether the ceiling of requests per second in force is one that somebody wrote.
    pub(crate) fn has_written_rate(&self) -> bool {
        self.qps.as_ref().is_some_and(Qps::is_written)
    }

    /// The level from which the fused pressure counts, if it calibrates itself.
    pub(crate) fn onset(&self) -> Option<f64> {
        self.fusion.onset()
    }

    /// Every tier that is configured.
    pub(crate) fn standings(&self) -> impl Iterator<Item = Standing<'_>> {
        let qps = self.qps.as_ref().map(Qps::standing);
        let gpu_memory = self.gpu_memory.as_ref().map(GpuMemory::standing);
        let latency = self.latency.as_ref().map(Latency::standing);
        [qps, gpu_memory, latency].into_iter().flatten()
    }

    pub(crate) fn status(&self, now: Tick) -> Vec<TierStatus> {
        let weights = self.fusion.weights(&self.parts());
        let statuses = self.standings().zip(weights).map(|(standing, weight)| TierStatus {
            weight,
            ..self.with_details(standing.status(&self.policy, self.mode, now), now)
        });
        statuses.collect()
    }

    /// What only one kind of tier has to tell.
    fn with_details(&self, status: TierStatus, now: Tick) -> TierStatus {
        match status.tier {
            TierName::Qps => status,
            TierName::GpuMemory => {
                let signals = self.gpu_memory.as_ref().map(|tier| tier.signals(now));
                TierStatus { signals: signals.unwrap_or_default(), ..status }
            }
            TierName::Latency => TierStatus {
                estimate: self.latency.as_ref().map(Latency::estimate),
                overdue: self.latency.as_ref().map(Latency::overdue),
                ..status
            },
        }
    }

    /// Nobody learns from a sample or a period in which some tier is tripped or recovering: what passes then is
    /// what the tiers let pass.
    fn taint(&mut self) {
        if self.holding() {
            self.qps.iter_mut().for_each(Qps::taint);
            self.latency.iter_mut().for_each(Latency::taint);
        }
    }

    fn parts(&self) -> Vec<Part> {
        let part = |standing: Standing<'_>| Part {
            pressure: standing.pressure(),
            tripped: standing.hysteresis.holding(),
        };
        self.standings().map(part).collect()
    }
}
