use std::sync::LazyLock;

use serde::de::DeserializeOwned;
use tidegate_policy::{
    Algorithm, AnswerCache, ApiKeys, Better, Breaker, Claimant, ClientIp, Condition, ConsecutiveFailures,
    Cost, Destination, ErrorRatio, Factor, Fallback, FallbackOn, FallbackPath, Fallbacks, ForwardedBy,
    GpuMemoryTier, HalfOpen, HeaderName, Hook, HookEvent, HookMode, HttpUrl, Identity, InFlight,
    JwtAlgorithm, JwtIssuer, JwtKeys, KeyPart, KvCache, LatencyPercentile, LatencySignal, LatencyTier,
    LearnedLatency, LearnedQps, Limit, Match, MemorySource, Millis, Mode, Number, OnExhausted, OnStale,
    OutOfMemory, Per, Plateau, Priority, PriorityClass, PrioritySource, QpsTier, Rate, RateLimitHeaders,
    Ratio, Recovery, RelativePath, SlowCallRatio, Stage, StageBreaker, StaticAnswer, StatusMatch, Subject,
    Tiers, Timeouts, TokenWeights, Trip, Weight,
};

use super::*;
use crate::key::{Front, FrontKind, Workload, WorkloadKind};
use crate::target::TargetObject;

fn parse<T: DeserializeOwned>(kind: &str, spec: &str) -> T {
    let yaml = format!(
        "apiVersion: tidegate.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: llama, namespace: inference}}\nspec: {spec}"
    );
    serde_saphyr::from_str(&yaml).unwrap_or_else(|error| panic!("{error}\n{yaml}"))
}

fn rate_limit_of(spec: &str) -> Result<CompiledPolicy, Problems> {
    rate_limit(&parse("RateLimitPolicy", spec))
}

fn breaker_of(spec: &str) -> Result<CompiledPolicy, Problems> {
    circuit_breaker(&parse("CircuitBreakerPolicy", spec))
}

fn millis(number: u64) -> Millis {
    Millis::new(number).unwrap()
}

fn ratio(number: f64) -> Ratio {
    Ratio::new(number).unwrap()
}

fn factor(number: f64) -> Factor {
    Factor::new(number).unwrap()
}

fn rate(number: f64) -> Rate {
    Rate::new(number).unwrap()
}

fn header(name: &str) -> HeaderName {
    HeaderName::new(name).unwrap()
}

#[test]
fn tiers_take_the_defaults_of_the_field() {
    let compiled =
        rate_limit_of("{tiers: {qps: {learned: {}}, gpuMemory: {maxBytes: 32Gi}, latency: {max: 8s}}}");
    assert_eq!(
        compiled.unwrap().parts,
        Parts {
            tiers: Some(Tiers {
                policy: "inference/llama".to_owned(),
                mode: Mode::Enforce,
                qps: Some(QpsTier {
                    sample_interval_millis: millis(1000),
                    window_millis: millis(300_000),
                    learned: Some(LearnedQps {
                        sigma: factor(2.0),
                        factor: factor(1.5),
                        floor: rate(10.0),
                        minimum_samples: 60,
                        minimum_requests: 10,
                        growth_per_hour: Some(ratio(0.5)),
                        seed: None,
                    }),
                    max: None,
                }),
                gpu_memory: Some(GpuMemoryTier {
                    source: MemorySource::Nvml,
                    max_utilization: None,
                    max_bytes: Some(32 << 30),
                    plateau: None,
                    kv_cache: None,
                    stale_after_millis: millis(10_000),
                    on_stale: OnStale::Ignore,
                }),
                latency: Some(LatencyTier {
                    signal: LatencySignal::TimeToFirstToken,
                    percentile: ratio(0.99),
                    period_millis: millis(10_000),
                    periods: 3,
                    minimum_samples: 100,
                    learned: None,
                    max_millis: Some(millis(8000)),
                }),
                recovery: Recovery {
                    below_ratio: ratio(0.9),
                    hold_millis: millis(10_000),
                    ramp_millis: Some(millis(5000)),
                },
                self_calibration: false,
            }),
            ..Parts::default()
        }
    );
}

#[test]
fn every_field_of_the_tiers_reaches_the_document() {
    let compiled = rate_limit_of(
        "
  mode: Shadow
  tiers:
    qps: {max: 400, learned: {sigma: 3, factor: '1.25', floor: '0.5', minimumSamples: 10, minimumRequests: 5, growthPerHour: 20%}, sampleInterval: 500ms, window: 1m}
    gpuMemory: {source: Auto, maxUtilization: 75%, staleAfter: 4s, onStale: HoldLast, plateau: {stableFor: 30s, growth: 25%}, kvCache: {maxUsage: 95%, staleAfter: 3s, onStale: Trip}}
    latency: {signal: TotalLatency, percentile: '99.9', period: 5s, periods: 2, minimumSamples: 7, learned: {factor: '1.8', minimumPeriods: 4}}
    recovery: {below: 80%, hold: 1m30s, ramp: 20s}
    selfCalibration: Enabled",
    );
    assert_eq!(
        compiled.unwrap().parts.tiers,
        Some(Tiers {
            policy: "inference/llama".to_owned(),
            mode: Mode::Shadow,
            qps: Some(QpsTier {
                sample_interval_millis: millis(500),
                window_millis: millis(60_000),
                learned: Some(LearnedQps {
                    sigma: factor(3.0),
                    factor: factor(1.25),
                    floor: rate(0.5),
                    minimum_samples: 10,
                    minimum_requests: 5,
                    growth_per_hour: Some(ratio(0.2)),
                    seed: None,
                }),
                max: Some(rate(400.0)),
            }),
            gpu_memory: Some(GpuMemoryTier {
                source: MemorySource::Auto,
                max_utilization: Some(ratio(0.75)),
                max_bytes: None,
                plateau: Some(Plateau { stable_millis: millis(30_000), growth: ratio(0.25) }),
                kv_cache: Some(KvCache {
                    max_usage: ratio(0.95),
                    stale_after_millis: millis(3000),
                    on_stale: OnStale::Trip,
                }),
                stale_after_millis: millis(4000),
                on_stale: OnStale::HoldLast,
            }),
            latency: Some(LatencyTier {
                signal: LatencySignal::TotalLatency,
                percentile: ratio(99.9 / 100.0),
                period_millis: millis(5000),
                periods: 2,
                minimum_samples: 7,
                learned: Some(LearnedLatency { factor: factor(1.8), minimum_periods: 4 }),
                max_millis: None,
            }),
            recovery: Recovery {
                below_ratio: ratio(0.8),
                hold_millis: millis(90_000),
                ramp_millis: Some(millis(20_000)),
            },
            self_calibration: true,
        })
    );
}

