//! Rules of the tiers.

use std::time::Duration;

use super::Place;
use crate::{GpuMemoryTier, KvCache, LatencyTier, LearnedQps, MemorySource, Millis, QpsTier, Rate, Tiers};

/// Longest latency that a ceiling can be: a day. What is longer is counted as little more than that.
const LONGEST_LATENCY: u64 = 24 * 3600 * 1000;

pub(super) fn check(tiers: &Tiers, at: &mut Place<'_>) {
    if let Some(qps) = &tiers.qps {
        check_qps(qps, &mut at.field("qps"));
    }
    if let Some(gpu) = &tiers.gpu_memory {
        check_gpu_memory(gpu, &mut at.field("gpuMemory"));
    }
    if let Some(latency) = &tiers.latency {
        check_latency(latency, &mut at.field("latency"));
    }
}

fn check_qps(qps: &QpsTier, at: &mut Place<'_>) {
    let samples = qps.window_millis.get() / qps.sample_interval_millis.get();
    if qps.learned.is_none() && qps.max.is_none() {
        at.refuse("nothing to trip at: write learned, max or both");
    }
    if !(2..=3600).contains(&samples) {
        at.field("windowMillis").refuse(format!(
            "{} holds {samples} samples of {} ms: write a window of 2 to 3600 sample intervals",
            qps.window_millis.get(),
            qps.sample_interval_millis.get()
        ));
    } else if let Some(learned) = qps.learned {
        at.field("learned").within("minimumSamples", u64::from(learned.minimum_samples), 2..=samples);
    }
    if let (Some(learned), Some(max)) = (qps.learned, qps.max) {
        check_least(learned, qps.sample_interval_millis, max, &mut at.field("learned"));
    }
}

/// The lower ceiling holds, so a learned one that is never below `max` never does.
fn check_least(learned: LearnedQps, sample: Millis, max: Rate, at: &mut Place<'_>) {
    let (floor, max) = (learned.floor.get(), max.get());
    if floor >= max {
        at.field("floor").refuse(format!(
            "{floor} is not below max, {max}, so that a learned ceiling never holds: write less than {max}, raise max, \
             or leave learned out"
        ));
    }
    let in_sample = max * sample.duration().as_secs_f64();
    if f64::from(learned.minimum_requests) >= in_sample {
        at.field("minimumRequests").refuse(format!(
            "{} in a sample of {} ms are not below max, {max} in a second, so that a learned ceiling never holds: \
             write less than {in_sample}, raise max, or leave learned out",
            learned.minimum_requests,
            sample.get()
        ));
    }
}

fn check_gpu_memory(gpu: &GpuMemoryTier, at: &mut Place<'_>) {
    let no_ceiling = gpu.max_utilization.is_none() && gpu.max_bytes.is_none() && gpu.plateau.is_none();
    if no_ceiling && gpu.source != MemorySource::KvCache {
        at.refuse("nothing to trip at: write maxUtilization, maxBytes, plateau or several of them");
    }
    if gpu.source == MemorySource::KvCache {
        let unasked = [
            ("maxUtilization", gpu.max_utilization.is_some()),
            ("maxBytes", gpu.max_bytes.is_some()),
            ("plateau", gpu.plateau.is_some()),
        ];
        for (field, _) in unasked.into_iter().filter(|(_, written)| *written) {
            at.field(field)
                .refuse("is for NVML, which KvCache does not ask: write source Auto, or leave it out");
        }
    }
    if gpu.max_bytes == Some(0) {
        at.field("maxBytes").refuse("0 is out of range: write a number of bytes, at least 1");
    }
    if gpu.source != MemorySource::KvCache {
        check_age(gpu.stale_after_millis, GpuMemoryTier::READ_EVERY, "NVML", at);
    }
    if gpu.source != MemorySource::Nvml {
        match &gpu.kv_cache {
            Some(kv_cache) => {
                let mut at = at.field("kvCache");
                check_age(kv_cache.stale_after_millis, KvCache::READ_EVERY, "the engine", &mut at);
            }
            None => at
                .field("kvCache")
                .refuse("absent, but asked for by source: write maxUsage, staleAfterMillis and onStale"),
        }
    }
}

/// What is stale before the next reading comes is stale most of the time.
fn check_age(stale_after: Millis, read_every: Duration, who: &str, at: &mut Place<'_>) {
    if stale_after.duration() < read_every {
        at.field("staleAfterMillis").refuse(format!(
            "{} ms are over before {who} is read again, every {every} ms: write at least {every} ms",
            stale_after.get(),
            every = read_every.as_millis()
        ));
    }
}

fn check_latency(latency: &LatencyTier, at: &mut Place<'_>) {
    if latency.learned.is_none() && latency.max_millis.is_none() {
        at.refuse("nothing to trip at: write learned, maxMillis or both");
    }
    if let Some(max) = latency.max_millis {
        at.within("maxMillis", max.get(), 1..=LONGEST_LATENCY);
    }
    at.within("periods", latency.periods, 1..=100);
    at.within("minimumSamples", latency.minimum_samples, 1..=1_000_000);
    if let Some(learned) = latency.learned {
        at.field("learned").within("minimumPeriods", learned.minimum_periods, 1..=1000);
    }
}
