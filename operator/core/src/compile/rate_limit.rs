//! The parts of a `RateLimitPolicy`.

mod limit;
mod plans;
mod priority;
mod when;

use std::collections::BTreeSet;

use tidegate_crds::{
    self as crd, GpuMemoryTier, KeyPart, LatencySignal, LatencyTier, MemorySource, OnStale, QpsTier,
    RateLimitPolicySpec,
};
use tidegate_policy as document;

use super::identity::identity;
use super::problems::{Problems, optional};
use super::scalar::{bytes, count, count32, factor, header, is_label, millis, mode, percentile, rate, ratio};
use super::{Parts, concurrency};

const MOST_REQUESTS: i64 = 1_000_000_000;
const MOST_KEYS: i32 = document::Limit::MOST_KEYS.cast_signed();

pub(super) fn parts(policy: &str, spec: &RateLimitPolicySpec, problems: &mut Problems) -> Option<Parts> {
    let one = spec.tiers.is_some() || spec.identity.is_some() || spec.priority.is_some();
    let shares = spec.concurrency.is_some() || spec.queue.is_some();
    if !one && !shares && spec.limits.is_empty() && spec.plans.is_none() {
        problems.add("spec", RateLimitPolicySpec::NOTHING);
    }
    let mode = mode(spec.mode);
    let tiers = optional(spec.tiers.as_ref(), |spec| tiers(policy, mode, spec, problems));
    let identity = optional(spec.identity.as_ref(), |spec| identity(policy, mode, spec, problems));
    let priority = optional(spec.priority.as_ref(), |spec| priority::priority(spec, problems));
    let mut limits = limits(policy, mode, &spec.limits, problems);
    if let Some(spec) = &spec.plans {
        let plans = plans::limits(policy, mode, spec, problems);
        limits = limits.zip(plans).map(|(limits, plans)| [limits, plans].concat());
    }
    let concurrency =
        optional(spec.concurrency.as_ref(), |spec| concurrency::concurrency(policy, mode, spec, problems));
    let queue = optional(spec.queue.as_ref(), |spec| concurrency::queue(policy, mode, spec, problems));
    Some(Parts {
        tiers: tiers?,
        identity: identity?,
        priority: priority?,
        limits: limits?,
        breaker: None,
        concurrency: concurrency?,
        queue: queue?,
        rate_limit_headers: spec.rate_limit_headers.map(rate_limit_headers),
    })
}

const fn rate_limit_headers(spec: crd::RateLimitHeaders) -> document::RateLimitHeaders {
    match spec {
        crd::RateLimitHeaders::Always => document::RateLimitHeaders::Always,
        crd::RateLimitHeaders::OnRefusal => document::RateLimitHeaders::OnRefusal,
        crd::RateLimitHeaders::Never => document::RateLimitHeaders::Never,
    }
}

fn tiers(
    policy: &str,
    mode: document::Mode,
    spec: &crd::Tiers,
    problems: &mut Problems,
) -> Option<document::Tiers> {
    if spec.qps.is_none() && spec.gpu_memory.is_none() && spec.latency.is_none() {
        problems.add("spec.tiers", crd::Tiers::NONE);
    }
    let qps = optional(spec.qps.as_ref(), |spec| qps(spec, problems));
    let gpu_memory = optional(spec.gpu_memory.as_ref(), |spec| gpu_memory(spec, problems));
    let latency = optional(spec.latency.as_ref(), |spec| latency(spec, problems));
    let below = problems.keep("spec.tiers.recovery.below", ratio(&spec.recovery.below));
    let hold = problems.keep("spec.tiers.recovery.hold", millis(&spec.recovery.hold));
    let ramp = problems.keep("spec.tiers.recovery.ramp", millis(&spec.recovery.ramp));
    Some(document::Tiers {
        policy: policy.to_owned(),
        mode,
        qps: qps?,
        gpu_memory: gpu_memory?,
        latency: latency?,
        recovery: document::Recovery { below_ratio: below?, hold_millis: hold?, ramp_millis: Some(ramp?) },
        self_calibration: spec.self_calibration == crd::SelfCalibration::Enabled,
    })
}

fn qps(spec: &QpsTier, problems: &mut Problems) -> Option<document::QpsTier> {
    if spec.learned.is_none() && spec.max.is_none() {
        problems.add("spec.tiers.qps", QpsTier::NONE);
    }
    let interval = problems.keep("spec.tiers.qps.sampleInterval", millis(&spec.sample_interval));
    let window = problems.keep("spec.tiers.qps.window", millis(&spec.window));
    let learned = optional(spec.learned.as_ref(), |spec| learned_qps(spec, problems));
    let max = optional(spec.max.as_ref(), |max| problems.keep("spec.tiers.qps.max", rate(max)));
    let tier = document::QpsTier {
        sample_interval_millis: interval?,
        window_millis: window?,
        learned: learned?,
        max: max?,
    };
    check_samples(&tier, problems);
    Some(tier)
}