#[test]
fn priority_without_fields_is_that_of_a_pod_without_policy() {
    assert_eq!(rate_limit_of("{priority: {}}").unwrap().parts.priority, Some(Priority::default()));
}

#[test]
fn every_field_of_the_priority_reaches_the_document() {
    let compiled = rate_limit_of(
        "
  priority:
    from: [{header: X-Tier, map: {platinum: High, silver: Low}}, {header: X-Priority}, {header: x-request-priority, number: {high: -1, medium: 5}}]
    stripHeaders: Enabled
    default: Low
    reserved: {high: 0%}
    highAllowedFrom: [{cidr: 10.0.0.0/8}, {header: {name: X-Team, value: search}}]",
    );
    let map = [("platinum", PriorityClass::High), ("silver", PriorityClass::Low)];
    assert_eq!(
        compiled.unwrap().parts.priority,
        Some(Priority {
            from: vec![
                PrioritySource {
                    header: Some(header("x-tier")),
                    map: map.map(|(value, class)| (value.to_owned(), class)).into(),
                    ..PrioritySource::default()
                },
                PrioritySource { header: Some(header("x-priority")), ..PrioritySource::default() },
                PrioritySource {
                    header: Some(header("x-request-priority")),
                    number: Some(Number { better: Better::Lower, high: Some(-1), medium: 5 }),
                    ..PrioritySource::default()
                },
            ],
            default: PriorityClass::Low,
            reserved_high: None,
            high_allowed_from: vec![
                Claimant { cidr: Some("10.0.0.0/8".to_owned()), header: None, value: None },
                Claimant { cidr: None, header: Some(header("x-team")), value: Some("search".to_owned()) },
            ],
            strip_headers: true,
        })
    );
}

#[test]
fn a_window_that_nobody_divides_takes_one_cache_line_for_each_key() {
    let compiled = rate_limit_of(
        "
  limits:
  - {name: usual, key: [{header: a}], algorithm: SlidingWindow, limit: 2000000, window: 1m}
  - {name: high, key: [{header: b}], algorithm: SlidingWindow, limit: 5000000, window: 1m}
  - {name: fine, key: [{header: c}], algorithm: SlidingWindow, limit: 5000000, window: 1m, subWindows: 10}",
    );
    let limits = compiled.unwrap().parts.limits;
    let seen: Vec<_> = limits.iter().map(|limit| (limit.algorithm, limit.key_bytes())).collect();
    let parts = |sub_windows| Algorithm::SlidingWindow { sub_windows };
    assert_eq!(seen, [(parts(10), 64), (parts(6), 64), (parts(10), 128)]);
}

#[test]
fn limits_count_by_their_keys() {
    let compiled = rate_limit_of(
        "
  limits:
  - {name: per-user, key: [{header: X-Api-Key}, {source: Path}], limit: 600, window: 1m, burst: 100}
  - {name: per-client, key: [{source: ClientIP}], algorithm: SlidingWindow, limit: 50, window: 10s, subWindows: 5}
  - {name: whole-pod, limit: 900, window: 1s}
  - {name: sliding, algorithm: SlidingWindow, limit: 800, window: 1s}",
    );
    let limit = |name: &str, key: Vec<KeyPart>, algorithm, limit, window| Limit {
        policy: "inference/llama".to_owned(),
        name: name.to_owned(),
        mode: Mode::Enforce,
        key,
        algorithm,
        limit,
        window_millis: Some(millis(window)),
        cost: Cost::Requests,
        max_keys: None,
        when: Vec::new(),
        on_exhausted: tidegate_policy::OnExhausted::EndStream,
    };
    assert_eq!(
        compiled.unwrap().parts.limits,
        [
            limit(
                "per-user",
                vec![KeyPart::Header(header("x-api-key")), KeyPart::Path],
                Algorithm::TokenBucket { burst: 100, initial: None },
                600,
                60_000
            ),
            limit(
                "per-client",
                vec![KeyPart::ClientIp],
                Algorithm::SlidingWindow { sub_windows: 5 },
                50,
                10_000
            ),
            limit("whole-pod", vec![], Algorithm::TokenBucket { burst: 900, initial: None }, 900, 1000),
            limit("sliding", vec![], Algorithm::SlidingWindow { sub_windows: 10 }, 800, 1000),
        ]
    );
}

#[test]
fn tokens_are_counted_as_the_policy_says() {
    let limit = |limit: &str| {
        let policy = rate_limit_of(&format!("{{limits: [{{name: a, limit: 20, window: 1m, {limit}}}]}}"));
        policy.map(|compiled| compiled.parts.limits[0].clone()).map_err(|problems| problems.to_string())
    };
    let weight = |value| Weight::new(value).unwrap();
    let weights = TokenWeights { input: weight(1.0), cached: weight(0.1), output: weight(4.0) };
    for (written, cost) in [
        ("cost: Requests", Cost::Requests),
        ("cost: PromptTokens", Cost::PromptTokens),
        ("cost: TotalTokens", Cost::TotalTokens),
        ("cost: WeightedTokens, weights: {cached: '0.1', output: 4}", Cost::Tokens(weights)),
    ] {
        assert_eq!(limit(written).unwrap().cost, cost, "{written}");
    }
    assert_eq!(limit("key: [{source: Model}]").unwrap().key, [KeyPart::Model]);
    let on_exhausted = |written: &str| limit(written).unwrap().on_exhausted;
    assert_eq!(on_exhausted("cost: TotalTokens"), OnExhausted::EndStream);
    assert_eq!(on_exhausted("cost: TotalTokens, onExhausted: Finish"), OnExhausted::Finish);
    for (written, message) in [
        ("cost: WeightedTokens", tidegate_crds::Limit::WEIGHTS),
        ("weights: {}", tidegate_crds::Limit::WEIGHTS),
        ("onExhausted: Finish", tidegate_crds::Limit::ON_EXHAUSTED),
        ("cost: TotalTokens, algorithm: SlidingLog", tidegate_crds::Limit::LOGGED_TOKENS),
    ] {
        assert_eq!(limit(written), Err(format!("spec.limits[0]: {message}")), "{written}");
    }
    let problem = limit("cost: WeightedTokens, weights: {output: 1001}").unwrap_err();
    assert!(problem.starts_with("spec.limits[0].weights.output: 1001 is out of range"), "{problem}");
}

