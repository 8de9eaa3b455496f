//! The policy under which the sidecar is measured: everything on, nothing that refuses.

use tidegate_policy::{
    API_VERSION, Algorithm, Breaker, ConsecutiveFailures, Cost, ErrorRatio, Factor, GpuMemoryTier, HalfOpen,
    HeaderName, KeyPart, LatencySignal, LatencyTier, LearnedLatency, LearnedQps, Limit, MemorySource, Millis,
    Mode, OnStale, PolicyDocument, Priority, PriorityClass, PrioritySource, QpsTier, Rate, Ratio, Recovery,
    ScalarError, SlowCallRatio, StatusMatch, Tiers, Trip,
};

const POLICY: &str = "bench/full";

/// Three tiers, priorities, a token bucket and a sliding window by API key and path, and a breaker.
pub fn full() -> Result<PolicyDocument, ScalarError> {
    Ok(PolicyDocument {
        api_version: API_VERSION.to_owned(),
        revision: "bench".to_owned(),
        tiers: Some(tiers()?),
        identity: None,
        priority: Priority {
            from: vec![PrioritySource {
                header: Some(HeaderName::new("x-priority")?),
                ..PrioritySource::default()
            }],
            default: PriorityClass::Medium,
            reserved_high: Some(Ratio::new(0.2)?),
            high_allowed_from: Vec::new(),
            strip_headers: false,
        },
        limits: limits()?,
        limit_memory_bytes: None,
        breaker: Some(breaker()?),
        ..PolicyDocument::default()
    })
}

/// The same, and a budget of tokens that nobody uses up.
pub fn counting() -> Result<PolicyDocument, ScalarError> {
    let mut document = full()?;
    let mut limit = document.limits[0].clone();
    "tokens".clone_into(&mut limit.name);
    limit.cost = Cost::TotalTokens;
    document.limits.push(limit);
    Ok(document)
}

fn tiers() -> Result<Tiers, ScalarError> {
    let learned = LearnedQps {
        sigma: Factor::new(2.0)?,
        factor: Factor::new(1000.0)?,
        floor: Rate::new(5e7)?,
        minimum_samples: 60,
        minimum_requests: 10,
        growth_per_hour: Some(Ratio::new(0.5)?),
        seed: None,
    };
    Ok(Tiers {
        policy: POLICY.to_owned(),
        mode: Mode::Enforce,
        qps: Some(QpsTier {
            sample_interval_millis: Millis::new(1000)?,
            window_millis: Millis::new(300_000)?,
            learned: Some(learned),
            max: Some(Rate::new(1e8)?),
        }),
        gpu_memory: Some(GpuMemoryTier {
            source: MemorySource::Nvml,
            plateau: None,
            kv_cache: None,
            max_utilization: Some(Ratio::new(0.9)?),
            max_bytes: None,
            stale_after_millis: Millis::new(10_000)?,
            on_stale: OnStale::Ignore,
        }),
        latency: Some(LatencyTier {
            signal: LatencySignal::TimeToFirstToken,
            percentile: Ratio::new(0.99)?,
            period_millis: Millis::new(10_000)?,
            periods: 3,
            minimum_samples: 100,
            learned: Some(LearnedLatency { factor: Factor::new(1000.0)?, minimum_periods: 6 }),
            max_millis: Some(Millis::new(60_000)?),
        }),
        recovery: Recovery {
            below_ratio: Ratio::new(0.9)?,
            hold_millis: Millis::new(10_000)?,
            ramp_millis: Some(Millis::new(5000)?),
        },
        self_calibration: false,
    })
}

fn limits() -> Result<Vec<Limit>, ScalarError> {
    let limit = |name: &str, key, algorithm| {
        Ok(Limit {
            policy: POLICY.to_owned(),
            name: name.to_owned(),
            mode: Mode::Enforce,
            key,
            algorithm,
            limit: 1_000_000_000,
            window_millis: Some(Millis::new(60_000)?),
            cost: Cost::Requests,
            max_keys: None,
            when: Vec::new(),
            on_exhausted: tidegate_policy::OnExhausted::EndStream,
        })
    };
    let by_key = || Ok(KeyPart::Header(HeaderName::new("x-api-key")?));
    Ok(vec![
        limit("per-key", vec![by_key()?], Algorithm::TokenBucket { burst: 1_000_000_000, initial: None })?,
        limit(
            "per-key-and-path",
            vec![by_key()?, KeyPart::Path],
            Algorithm::SlidingWindow { sub_windows: 10 },
        )?,
    ])
}

fn breaker() -> Result<Breaker, ScalarError> {
    Ok(Breaker {
        policy: POLICY.to_owned(),
        mode: Mode::Enforce,
        trip: Trip {
            consecutive_failures: Some(ConsecutiveFailures { count: 5 }),
            error_ratio: Some(ErrorRatio {
                threshold: Ratio::new(0.5)?,
                window_millis: Some(Millis::new(30_000)?),
                window_calls: None,
                minimum_requests: 20,
            }),
            slow_call_ratio: Some(SlowCallRatio {
                threshold: Ratio::new(0.9)?,
                slower_than_millis: Millis::new(30_000)?,
                window_millis: Some(Millis::new(10_000)?),
                window_calls: None,
                minimum_requests: 20,
            }),
            ..Trip::default()
        },
        failure_statuses: StatusMatch::FAILURES.to_vec(),
        backpressure_statuses: StatusMatch::BACKPRESSURE.to_vec(),
        per: None,
        stages: Vec::new(),
        open_millis: Millis::new(60_000)?,
        half_open: HalfOpen { probes: 1, ramp_millis: Some(Millis::new(6000)?) },
        timeout_millis: Some(Millis::new(60_000)?),
        timeouts: tidegate_policy::Timeouts::default(),
        fallback: None,
        fallbacks: None,
        hooks: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_policies_of_the_benchmark_are_valid() {
        super::full().unwrap().validate().unwrap();
        super::counting().unwrap().validate().unwrap();
    }
}
