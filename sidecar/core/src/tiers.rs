//! The three adaptive tiers of a policy.

mod gpu_memory;
mod hysteresis;
mod latency;
mod qps;
mod standing;

use tidegate_policy::report::TierStatus;
use tidegate_policy::{Mode, Tiers as Policy};

pub(crate) use qps::Allowance;
pub(crate) use standing::Standing;

use crate::histogram::Drained;
use crate::{GpuMemoryReading, Tick};
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
}

impl Tiers {
    /// Tiers without history. `offered`: all requests so far.
    pub(crate) fn new(policy: &Policy, now: Tick, offered: u64) -> Self {
        let recovery = policy.recovery;
        Self {
            policy: policy.policy.clone(),
            mode: policy.mode,
            qps: policy.qps.map(|config| Qps::new(config, recovery, now, offered)),
            gpu_memory: policy.gpu_memory.map(|config| GpuMemory::new(config, recovery, now)),
            latency: policy.latency.map(|config| Latency::new(config, recovery, now)),
        }
    }

    /// The tiers of the next policy, each with the history of the tier of its kind.
    pub(crate) fn succeed(&self, policy: &Policy, now: Tick, offered: u64) -> Self {
        let recovery = policy.recovery;
        let fresh = Self::new(policy, now, offered);
        let qps = self.qps.as_ref().zip(policy.qps).map(|(qps, config)| qps.succeed(config, recovery));
        let gpu_memory = self.gpu_memory.as_ref().zip(policy.gpu_memory);
        let latency =
            self.latency.as_ref().zip(policy.latency).filter(|(tier, config)| tier.measures(config));
        Self {
            qps: qps.or(fresh.qps),
            gpu_memory: gpu_memory
                .map(|(tier, config)| tier.succeed(config, recovery, now))
                .or(fresh.gpu_memory),
            latency: latency.map(|(tier, config)| tier.succeed(config, recovery)).or(fresh.latency),
            ..fresh
        }
    }

    /// Closes samples and periods that are over, judges ages, recovers.
    pub(crate) fn tick(&mut self, now: Tick, offered: u64, drain: impl FnOnce() -> Option<Drained>) {
        if let Some(tier) = &mut self.qps {
            tier.tick(now, offered);
        }
        if let Some(tier) = &mut self.gpu_memory {
            tier.tick(now);
        }
        if let Some(tier) = &mut self.latency {
            tier.tick(now, drain);
        }
    }

    pub(crate) fn observe(&mut self, now: Tick, reading: GpuMemoryReading) {
        if let Some(tier) = &mut self.gpu_memory {
            tier.observe(now, reading);
        }
    }

    /// Trips the tier of requests per second when the running sample has taken more than it may.
    pub(crate) fn burst(&mut self, now: Tick, offered: u64) {
        if let Some(tier) = &mut self.qps {
            tier.burst(now, offered);
        }
    }

    /// What the running sample may take.
    pub(crate) fn allowance(&self) -> Option<Allowance> {
        self.qps.as_ref().and_then(Qps::allowance)
    }

    /// The ceiling of requests per second in force.
    pub(crate) fn ceiling(&self) -> Option<f64> {
        self.qps.as_ref().and_then(Qps::ceiling)
    }

    /// Every tier that is configured.
    pub(crate) fn standings(&self) -> impl Iterator<Item = Standing<'_>> {
        let qps = self.qps.as_ref().map(Qps::standing);
        let gpu_memory = self.gpu_memory.as_ref().map(GpuMemory::standing);
        let latency = self.latency.as_ref().map(Latency::standing);
        [qps, gpu_memory, latency].into_iter().flatten()
    }

    pub(crate) fn status(&self, now: Tick) -> Vec<TierStatus> {
        self.standings().map(|standing| standing.status(&self.policy, self.mode, now)).collect()
    }
}