#[test]
fn every_algorithm_compiles_with_its_own_fields_alone() {
    let algorithm = |limit: &str| {
        let policy = rate_limit_of(&format!("{{limits: [{{name: a, limit: 20, {limit}}}]}}"));
        policy.map(|compiled| compiled.parts.limits[0].algorithm).map_err(|problems| problems.to_string())
    };
    let wait = Some(millis(2000));
    for (limit, expected) in [
        ("window: 1s, initial: 5", Algorithm::TokenBucket { burst: 20, initial: Some(5) }),
        ("window: 1s, algorithm: SlidingLog", Algorithm::SlidingLog),
        ("window: 1s, algorithm: FixedWindow", Algorithm::FixedWindow),
        ("window: 1s, algorithm: LeakyBucket", Algorithm::LeakyBucket { burst: 20, max_wait_millis: None }),
        (
            "window: 1s, algorithm: LeakyBucket, burst: 9, maxWait: 2s",
            Algorithm::LeakyBucket { burst: 9, max_wait_millis: wait },
        ),
        ("algorithm: Concurrency", Algorithm::Concurrency),
    ] {
        assert_eq!(algorithm(limit), Ok(expected), "{limit}");
    }
    for (limit, message) in [
        ("algorithm: FixedWindow", tidegate_crds::Limit::WINDOW),
        ("algorithm: Concurrency, window: 1s", tidegate_crds::Limit::WINDOW),
        ("window: 1s, algorithm: SlidingLog, burst: 3", tidegate_crds::Limit::BURST),
        ("window: 1s, algorithm: LeakyBucket, initial: 3", tidegate_crds::Limit::INITIAL),
        ("window: 1s, initial: 21", tidegate_crds::Limit::TOO_FULL),
        ("window: 1s, maxWait: 1s", tidegate_crds::Limit::MAX_WAIT),
        ("window: 1s, algorithm: FixedWindow, subWindows: 3", tidegate_crds::Limit::SUB_WINDOWS),
    ] {
        assert_eq!(algorithm(limit), Err(format!("spec.limits[0]: {message}")), "{limit}");
    }
}

#[test]
fn a_limit_that_another_hides_is_a_problem_of_the_policy() {
    let problems = rate_limit_of(
        "
  limits:
  - {name: per-user, key: [{header: x-api-key}], limit: 100, window: 1s}
  - {name: pod, limit: 50, window: 1s}",
    )
    .unwrap_err()
    .to_string();
    assert!(
        problems.contains("limits[0].limit: 100 is never reached, since \"pod\" admits less"),
        "{problems}"
    );
}

#[test]
fn the_short_form_is_a_breaker_for_the_pods_behind_a_service() {
    let compiled = breaker_of(
        "{targetService: payment-service, failureThreshold: 5, timeoutMs: 3000, fallbackEndpoint: /fallback/payment}",
    );
    assert_eq!(
        compiled.unwrap(),
        CompiledPolicy {
            key: PolicyKey::new(PolicyKind::CircuitBreakerPolicy, "inference", "llama"),
            target: Target::Objects(vec![TargetObject::Front(Front {
                kind: FrontKind::Service,
                name: "payment-service".to_owned()
            })]),
            parts: Parts {
                breaker: Some(Breaker {
                    policy: "inference/llama".to_owned(),
                    mode: Mode::Enforce,
                    trip: Trip {
                        consecutive_failures: Some(ConsecutiveFailures { count: 5 }),
                        ..Trip::default()
                    },
                    failure_statuses: StatusMatch::FAILURES.to_vec(),
                    backpressure_statuses: StatusMatch::BACKPRESSURE.to_vec(),
                    per: None,
                    stages: Vec::new(),
                    open_millis: millis(60_000),
                    half_open: HalfOpen { probes: 1, ramp_millis: Some(millis(6000)) },
                    timeout_millis: Some(millis(3000)),
                    timeouts: Timeouts::default(),
                    fallback: Some(FallbackPath { path: RelativePath::new("/fallback/payment").unwrap() }),
                    fallbacks: None,
                    hooks: Vec::new(),
                }),
                ..Parts::default()
            },
        }
    );
}

fn send(url: Option<&str>, in_cluster: bool, path: Option<&str>, model: Option<&str>) -> Fallback {
    Fallback::Send(Destination {
        url: url.map(|url| HttpUrl::new(url).unwrap()),
        in_cluster,
        path: path.map(|path| RelativePath::new(path).unwrap()),
        model: model.map(str::to_owned),
    })
}

fn stage(name: &str) -> StageBreaker {
    StageBreaker {
        stage: Stage::new(name).unwrap(),
        over_millis: None,
        percentile: ratio(0.99),
        window_millis: millis(30_000),
        minimum_requests: 20,
        out_of_memory: None,
        stale_after_millis: None,
    }
}

#[test]
fn a_stage_that_cannot_be_obeyed_is_refused_where_it_stands() {
    let compiled = breaker_of(
        "
  stages:
  - {name: a, latency: {percentile: 100, above: 0s, minimumRequests: 0}}
  - {name: 'a b', outOfMemory: {count: 0}}
  - {name: b}",
    );
    let problems = compiled.unwrap_err().to_string();
    for field in [
        "spec.stages[0].latency.percentile",
        "spec.stages[0].latency.above",
        "spec.stages[0].latency.minimumRequests",
        "spec.stages[1].name",
        "spec.stages[1].outOfMemory.count",
        "spec.stages[2]",
    ] {
        assert!(problems.contains(field), "{field}: {problems}");
    }
}

