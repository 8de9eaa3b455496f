//! Rules of the tiers.

use super::Place;
use crate::{GpuMemoryTier, LatencyTier, MemorySource, QpsTier, Tiers};

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
}

fn check_gpu_memory(gpu: &GpuMemoryTier, at: &mut Place<'_>) {
    let no_ceiling = gpu.max_utilization.is_none() && gpu.max_bytes.is_none() && gpu.plateau.is_none();
    if no_ceiling && gpu.source != MemorySource::KvCache {
        at.refuse("nothing to trip at: write maxUtilization, maxBytes, plateau or several of them");
    }
    if gpu.max_bytes == Some(0) {
        at.field("maxBytes").refuse("0 is out of range: write a number of bytes, at least 1");
    }
    if gpu.kv_cache.is_none() && gpu.source != MemorySource::Nvml {
        at.field("kvCache")
            .refuse("absent, but asked for by source: write maxUsage, staleAfterMillis and onStale");
    }
}

fn check_latency(latency: &LatencyTier, at: &mut Place<'_>) {
    if latency.learned.is_none() && latency.max_millis.is_none() {
        at.refuse("nothing to trip at: write learned, maxMillis or both");
    }
    at.within("periods", latency.periods, 1..=100);
    at.within("minimumSamples", latency.minimum_samples, 1..=1_000_000);
    if let Some(learned) = latency.learned {
        at.field("learned").within("minimumPeriods", learned.minimum_periods, 1..=1000);
    }
}