fn check_samples(tier: &document::QpsTier, problems: &mut Problems) {
    let samples = tier.window_millis.get() / tier.sample_interval_millis.get();
    if samples < 2 {
        problems.add("spec.tiers.qps.window", QpsTier::WINDOW);
    } else if samples > 3600 {
        let message = format!(
            "{samples} samples are too many: write a window of at most 3600 times the sampleInterval"
        );
        problems.add("spec.tiers.qps.window", message);
    } else if let Some(learned) = tier.learned
        && u64::from(learned.minimum_samples) > samples
    {
        let message = format!(
            "{} samples never fit into the window: write 2 to {samples}, or a longer window",
            learned.minimum_samples
        );
        problems.add("spec.tiers.qps.learned.minimumSamples", message);
    }
}

fn learned_qps(spec: &crd::LearnedQps, problems: &mut Problems) -> Option<document::LearnedQps> {
    let sigma = problems.keep("spec.tiers.qps.learned.sigma", factor(&spec.sigma));
    let factor = problems.keep("spec.tiers.qps.learned.factor", factor(&spec.factor));
    let floor = problems.keep("spec.tiers.qps.learned.floor", rate(&spec.floor));
    let samples = count32(spec.minimum_samples, 2, 3600);
    let samples = problems.keep("spec.tiers.qps.learned.minimumSamples", samples);
    let requests = count32(spec.minimum_requests, 0, 1_000_000);
    let requests = problems.keep("spec.tiers.qps.learned.minimumRequests", requests);
    let growth = problems.keep("spec.tiers.qps.learned.growthPerHour", ratio(&spec.growth_per_hour));
    Some(document::LearnedQps {
        sigma: sigma?,
        factor: factor?,
        floor: floor?,
        minimum_samples: samples?,
        minimum_requests: requests?,
        growth_per_hour: Some(growth?),
        seed: None,
    })
}

fn gpu_memory(spec: &GpuMemoryTier, problems: &mut Problems) -> Option<document::GpuMemoryTier> {
    let nothing = spec.max_utilization.is_none() && spec.max_bytes.is_none() && spec.plateau.is_none();
    if nothing && spec.source != MemorySource::KvCache {
        problems.add("spec.tiers.gpuMemory", GpuMemoryTier::NONE);
    }
    let utilization = optional(spec.max_utilization.as_ref(), |share| {
        problems.keep("spec.tiers.gpuMemory.maxUtilization", ratio(share))
    });
    let amount = optional(spec.max_bytes.as_ref(), |amount| {
        problems.keep("spec.tiers.gpuMemory.maxBytes", bytes(amount))
    });
    let plateau = optional(spec.plateau.as_ref(), |spec| plateau(spec, problems));
    let kv_cache = kv_cache(&spec.kv_cache, problems);
    if spec.source == MemorySource::Nvml && spec.kv_cache != crd::KvCache::default() {
        problems.add("spec.tiers.gpuMemory.kvCache", GpuMemoryTier::ENGINE_UNASKED);
    }
    let stale_after = problems.keep("spec.tiers.gpuMemory.staleAfter", millis(&spec.stale_after));
    let source = match spec.source {
        MemorySource::Nvml => document::MemorySource::Nvml,
        MemorySource::KvCache => document::MemorySource::KvCache,
        MemorySource::Auto => document::MemorySource::Auto,
    };
    Some(document::GpuMemoryTier {
        source,
        max_utilization: utilization?,
        max_bytes: amount?,
        plateau: plateau?,
        kv_cache: Some(kv_cache?).filter(|_| source != document::MemorySource::Nvml),
        stale_after_millis: stale_after?,
        on_stale: on_stale(spec.on_stale),
    })
}

fn plateau(spec: &crd::Plateau, problems: &mut Problems) -> Option<document::Plateau> {
    let stable = problems.keep("spec.tiers.gpuMemory.plateau.stableFor", millis(&spec.stable_for));
    let growth = problems.keep("spec.tiers.gpuMemory.plateau.growth", ratio(&spec.growth));
    Some(document::Plateau { stable_millis: stable?, growth: growth? })
}

fn kv_cache(spec: &crd::KvCache, problems: &mut Problems) -> Option<document::KvCache> {
    let usage = problems.keep("spec.tiers.gpuMemory.kvCache.maxUsage", ratio(&spec.max_usage));
    let stale_after = problems.keep("spec.tiers.gpuMemory.kvCache.staleAfter", millis(&spec.stale_after));
    Some(document::KvCache {
        max_usage: usage?,
        stale_after_millis: stale_after?,
        on_stale: on_stale(spec.on_stale),
    })
}

const fn on_stale(on_stale: OnStale) -> document::OnStale {
    match on_stale {
        OnStale::Ignore => document::OnStale::Ignore,
        OnStale::HoldLast => document::OnStale::HoldLast,
        OnStale::Trip => document::OnStale::Trip,
    }
}