#[test]
#[allow(clippy::too_many_lines)] // one document
fn every_field_of_a_breaker_reaches_the_document() {
    let compiled = breaker_of(
        "
  selector: {matchLabels: {app: llama}}
  mode: Shadow
  failureStatuses: [4xx, \"500\"]
  backpressureStatuses: [\"429\"]
  groupBy: {header: X-Canary, max: 8}
  trip:
    errorRatio: {}
    slowCallRatio: {threshold: 40%, slowerThan: 2s, windowCalls: 20, minimumRequests: 5}
    latency: {}
    inFlight: {}
  hooks:
  - {name: audit, service: {name: audit, port: 80}, path: /events, mode: Sync, on: [Opened, HalfOpened, Closed]}
  - {name: chat, url: 'https://chat.example/hook'}
  fallback:
    on: [Open, ConnectFailure, Timeout, Failure]
    to:
    - {path: /x}
    - {url: 'https://elsewhere.example/v1', model: small}
    - {service: {name: llama-small, port: 8000}, path: /v1, model: small}
    - {service: {name: llama-small, namespace: spare, port: 80}}
    - {model: small}
    - {static: {body: '{}'}}
    - {cache: {}}
  timeouts: {connect: 500ms, firstByte: 5s, betweenChunks: 10s, total: 10m}
  stages:
  - {name: attention, latency: {percentile: '99.9', above: 2s, window: 1m, minimumRequests: 5}, outOfMemory: {count: 2, window: 1m}}
  - {name: prefill, latency: {}}
  - {name: generation, outOfMemory: {}}
  open: {duration: 30s}
  halfOpen: {probes: 5, ramp: 0s}",
    );
    assert_eq!(
        compiled.unwrap().parts.breaker,
        Some(Breaker {
            policy: "inference/llama".to_owned(),
            mode: Mode::Shadow,
            trip: Trip {
                consecutive_failures: None,
                error_ratio: Some(ErrorRatio {
                    threshold: ratio(0.5),
                    window_millis: Some(millis(30_000)),
                    window_calls: None,
                    minimum_requests: 20,
                }),
                slow_call_ratio: Some(SlowCallRatio {
                    threshold: ratio(0.4),
                    slower_than_millis: millis(2000),
                    window_millis: None,
                    window_calls: Some(20),
                    minimum_requests: 5,
                }),
                latency: Some(LatencyPercentile {
                    percentile: ratio(0.95),
                    over_millis: millis(800),
                    window_millis: Some(millis(30_000)),
                    window_calls: None,
                    minimum_requests: 20,
                }),
                in_flight: Some(InFlight { max: 200 }),
            },
            failure_statuses: vec![StatusMatch::Class(4), StatusMatch::Exactly(500)],
            backpressure_statuses: vec![StatusMatch::Exactly(429)],
            per: Some(Per { key: vec![KeyPart::Header(HeaderName::new("x-canary").unwrap())], max: 8 }),
            stages: vec![
                StageBreaker {
                    over_millis: Some(millis(2000)),
                    percentile: ratio(99.9 / 100.0),
                    window_millis: millis(60_000),
                    minimum_requests: 5,
                    out_of_memory: Some(OutOfMemory { count: 2, window_millis: millis(60_000) }),
                    ..stage("attention")
                },
                StageBreaker { over_millis: Some(millis(800)), ..stage("prefill") },
                StageBreaker {
                    out_of_memory: Some(OutOfMemory { count: 3, window_millis: millis(300_000) }),
                    ..stage("generation")
                },
            ],
            open_millis: millis(30_000),
            half_open: HalfOpen { probes: 5, ramp_millis: None },
            timeout_millis: None,
            timeouts: Timeouts {
                connect_millis: Some(millis(500)),
                first_byte_millis: Some(millis(5000)),
                between_chunks_millis: Some(millis(10_000)),
                total_millis: Some(millis(600_000)),
            },
            fallback: None,
            fallbacks: Some(Fallbacks {
                on: vec![
                    FallbackOn::Open,
                    FallbackOn::ConnectFailure,
                    FallbackOn::Timeout,
                    FallbackOn::Failure,
                ],
                to: vec![
                    Fallback::Path(RelativePath::new("/x").unwrap()),
                    send(Some("https://elsewhere.example/v1"), false, None, Some("small")),
                    send(Some("http://llama-small.inference.svc:8000"), true, Some("/v1"), Some("small")),
                    send(Some("http://llama-small.spare.svc:80"), true, None, None),
                    send(None, false, None, Some("small")),
                    Fallback::Static(StaticAnswer {
                        status: 200,
                        content_type: "application/json".to_owned(),
                        body: "{}".to_owned(),
                    }),
                    Fallback::Cache(AnswerCache {
                        ttl_millis: millis(300_000),
                        max_entries: 1000,
                        max_bytes: 16 << 20,
                    }),
                ],
            }),
            hooks: vec![
                Hook {
                    name: "audit".to_owned(),
                    url: HttpUrl::new("http://audit.inference.svc:80/events").unwrap(),
                    mode: HookMode::Sync,
                    on: vec![HookEvent::Opened, HookEvent::HalfOpened, HookEvent::Closed],
                },
                Hook {
                    name: "chat".to_owned(),
                    url: HttpUrl::new("https://chat.example/hook").unwrap(),
                    mode: HookMode::Async,
                    on: vec![HookEvent::Opened],
                },
            ],
        })
    );
}

#[test]
fn targets_are_parsed_by_kind() {
    let target = |spec: &str| rate_limit_of(&format!("{{priority: {{}}, {spec}}}")).unwrap().target;
    assert_eq!(target(""), Target::Namespace);
    assert!(matches!(target("selector: {}"), Target::Selector(_)));
    assert_eq!(
        target(
            "targetRefs: [{kind: Service, name: a}, {group: apps, kind: DaemonSet, name: b}, {group: batch, kind: Job, name: c}]"
        ),
        Target::Objects(vec![
            TargetObject::Front(Front { kind: FrontKind::Service, name: "a".to_owned() }),
            TargetObject::Workload(Workload { kind: WorkloadKind::DaemonSet, name: "b".to_owned() }),
            TargetObject::Workload(Workload { kind: WorkloadKind::Job, name: "c".to_owned() }),
        ])
    );
}

/// What is wrong, as `field: begin of the message`; each has to say what to write.
fn assert_refused(result: Result<CompiledPolicy, Problems>, expected: &[&str]) {
    let problems = result.unwrap_err();
    let found: Vec<_> = problems.as_slice().iter().map(ToString::to_string).collect();
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found:?} does not begin with {expected:?}");
        assert!(found.contains("write ") || found.contains("give "), "{found:?} says not what to write");
        assert!(!found.contains('\n'), "{found:?} is more than a line");
    }
}

#[test]
fn a_policy_that_limits_nothing_is_refused() {
    assert_refused(rate_limit_of("{}"), &["spec: the policy limits nothing"]);
    assert_refused(rate_limit_of("{tiers: {}}"), &["spec.tiers: no tier is on"]);
    assert_refused(
        rate_limit_of("{tiers: {qps: {}, gpuMemory: {}, latency: {}}}"),
        &[
            "spec.tiers.qps: nothing to trip at",
            "spec.tiers.gpuMemory: nothing to trip at",
            "spec.tiers.latency: nothing to trip at",
        ],
    );
}

#[test]
fn what_an_api_server_without_rules_has_let_pass_is_reported_too() {
    let refused = rate_limit_of(
        "
  tiers:
    gpuMemory: {source: Auto, maxUtilization: 75%, staleAfter: 1s, kvCache: {staleAfter: 500ms}}",
    );
    assert_refused(
        refused,
        &[
            "spec.tiers.gpuMemory.staleAfter: 1000 ms are over before NVML is read again",
            "spec.tiers.gpuMemory.kvCache.staleAfter: 500 ms are over before the engine is read again",
        ],
    );
    let refused = rate_limit_of("\n  priority: {reserved: {high: 100%}}");
    assert_refused(refused, &["spec.priority.reserved.high: 100% leaves medium nothing"]);
}

#[test]
fn every_mistake_is_reported_with_its_field() {
    let refused = rate_limit_of(
        "
  targetRefs: [{kind: Deployment, name: llama}]
  tiers:
    qps: {max: 0, learned: {sigma: x, minimumSamples: 1, minimumRequests: -1, growthPerHour: 0%}, window: 5 m}
    gpuMemory: {source: Auto, maxUtilization: 101%, maxBytes: 1GB, staleAfter: 0s, plateau: {stableFor: 0s, growth: 0%}, kvCache: {maxUsage: 0%, staleAfter: x}}
    latency: {percentile: 0, periods: 0, minimumSamples: 0, period: 1d, max: '-1s', learned: {factor: '0'}}
    recovery: {below: 0%, hold: '', ramp: 1d}
  priority: {from: [{header: 'x priority'}], reserved: {high: x}, highAllowedFrom: [{}, {cidr: 10.0.0.0/33}, {header: {name: ''}}]}
  limits:
  - {name: a, limit: 0, window: 0s, key: [{}]}
  - {name: a, limit: 1, window: 1s, burst: 1, algorithm: SlidingWindow}
  - {name: b, limit: 1, window: 1s, subWindows: 2}
  - {name: c, limit: 1, window: 1s, key: [{header: x, source: Path}]}
  - {name: Per_User, limit: 1, window: 1s}
  - {name: '', limit: 1, window: 1s}",
    );
    assert_refused(
        refused,
        &[
            "spec.targetRefs[0]: \"/Deployment\" is not a kind",
            "spec.tiers.qps.window: \"5 m\" is not a duration",
            "spec.tiers.qps.learned.sigma: \"x\" is not a decimal number",
            "spec.tiers.qps.learned.minimumSamples: 1 is out of range",
            "spec.tiers.qps.learned.minimumRequests: -1 is out of range",
            "spec.tiers.qps.learned.growthPerHour: 0% is out of range",
            "spec.tiers.qps.max: 0 is out of range",
            "spec.tiers.gpuMemory.maxUtilization: \"101%\" is not a percentage",
            "spec.tiers.gpuMemory.maxBytes: \"1GB\" is not a number of bytes",
            "spec.tiers.gpuMemory.plateau.stableFor: \"0s\" is out of range",
            "spec.tiers.gpuMemory.plateau.growth: 0% is out of range",
            "spec.tiers.gpuMemory.kvCache.maxUsage: 0% is out of range",
            "spec.tiers.gpuMemory.kvCache.staleAfter: \"x\" is not a duration",
            "spec.tiers.gpuMemory.staleAfter: \"0s\" is out of range",
            "spec.tiers.latency.percentile: 0 is out of range",
            "spec.tiers.latency.period: \"1d\" is not a duration",
            "spec.tiers.latency.periods: 0 is out of range",
            "spec.tiers.latency.minimumSamples: 0 is out of range",
            "spec.tiers.latency.learned.factor: 0 is out of range",
            "spec.tiers.latency.max: \"-1s\" is not a duration",
            "spec.tiers.recovery.below: 0% is out of range",
            "spec.tiers.recovery.hold: \"\" is not a duration",
            "spec.tiers.recovery.ramp: \"1d\" is not a duration",
            "spec.priority.from[0].header: \"x priority\" is not a header name",
            "spec.priority.reserved.high: \"x\" is not a percentage",
            "spec.priority.highAllowedFrom[0]: nobody is named",
            "spec.priority.highAllowedFrom[1].cidr: \"10.0.0.0/33\" is not an address block",
            "spec.priority.highAllowedFrom[2].header.name: \"\" is not a header name",
            "spec.limits[0].key[0]: a part of a key is one thing",
            "spec.limits[0]: burst 0 is out of range",
            "spec.limits[0].limit: 0 is out of range",
            "spec.limits[0].window: \"0s\" is out of range",
            "spec.limits[1].name: \"a\" is there twice",
            "spec.limits[1]: burst is the size of a bucket",
            "spec.limits[2]: subWindows divide a sliding window",
            "spec.limits[3].key[0]: a part of a key is one thing",
            "spec.limits[4].name: \"Per_User\" is not a name",
            "spec.limits[5].name: \"\" is not a name",
        ],
    );
}