fn latency(spec: &LatencyTier, problems: &mut Problems) -> Option<document::LatencyTier> {
    if spec.learned.is_none() && spec.max.is_none() {
        problems.add("spec.tiers.latency", LatencyTier::NONE);
    }
    let percentile = problems.keep("spec.tiers.latency.percentile", percentile(&spec.percentile));
    let period = problems.keep("spec.tiers.latency.period", millis(&spec.period));
    let periods = problems.keep("spec.tiers.latency.periods", count32(spec.periods, 1, 100));
    let samples = count32(spec.minimum_samples, 1, 1_000_000);
    let samples = problems.keep("spec.tiers.latency.minimumSamples", samples);
    let learned = optional(spec.learned.as_ref(), |spec| learned_latency(spec, problems));
    let max = optional(spec.max.as_ref(), |max| problems.keep("spec.tiers.latency.max", millis(max)));
    Some(document::LatencyTier {
        signal: signal(spec.signal),
        percentile: percentile?,
        period_millis: period?,
        periods: periods?,
        minimum_samples: samples?,
        learned: learned?,
        max_millis: max?,
    })
}

pub(super) const fn signal(signal: LatencySignal) -> document::LatencySignal {
    match signal {
        LatencySignal::TotalLatency => document::LatencySignal::TotalLatency,
        LatencySignal::TimeToFirstToken => document::LatencySignal::TimeToFirstToken,
        LatencySignal::TimePerOutputToken => document::LatencySignal::TimePerOutputToken,
    }
}

fn learned_latency(spec: &crd::LearnedLatency, problems: &mut Problems) -> Option<document::LearnedLatency> {
    let factor = problems.keep("spec.tiers.latency.learned.factor", factor(&spec.factor));
    let periods = count32(spec.minimum_periods, 1, 1000);
    let periods = problems.keep("spec.tiers.latency.learned.minimumPeriods", periods);
    Some(document::LearnedLatency { factor: factor?, minimum_periods: periods? })
}

fn limits(
    policy: &str,
    mode: document::Mode,
    specs: &[crd::Limit],
    problems: &mut Problems,
) -> Option<Vec<document::Limit>> {
    let mut names = BTreeSet::new();
    let limits: Vec<_> = specs
        .iter()
        .enumerate()
        .map(|(i, spec)| {
            let field = format!("spec.limits[{i}]");
            if !is_label(&spec.name, |first| first.is_ascii_alphanumeric()) {
                problems.add(format!("{field}.name"), format!("{:?} is {}", spec.name, crd::Limit::NAME));
            }
            if !names.insert(spec.name.as_str()) {
                let message = format!("{:?} is there twice: give every limit a name of its own", spec.name);
                problems.add(format!("{field}.name"), message);
            }
            limit(policy, mode, &field, spec, problems)
        })
        .collect();
    limits.into_iter().collect()
}

fn limit(
    policy: &str,
    mode: document::Mode,
    field: &str,
    spec: &crd::Limit,
    problems: &mut Problems,
) -> Option<document::Limit> {
    let key: Vec<_> = spec
        .key
        .iter()
        .enumerate()
        .map(|(i, part)| problems.keep(format!("{field}.key[{i}]"), key_part(part)))
        .collect();
    let when = when::when(field, &spec.when, problems);
    let algorithm = problems.keep(field, limit::algorithm(spec));
    let cost = limit::cost(field, spec, problems);
    let limit = problems.keep(format!("{field}.limit"), count(spec.limit, 1, MOST_REQUESTS));
    let window =
        optional(spec.window.as_ref(), |window| problems.keep(format!("{field}.window"), millis(window)));
    let keys = optional(spec.max_keys, |keys| {
        problems.keep(format!("{field}.maxKeys"), count32(keys, 1, MOST_KEYS))
    });
    Some(document::Limit {
        policy: policy.to_owned(),
        name: spec.name.clone(),
        mode,
        key: key.into_iter().collect::<Option<_>>()?,
        when: when?,
        algorithm: algorithm?,
        limit: limit?,
        window_millis: window?,
        cost: cost?,
        max_keys: keys?,
        on_exhausted: match spec.on_exhausted {
            None | Some(crd::OnExhausted::EndStream) => document::OnExhausted::EndStream,
            Some(crd::OnExhausted::Finish) => document::OnExhausted::Finish,
        },
    })
}

pub(super) fn key_part(part: &KeyPart) -> Result<document::KeyPart, String> {
    match (&part.header, &part.jwt_claim, part.source) {
        (Some(name), None, None) => header(name).map(document::KeyPart::Header),
        (None, Some(claim), None) => Ok(document::KeyPart::JwtClaim(claim.clone())),
        (None, None, Some(crd::KeySource::Method)) => Ok(document::KeyPart::Method),
        (None, None, Some(crd::KeySource::Path)) => Ok(document::KeyPart::Path),
        (None, None, Some(crd::KeySource::ClientIP)) => Ok(document::KeyPart::ClientIp),
        (None, None, Some(crd::KeySource::Model)) => Ok(document::KeyPart::Model),
        _ => Err(KeyPart::EXACTLY_ONE.to_owned()),
    }
}