#[test]
fn a_window_holds_as_many_samples_as_are_needed() {
    let qps = |qps: &str| rate_limit_of(&format!("{{tiers: {{qps: {qps}}}}}"));
    assert_refused(
        qps("{max: 1, window: 1s, sampleInterval: 1s}"),
        &["spec.tiers.qps.window: too short to learn from"],
    );
    assert_refused(
        qps("{max: 1, window: 2h, sampleInterval: 1s}"),
        &["spec.tiers.qps.window: 7200 samples are too many"],
    );
    assert_refused(
        qps("{learned: {minimumSamples: 61}, window: 1m}"),
        &["spec.tiers.qps.learned.minimumSamples: 61 samples never fit into the window: write 2 to 60"],
    );
    assert!(qps("{learned: {minimumSamples: 60}, window: 1m}").is_ok());
}

#[test]
fn fields_that_contradict_each_other_are_refused_where_they_stand() {
    let tiers = |tiers: &str| rate_limit_of(&format!("{{tiers: {{{tiers}}}}}"));
    assert_refused(
        tiers("qps: {max: 5, learned: {}}"),
        &[
            "spec.tiers.qps.learned.floor: 10 is not below max, 5, so that a learned ceiling never holds: write less than 5",
            "spec.tiers.qps.learned.minimumRequests: 10 in a sample of 1000 ms are not below max, 5 in a second",
        ],
    );
    assert_refused(
        tiers("gpuMemory: {source: KvCache, maxBytes: 32Gi}"),
        &["spec.tiers.gpuMemory.maxBytes: is for NVML, which KvCache does not ask: write source Auto"],
    );
    assert_refused(
        tiers("gpuMemory: {maxBytes: 32Gi, kvCache: {maxUsage: 80%}}"),
        &[
            "spec.tiers.gpuMemory.kvCache: kvCache is for engines that are asked: write source: KvCache or Auto",
        ],
    );
    assert_refused(
        tiers("latency: {max: 25h}"),
        &["spec.tiers.latency.max: 90000000 is out of range: write 1 to 86400000"],
    );
    assert_refused(
        breaker_of("{timeoutMs: 500, trip: {latency: {}, inFlight: {max: 3}}, halfOpen: {probes: 4}}"),
        &[
            "spec.trip.latency.over: 800 ms are never reached, since an answer is not waited for longer than 500 ms",
            "spec.halfOpen.probes: 4 together would open it again, since inFlight has a max of 3: write at most 3",
        ],
    );
}

#[test]
fn a_policy_names_its_pods_in_one_way() {
    assert_refused(
        rate_limit_of("{priority: {}, selector: {}, targetRefs: [{kind: Service, name: a}]}"),
        &["spec: targetRefs and selector exclude each other"],
    );
    for two in [
        "targetService: a, selector: {}",
        "targetService: a, targetRefs: [{kind: Service, name: a}]",
        "selector: {}, targetRefs: [{kind: Service, name: a}]",
    ] {
        assert_refused(
            breaker_of(&format!("{{failureThreshold: 1, {two}}}")),
            &["spec: targetService, targetRefs and selector exclude each other"],
        );
    }
    assert_refused(
        rate_limit_of(
            "{priority: {}, selector: {matchExpressions: [{key: a, operator: Exists, values: [b]}, {key: a, operator: In}]}}",
        ),
        &[
            "spec.selector.matchExpressions[0]: values do not fit the operator",
            "spec.selector.matchExpressions[1]: values do not fit the operator",
        ],
    );
}

#[test]
fn a_breaker_that_never_opens_is_refused() {
    assert_refused(breaker_of("{timeoutMs: 1}"), &["spec: nothing opens this breaker"]);
    assert_refused(breaker_of("{failureThreshold: 1, trip: {}}"), &["spec.trip: trip is empty"]);
    assert_refused(breaker_of("{failureThreshold: 1, timeouts: {}}"), &["spec.timeouts: timeouts is empty"]);
}

#[test]
#[allow(clippy::too_many_lines)] // one table
fn mistakes_of_a_breaker_are_reported_with_their_fields() {
    let refused = breaker_of(
        "
  targetService: a.b.svc
  failureThreshold: 0
  timeoutMs: 3600001
  timeouts: {connect: 0s, firstByte: 2m, betweenChunks: 1, total: 1m}
  fallbackEndpoint: https://elsewhere/
  fallback:
    on: []
    to:
    - {path: //x}
    - {url: 'ftp://a'}
    - {service: {name: a.b, namespace: _, port: 0}}
    - {static: {status: 199}}
    - {cache: {ttl: 0s, maxEntries: 0, maxBytes: 1Ki}}
    - {url: 'http://a', path: /x}
    - {}
  hooks:
  - {name: A b, url: 'http://a', on: []}
  - {name: a, url: 'ftp://a'}
  - {name: a, service: {name: audit, port: 80}, path: x}
  - {name: b}
  trip:
    errorRatio: {threshold: 0%, window: 1, minimumRequests: 0}
    slowCallRatio: {threshold: 200%, slowerThan: 0ms, window: 800h, minimumRequests: -1}
  open: {duration: 1d}
  halfOpen: {probes: 1001}",
    );
    assert_refused(
        refused,
        &[
            "spec.targetService: \"a.b.svc\" is not the name of a Service",
            "spec.failureThreshold: 0 is out of range",
            "spec.trip.errorRatio.threshold: 0% is out of range",
            "spec.trip.errorRatio.window: \"1\" is not a duration",
            "spec.trip.errorRatio.minimumRequests: 0 is out of range",
            "spec.trip.slowCallRatio.threshold: \"200%\" is not a percentage",
            "spec.trip.slowCallRatio.slowerThan: \"0ms\" is out of range",
            "spec.trip.slowCallRatio.window: \"800h\" is out of range",
            "spec.trip.slowCallRatio.minimumRequests: -1 is out of range",
            "spec.open.duration: \"1d\" is not a duration",
            "spec.halfOpen.probes: 1001 is out of range",
            "spec.timeoutMs: 3600001 is out of range",
            "spec.timeouts.connect: \"0s\" is out of range",
            "spec.timeouts.betweenChunks: \"1\" is not a duration",
            "spec.timeouts.firstByte: is more than timeouts.total",
            "spec.fallbackEndpoint: \"https://elsewhere/\" is not a path on the same engine",
            "spec.fallbackEndpoint: fallbackEndpoint and fallback exclude each other",
            "spec.fallback.on: never",
            "spec.fallback.to[0].path: \"//x\" is not a path on the same engine",
            "spec.fallback.to[1].url: \"ftp://a\" is not the address of a server",
            "spec.fallback.to[2].service.name: \"a.b\" is not the name of a Service",
            "spec.fallback.to[2].service.namespace: \"_\" is not the name of a namespace",
            "spec.fallback.to[2].service.port: 0 is out of range",
            "spec.fallback.to[3].static.status: 199 is out of range",
            "spec.fallback.to[4].cache.ttl: \"0s\" is out of range",
            "spec.fallback.to[4].cache.maxEntries: 0 is out of range",
            "spec.fallback.to[4].cache.maxBytes: 1Ki is out of range",
            "spec.fallback.to[5]: not one fallback",
            "spec.fallback.to[6]: not one fallback",
            "spec.hooks[0].name: \"A b\" is not a name",
            "spec.hooks[0].on: never",
            "spec.hooks[1].url: \"ftp://a\" is not the address of a server",
            "spec.hooks[2].name: \"a\" is there twice",
            "spec.hooks[2].path: \"x\" is not a path",
            "spec.hooks[3]: a hook is at one place",
        ],
    );
}

static EVERY_SCALAR: LazyLock<RateLimitPolicy> = LazyLock::new(|| {
    parse(
        "RateLimitPolicy",
        "
  tiers: {qps: {learned: {}}, gpuMemory: {maxUtilization: 1%, maxBytes: 1}, latency: {max: 1s}}
  limits: [{name: a, limit: 1, window: 1s}]",
    )
});

proptest::proptest! {
    #[test]
    fn no_text_breaks_the_compiler_and_every_mistake_is_one_line(
        texts in proptest::collection::vec("[-+.%0-9a-zA-Z \\n/é]{0,24}", 8),
    ) {
        let mut policy = EVERY_SCALAR.clone();
        let tiers = policy.spec.tiers.as_mut().unwrap();
        let qps = tiers.qps.as_mut().unwrap();
        qps.window = texts[0].as_str().into();
        qps.max = Some(texts[1].as_str().into());
        let gpu = tiers.gpu_memory.as_mut().unwrap();
        gpu.max_utilization = Some(texts[2].as_str().into());
        gpu.max_bytes = Some(texts[3].as_str().into());
        let latency = tiers.latency.as_mut().unwrap();
        latency.percentile = texts[4].as_str().into();
        latency.max = Some(texts[5].as_str().into());
        policy.spec.limits[0].window = Some(texts[6].as_str().into());
        policy.spec.limits[0].name.clone_from(&texts[7]);
        if let Err(problems) = rate_limit(&policy) {
            for problem in problems.as_slice() {
                proptest::prop_assert!(!problem.to_string().contains('\n'), "{}", problem);
                proptest::prop_assert!(problem.field.starts_with("spec."), "{}", problem);
            }
        }
    }
}

#[test]
fn api_keys_reach_the_document_and_a_policy_that_looks_on_refuses_nobody() {
    let keys = |spec: &str| rate_limit_of(spec).unwrap().parts.identity.unwrap().api_keys.unwrap();
    let of = |names: &[&str]| names.iter().map(|name| HeaderName::new(name).unwrap()).collect::<Vec<_>>();
    assert_eq!(
        keys("{identity: {apiKeys: {}}}"),
        ApiKeys {
            headers: of(&["authorization", "x-api-key", "api-key"]),
            required: false,
            strip_headers: false
        }
    );
    let spec = "identity: {apiKeys: {headers: [X-Key], unknown: Refuse, stripHeaders: Enabled}}";
    for (mode, required) in [("Enforce", true), ("Shadow", false)] {
        assert_eq!(
            keys(&format!("{{mode: {mode}, {spec}}}")),
            ApiKeys { headers: of(&["x-key"]), required, strip_headers: true }
        );
    }
    let wrong = rate_limit_of("{identity: {apiKeys: {headers: ['a b']}}}").unwrap_err().to_string();
    assert!(wrong.contains("spec.identity.apiKeys.headers[0]: "), "{wrong}");
}

#[test]
fn every_field_of_the_identity_reaches_the_document() {
    let compiled = rate_limit_of(
        "
  identity:
    jwt:
    - issuer: https://issuer.example.com
      audiences: [llm]
      algorithms: [ES256]
      leeway: 30s
      jwks: {uri: 'https://issuer.example.com/keys', caBundle: pem}
    - {issuer: other, jwks: {inline: '{\"keys\": [{\"kty\": \"OKP\"}]}'}}
    - {issuer: mounted, algorithms: [ES256], jwks: {file: issuer.json}}
  priority: {from: [{jwtClaim: tier, map: {platinum: High}}]}
  limits: [{name: per-user, key: [{jwtClaim: sub}], limit: 5, window: 1s}]",
    );
    let parts = compiled.unwrap().parts;
    let uri = "https://issuer.example.com/keys".to_owned();
    assert_eq!(
        parts.identity.unwrap().jwt,
        [
            JwtIssuer {
                issuer: "https://issuer.example.com".to_owned(),
                audiences: vec!["llm".to_owned()],
                algorithms: vec![JwtAlgorithm::ES256],
                leeway_millis: Millis::new(30_000).ok(),
                keys: JwtKeys::Remote { uri, ca_bundle: Some("pem".to_owned()) },
            },
            JwtIssuer {
                issuer: "other".to_owned(),
                audiences: vec![],
                algorithms: vec![JwtAlgorithm::RS256, JwtAlgorithm::ES256, JwtAlgorithm::EdDSA],
                leeway_millis: None,
                keys: JwtKeys::Inline("{\"keys\": [{\"kty\": \"OKP\"}]}".to_owned()),
            },
            JwtIssuer {
                issuer: "mounted".to_owned(),
                audiences: vec![],
                algorithms: vec![JwtAlgorithm::ES256],
                leeway_millis: None,
                keys: JwtKeys::File("issuer.json".to_owned()),
            },
        ]
    );
    let blocks = vec!["10.0.0.0/8".to_owned()];
    let client_ip = ClientIp { trusted_proxies: blocks, from: ForwardedBy::XForwardedFor };
    assert_eq!(
        rate_limit_of("{identity: {clientIP: {trustedProxies: [10.0.0.0/8]}}}").unwrap().parts.identity,
        Some(Identity {
            policy: "inference/llama".to_owned(),
            jwt: vec![],
            api_keys: None,
            client_ip: Some(client_ip)
        })
    );
    let wrong =
        rate_limit_of("{identity: {clientIP: {trustedProxies: [10.0.0.0/99]}}}").unwrap_err().to_string();
    assert!(wrong.contains("spec.identity.clientIP.trustedProxies: not an address block"), "{wrong}");
    assert_eq!(parts.priority.unwrap().from[0].jwt_claim.as_deref(), Some("tier"));
    assert_eq!(parts.limits[0].key, [KeyPart::JwtClaim("sub".to_owned())]);
}

#[test]
fn keys_of_an_issuer_are_in_one_place_and_of_a_form_that_can_be_read() {
    let wrong = |jwks: &str| {
        let spec = format!("{{identity: {{jwt: [{{issuer: a, jwks: {jwks}}}]}}}}");
        rate_limit_of(&spec).unwrap_err().to_string()
    };
    assert!(wrong("{}").contains("either inline"));
    assert!(wrong("{inline: '{}', uri: 'https://a/b'}").contains("either inline"));
    assert!(wrong("{inline: '{}', file: a}").contains("either inline"));
    assert!(wrong("{inline: '{}', caBundle: pem}").contains("write uri"));
    assert!(wrong("{file: a, caBundle: pem}").contains("write uri"));
    assert!(wrong("{file: ../token}").contains("is not the name of a file"));
    assert!(wrong("{inline: no}").contains("not a JSON Web Key Set"));
    assert!(wrong("{uri: 'http://a/b'}").contains("https://issuer/keys"));
}

#[test]
fn every_field_of_concurrency_and_queue_reaches_the_document() {
    let parts = rate_limit_of(
        "
  mode: Shadow
  concurrency: {algorithm: Adaptive, initial: 30, min: 8, max: 300, signal: TotalLatency, target: 3s}
  queue: {maxLength: 64, timeout: 2s, tenant: [{header: x-api-key}]}",
    )
    .unwrap()
    .parts;
    assert_eq!(
        parts.concurrency.unwrap(),
        tidegate_policy::Concurrency {
            policy: "inference/llama".to_owned(),
            mode: Mode::Shadow,
            algorithm: tidegate_policy::ConcurrencyAlgorithm::Adaptive {
                target_millis: Some(millis(3000)),
                tolerance: None,
                kv_cache: None,
            },
            initial: 30,
            min: 8,
            max: 300,
            latency: LatencySignal::TotalLatency,
        }
    );
    let queue = parts.queue.unwrap();
    assert_eq!((queue.max_length, queue.timeout_millis, queue.mode), (64, millis(2000), Mode::Shadow));
    assert_eq!(queue.tenant.len(), 1);
    assert_refused(rate_limit_of("{concurrency: {initial: 3}}"), &["spec.concurrency.initial: "]);
    assert_refused(rate_limit_of("{queue: {maxLength: 0, timeout: 2s}}"), &["spec.queue.maxLength: "]);
}

#[test]
fn a_limit_is_for_the_requests_of_which_its_conditions_hold() {
    let compiled = rate_limit_of(
        "
  rateLimitHeaders: Always
  limits:
  - name: a
    limit: 1
    window: 1s
    when:
    - {jwtClaim: tier, values: [gold]}
    - {header: X-Route, operator: Exists}
    - {source: Path, operator: NotIn, values: [/v1/*]}",
    );
    let parts = compiled.unwrap().parts;
    assert_eq!(
        parts.limits[0].when,
        [
            Condition { of: Subject::JwtClaim("tier".to_owned()), is: Match::In(vec!["gold".to_owned()]) },
            Condition { of: Subject::Header(header("x-route")), is: Match::Exists },
            Condition { of: Subject::Path, is: Match::NotIn(vec!["/v1/*".to_owned()]) },
        ]
    );
    assert_eq!(parts.rate_limit_headers, Some(RateLimitHeaders::Always));
    let never = "{limits: [{name: a, limit: 1, window: 1s, when: [{header: b, values: [c]}, {header: b, values: [d]}]}]}";
    let wrong = rate_limit_of(never).unwrap_err().to_string();
    assert!(wrong.contains("limits[0].when[1]: it never holds together with one before it"), "{wrong}");
}

#[test]
fn the_plans_are_platinum_gold_and_silver_where_none_are_written() {
    let compiled =
        rate_limit_of("{plans: {from: {jwtClaim: tier}, key: [{jwtClaim: sub}], default: silver}}");
    let tier = |is| vec![Condition { of: Subject::JwtClaim("tier".to_owned()), is }];
    let others = || Match::NotIn(vec!["platinum".to_owned(), "gold".to_owned()]);
    let limit = |name: &str, limit, burst, is| Limit {
        policy: "inference/llama".to_owned(),
        name: format!("plan-{name}"),
        mode: Mode::Enforce,
        key: vec![KeyPart::JwtClaim("sub".to_owned())],
        when: tier(is),
        algorithm: Algorithm::TokenBucket { burst, initial: None },
        limit,
        window_millis: Some(millis(1000)),
        cost: Cost::Requests,
        max_keys: None,
        on_exhausted: OnExhausted::EndStream,
    };
    assert_eq!(
        compiled.unwrap().parts.limits,
        [
            limit("platinum", 5000, 2000, Match::In(vec!["platinum".to_owned()])),
            limit("gold", 1000, 500, Match::In(vec!["gold".to_owned()])),
            limit("silver", 200, 100, others()),
        ]
    );
    let alone =
        rate_limit_of("{plans: {from: {header: x-plan}, plans: [{name: all, limit: 5}], default: all}}");
    assert_eq!(alone.unwrap().parts.limits[0].when, []);
    let wrong = rate_limit_of("{plans: {from: {header: x-plan}, default: bronze}}").unwrap_err().to_string();
    assert!(wrong.contains("spec.plans.default: default is none of the plans"), "{wrong}");
    let twice = "{plans: {from: {header: x-plan}}, limits: [{name: plan-gold, limit: 1, window: 1s}]}";
    let wrong = rate_limit_of(twice).unwrap_err().to_string();
    assert!(wrong.contains("\"plan-gold\" is there twice"), "{wrong}");
}
