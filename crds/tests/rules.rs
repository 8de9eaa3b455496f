//! Each CEL rule accepts what it should and refuses what it should, with its message, evaluated as the API server
//! does: after defaulting.

use std::collections::BTreeSet;

use kube::core::cel::{Validator, apply_defaults};
use serde_json::Value;
use tidegate_crds::{
    Bytes, CircuitBreakerPolicySpec, Claimant, Concurrency, Decimal, Duration, FallbackService,
    FallbackTarget, GpuMemoryTier, HeaderName, Hook, Identity, Jwks, KeyPart, LatencyTier, Limit, Percentage,
    PlanSource, Plans, PriorityNumber, PrioritySource, QpsTier, RateLimitPolicySpec, SelectorRequirement,
    StageBreaker, StaticAnswer, StatusMatch, TargetRef, Tiers, Timeouts, Trip, When,
};

const RATE_LIMIT: &str = "RateLimitPolicy";
const BREAKER: &str = "CircuitBreakerPolicy";

#[allow(clippy::expect_used)] // a helper of the tests below
fn schema(kind: &str) -> Value {
    let definitions = tidegate_crds::definitions();
    let definition = definitions.iter().find(|definition| definition.spec.names.kind == kind);
    let schema = definition.and_then(|definition| definition.spec.versions[0].schema.as_ref());
    let schema = schema.and_then(|schema| schema.open_api_v3_schema.as_ref()).expect("the kind has a schema");
    serde_json::to_value(schema).expect("a schema is JSON")
}

/// The messages with which an object is refused.
#[allow(clippy::expect_used)] // a helper of the tests below
fn refusals(kind: &str, spec: &str) -> Vec<String> {
    let yaml =
        format!("apiVersion: tidegate.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: a}}\nspec: {spec}");
    let object: Value = serde_saphyr::from_str(&yaml).expect("the fixture is YAML");
    let schema = schema(kind);
    let object = apply_defaults(&schema, &object);
    match Validator::new().validate(&schema, &object, None) {
        Ok(()) => Vec::new(),
        Err(errors) => errors.iter().map(|error| error.message.clone()).collect(),
    }
}

/// Specs that are accepted.
const ACCEPTED: &[(&str, &str)] = &[
    (RATE_LIMIT, "{priority: {}}"),
    (RATE_LIMIT, "{tiers: {qps: {learned: {}}}}"),
    (RATE_LIMIT, "{limits: [{name: a, limit: 1, window: 1s}]}"),
    (RATE_LIMIT, "{priority: {}, targetRefs: []}"),
    (RATE_LIMIT, "{priority: {}, targetRefs: [], selector: {}}"),
    (RATE_LIMIT, "{priority: {}, selector: {matchLabels: {app: llama}}}"),
    (RATE_LIMIT, "{priority: {}, selector: {matchExpressions: [{key: a, operator: In, values: [b]}]}}"),
    (RATE_LIMIT, "{priority: {}, selector: {matchExpressions: [{key: a, operator: Exists}]}}"),
    (RATE_LIMIT, "{priority: {}, targetRefs: [{kind: Service, name: a}]}"),
    (RATE_LIMIT, "{priority: {}, targetRefs: [{group: apps, kind: Deployment, name: a}]}"),
    (
        RATE_LIMIT,
        "{priority: {}, targetRefs: [{group: batch, kind: Job, name: a}, {group: batch, kind: CronJob, name: a}, {group: leaderworkerset.x-k8s.io, kind: LeaderWorkerSet, name: a}]}",
    ),
    (
        RATE_LIMIT,
        "{priority: {}, targetRefs: [{group: inference.networking.k8s.io, kind: InferencePool, name: a}, {group: inference.networking.x-k8s.io, kind: InferencePool, name: a}]}",
    ),
    (RATE_LIMIT, "{tiers: {qps: {max: 400}}}"),
    (RATE_LIMIT, "{tiers: {qps: {max: 400, learned: {}}}}"),
    (RATE_LIMIT, "{tiers: {qps: {max: '0.5', learned: {floor: '0.4'}}}}"),
    (RATE_LIMIT, "{tiers: {qps: {max: '0.5', window: 2s}}}"),
    (RATE_LIMIT, "{tiers: {gpuMemory: {maxUtilization: 75%}}}"),
    (RATE_LIMIT, "{tiers: {gpuMemory: {maxBytes: 32Gi}}}"),
    (RATE_LIMIT, "{tiers: {gpuMemory: {plateau: {}}}}"),
    (RATE_LIMIT, "{tiers: {gpuMemory: {source: KvCache}}}"),
    (RATE_LIMIT, "{tiers: {gpuMemory: {source: Auto, maxUtilization: 75%, kvCache: {maxUsage: 95%}}}}"),
    (RATE_LIMIT, "{tiers: {gpuMemory: {maxBytes: 34359738368}}}"),
    (RATE_LIMIT, "{tiers: {latency: {learned: {}, percentile: '99.9'}}}"),
    (RATE_LIMIT, "{tiers: {latency: {max: 8s}}}"),
    (RATE_LIMIT, "{tiers: {latency: {max: 1m30s500ms}}}"),
    (RATE_LIMIT, "{priority: {highAllowedFrom: [{cidr: 10.0.0.0/8}]}}"),
    (RATE_LIMIT, "{priority: {highAllowedFrom: [{header: {name: x-team, value: search}}]}}"),
    (RATE_LIMIT, "{limits: [{name: a, limit: 1, window: 1s, burst: 1, key: [{header: x-api-key}]}]}"),
    (
        RATE_LIMIT,
        "{limits: [{name: a, limit: 1, window: 1s, burst: 9, initial: 0, key: [{source: Method}]}]}",
    ),
    (RATE_LIMIT, "{limits: [{name: a, limit: 10000, window: 1s, algorithm: SlidingLog, maxKeys: 100}]}"),
    (RATE_LIMIT, "{limits: [{name: a, limit: 1, window: 1m, cost: TotalTokens, onExhausted: Finish}]}"),
    (
        RATE_LIMIT,
        "{limits: [{name: a, limit: 1, window: 24h, cost: WeightedTokens, weights: {cached: '0.1', output: 4}}]}",
    ),
    (RATE_LIMIT, "{limits: [{name: a, limit: 1, window: 1m, key: [{source: Model}]}]}"),
    (RATE_LIMIT, "{limits: [{name: a, limit: 1, window: 1s, algorithm: FixedWindow}]}"),
    (
        RATE_LIMIT,
        "{limits: [{name: a, limit: 1, window: 1s, algorithm: LeakyBucket, burst: 9, maxWait: 2s}]}",
    ),
    (RATE_LIMIT, "{limits: [{name: a, limit: 1, algorithm: Concurrency}]}"),
    (
        RATE_LIMIT,
        "{limits: [{name: a, limit: 1, window: 1s, algorithm: SlidingWindow, subWindows: 6, key: [{source: Path}]}]}",
    ),
    (RATE_LIMIT, "{identity: {jwt: [{issuer: a, jwks: {inline: '{}'}}]}}"),
    (RATE_LIMIT, "{identity: {jwt: [{issuer: a, jwks: {uri: 'https://a/keys?b', caBundle: pem}}]}}"),
    (RATE_LIMIT, "{priority: {from: [{jwtClaim: tier}, {header: X-Priority}]}}"),
    (RATE_LIMIT, "{limits: [{name: a, limit: 1, window: 1s, key: [{jwtClaim: /realm/user}]}]}"),
    (RATE_LIMIT, "{identity: {clientIP: {trustedProxies: [10.0.0.0/8, 'fd00::/8'], from: Forwarded}}}"),
    (RATE_LIMIT, "{limits: [{name: a, limit: 1, window: 1s, when: [{jwtClaim: tier, values: [gold]}]}]}"),
    (
        RATE_LIMIT,
        "{limits: [{name: a, limit: 1, window: 1s, when: [{header: x-a, operator: Exists}, {source: Path, operator: NotIn, values: [/v1/*]}]}]}",
    ),
    (RATE_LIMIT, "{plans: {from: {jwtClaim: tier}, default: silver}}"),
    (
        RATE_LIMIT,
        "{plans: {from: {header: x-route-tag}, plans: [{name: a, limit: 1, window: 1m, burst: 9}]}}",
    ),
    (RATE_LIMIT, "{priority: {from: [{header: x-request-priority, number: {high: -1, medium: 5}}]}}"),
    (
        RATE_LIMIT,
        "{priority: {stripHeaders: Enabled, from: [{jwtClaim: p, number: {better: Higher, high: 5, medium: 5}}]}}",
    ),
    (RATE_LIMIT, "{priority: {}, rateLimitHeaders: Always}"),
    (RATE_LIMIT, "{priority: {from: [{source: ServiceTier}, {source: ServiceTier, map: {scale: High}}]}}"),
    (RATE_LIMIT, "{concurrency: {}}"),
    (RATE_LIMIT, "{concurrency: {algorithm: Adaptive, initial: 2, min: 2, max: 100000, target: 2s}}"),
    (RATE_LIMIT, "{queue: {maxLength: 64, timeout: 2s, tenant: [{header: x-api-key}]}}"),
    (BREAKER, "{targetService: payment-service, failureThreshold: 5}"),
    (BREAKER, "{selector: {}, trip: {errorRatio: {}}}"),
    (BREAKER, "{targetRefs: [{kind: Service, name: a}], trip: {slowCallRatio: {}}}"),
    (BREAKER, "{failureThreshold: 1}"),
    (BREAKER, "{failureThreshold: 1, fallbackEndpoint: '/fallback/payment?why=open'}"),
    (RATE_LIMIT, "{priority: {highAllowedFrom: [{cidr: 'fd00::/8'}]}}"),
    (BREAKER, "{trip: {latency: {}, inFlight: {}}}"),
    (
        BREAKER,
        "{stages: [{name: attention, latency: {percentile: 99, above: 800ms}, outOfMemory: {count: 3, window: 5m}}]}",
    ),
    (BREAKER, "{stages: [{name: prefill, latency: {}}, {name: tokenizer.encode, outOfMemory: {}}]}"),
    (BREAKER, "{trip: {errorRatio: {windowCalls: 20}}}"),
    (BREAKER, "{failureThreshold: 1, failureStatuses: [5xx, '429'], backpressureStatuses: ['503']}"),
    (BREAKER, "{failureThreshold: 1, groupBy: {header: x-canary}, halfOpen: {ramp: 0s}}"),
];

/// Specs that are refused, each for one reason.
const REFUSED: &[(&str, &str, &str)] = &[
    (RATE_LIMIT, "{}", RateLimitPolicySpec::NOTHING),
    (RATE_LIMIT, "{limits: []}", RateLimitPolicySpec::NOTHING),
    (
        RATE_LIMIT,
        "{priority: {}, selector: {}, targetRefs: [{kind: Service, name: a}]}",
        RateLimitPolicySpec::ONE_TARGET,
    ),
    (
        RATE_LIMIT,
        "{priority: {}, selector: {matchExpressions: [{key: a, operator: In}]}}",
        SelectorRequirement::VALUES,
    ),
    (
        RATE_LIMIT,
        "{priority: {}, selector: {matchExpressions: [{key: a, operator: Exists, values: [b]}]}}",
        SelectorRequirement::VALUES,
    ),
    (RATE_LIMIT, "{priority: {}, targetRefs: [{kind: Deployment, name: a}]}", TargetRef::KINDS),
    (RATE_LIMIT, "{priority: {}, targetRefs: [{group: apps, kind: Service, name: a}]}", TargetRef::KINDS),
    (RATE_LIMIT, "{priority: {}, targetRefs: [{kind: Pod, name: a}]}", TargetRef::KINDS),
    (
        RATE_LIMIT,
        "{priority: {}, targetRefs: [{group: apps, kind: InferencePool, name: a}]}",
        TargetRef::KINDS,
    ),
    (RATE_LIMIT, "{concurrency: {initial: 5, min: 6}}", Concurrency::ORDER),
    (RATE_LIMIT, "{concurrency: {max: 10}}", Concurrency::ORDER),
    (RATE_LIMIT, "{concurrency: {algorithm: Aimd, target: 2s}}", Concurrency::TARGET),
    (RATE_LIMIT, "{tiers: {}}", Tiers::NONE),
    (RATE_LIMIT, "{tiers: {qps: {}}}", QpsTier::NONE),
    (RATE_LIMIT, "{tiers: {qps: {max: 1, window: 1s}}}", QpsTier::WINDOW),
    (RATE_LIMIT, "{tiers: {qps: {max: 9, learned: {}}}}", QpsTier::FLOOR),
    (RATE_LIMIT, "{tiers: {qps: {max: '0.5', learned: {floor: 0.5}}}}", QpsTier::FLOOR),
    (RATE_LIMIT, "{tiers: {gpuMemory: {source: KvCache, maxBytes: 32Gi}}}", GpuMemoryTier::UNASKED),
    (RATE_LIMIT, "{tiers: {gpuMemory: {source: KvCache, plateau: {}}}}", GpuMemoryTier::UNASKED),
    (RATE_LIMIT, "{tiers: {qps: {max: x}}}", Decimal::FORM),
    (RATE_LIMIT, "{tiers: {qps: {max: -1}}}", Decimal::FORM),
    (RATE_LIMIT, "{tiers: {qps: {max: '1e3'}}}", Decimal::FORM),
    (RATE_LIMIT, "{tiers: {gpuMemory: {}}}", GpuMemoryTier::NONE),
    (RATE_LIMIT, "{tiers: {gpuMemory: {source: Auto}}}", GpuMemoryTier::NONE),
    (RATE_LIMIT, "{tiers: {gpuMemory: {maxUtilization: '75'}}}", Percentage::FORM),
    (RATE_LIMIT, "{tiers: {gpuMemory: {maxUtilization: 101%}}}", Percentage::FORM),
    (RATE_LIMIT, "{tiers: {gpuMemory: {maxBytes: 32GB}}}", Bytes::FORM),
    (RATE_LIMIT, "{tiers: {gpuMemory: {maxBytes: -1}}}", Bytes::FORM),
    (RATE_LIMIT, "{tiers: {latency: {}}}", LatencyTier::NONE),
    (RATE_LIMIT, "{tiers: {latency: {max: 1d}}}", Duration::FORM),
    (RATE_LIMIT, "{tiers: {latency: {max: 1.5s}}}", Duration::FORM),
    (RATE_LIMIT, "{priority: {highAllowedFrom: [{}]}}", Claimant::NOBODY),
    (RATE_LIMIT, "{priority: {highAllowedFrom: [{cidr: example.com}]}}", Claimant::BLOCK),
    (RATE_LIMIT, "{priority: {from: [{}]}}", PrioritySource::EXACTLY_ONE),
    (RATE_LIMIT, "{priority: {from: [{header: a, jwtClaim: b}]}}", PrioritySource::EXACTLY_ONE),
    (RATE_LIMIT, "{rateLimitHeaders: Always}", RateLimitPolicySpec::NOTHING),
    (RATE_LIMIT, "{identity: {}}", Identity::NOBODY),
    (RATE_LIMIT, "{identity: {jwt: []}}", Identity::NOBODY),
    (RATE_LIMIT, "{identity: {clientIP: {trustedProxies: [10.0.0.1]}}}", Claimant::BLOCK),
    (
        RATE_LIMIT,
        "{priority: {from: [{header: a, map: {b: Low}, number: {medium: 0}}]}}",
        PrioritySource::NUMBER_OR_MAP,
    ),
    (RATE_LIMIT, "{priority: {from: [{header: a, number: {high: 1, medium: 0}}]}}", PriorityNumber::ORDER),
    (
        RATE_LIMIT,
        "{priority: {from: [{header: a, number: {better: Higher, high: 0, medium: 1}}]}}",
        PriorityNumber::ORDER,
    ),
    (RATE_LIMIT, "{limits: [{name: a, limit: 1, window: 1s, when: [{values: [b]}]}]}", When::EXACTLY_ONE),
    (RATE_LIMIT, "{limits: [{name: a, limit: 1, window: 1s, when: [{header: b}]}]}", When::VALUES),
    (
        RATE_LIMIT,
        "{limits: [{name: a, limit: 1, window: 1s, when: [{header: b, operator: Exists, values: [c]}]}]}",
        When::VALUES,
    ),
    (
        RATE_LIMIT,
        "{limits: [{name: a, limit: 1, window: 1s, when: [{source: Path, operator: Exists}]}]}",
        When::ALWAYS_THERE,
    ),
    (RATE_LIMIT, "{plans: {from: {header: a}, plans: [{name: Gold, limit: 1}]}}", Limit::NAME),
    (RATE_LIMIT, "{plans: {from: {}}}", PlanSource::EXACTLY_ONE),
    (RATE_LIMIT, "{plans: {from: {jwtClaim: a, header: b}}}", PlanSource::EXACTLY_ONE),
    (RATE_LIMIT, "{plans: {from: {jwtClaim: a}, default: bronze}}", Plans::DEFAULT),
    (RATE_LIMIT, "{identity: {jwt: [{issuer: a, jwks: {}}]}}", Jwks::EXACTLY_ONE),
    (RATE_LIMIT, "{identity: {jwt: [{issuer: a, jwks: {inline: '{}', caBundle: pem}}]}}", Jwks::BUNDLE),
    (RATE_LIMIT, "{identity: {jwt: [{issuer: a, jwks: {uri: 'http://a/keys'}}]}}", Jwks::ADDRESS),
    (RATE_LIMIT, "{limits: [{name: Per_User, limit: 1, window: 1s}]}", Limit::NAME),
    (RATE_LIMIT, "{priority: {from: [{header: 'x priority'}]}}", HeaderName::FORM),
    (
        RATE_LIMIT,
        "{limits: [{name: a, limit: 1, window: 1s, algorithm: SlidingWindow, burst: 1}]}",
        Limit::BURST,
    ),
    (RATE_LIMIT, "{limits: [{name: a, limit: 1, window: 1s, subWindows: 1}]}", Limit::SUB_WINDOWS),
    (RATE_LIMIT, "{limits: [{name: a, limit: 1, window: 1s, cost: WeightedTokens}]}", Limit::WEIGHTS),
    (
        RATE_LIMIT,
        "{limits: [{name: a, limit: 1, window: 1s, cost: TotalTokens, weights: {}}]}",
        Limit::WEIGHTS,
    ),
    (RATE_LIMIT, "{limits: [{name: a, limit: 1, window: 1s, onExhausted: Finish}]}", Limit::ON_EXHAUSTED),
    (
        RATE_LIMIT,
        "{limits: [{name: a, limit: 1, window: 1s, cost: PromptTokens, algorithm: SlidingLog}]}",
        Limit::LOGGED_TOKENS,
    ),
    (RATE_LIMIT, "{limits: [{name: a, limit: 1, window: 1s, key: [{}]}]}", KeyPart::EXACTLY_ONE),
    (
        RATE_LIMIT,
        "{limits: [{name: a, limit: 1, window: 1s, key: [{header: a, source: Path}]}]}",
        KeyPart::EXACTLY_ONE,
    ),
    (RATE_LIMIT, "{limits: [{name: a, limit: 1}]}", Limit::WINDOW),
    (RATE_LIMIT, "{limits: [{name: a, limit: 1, algorithm: Concurrency, window: 1s}]}", Limit::WINDOW),
    (
        RATE_LIMIT,
        "{limits: [{name: a, limit: 2, window: 1s, algorithm: FixedWindow, initial: 1}]}",
        Limit::INITIAL,
    ),
    (RATE_LIMIT, "{limits: [{name: a, limit: 2, window: 1s, initial: 3}]}", Limit::TOO_FULL),
    (RATE_LIMIT, "{limits: [{name: a, limit: 2, window: 1s, burst: 1, initial: 2}]}", Limit::TOO_FULL),
    (RATE_LIMIT, "{limits: [{name: a, limit: 2, window: 1s, maxWait: 1s}]}", Limit::MAX_WAIT),
    (RATE_LIMIT, "{limits: [{name: a, limit: 10001, window: 1s, algorithm: SlidingLog}]}", Limit::LOG),
    (
        RATE_LIMIT,
        "{priority: {from: [{source: ServiceTier, header: X-Priority}]}}",
        PrioritySource::EXACTLY_ONE,
    ),
    (
        RATE_LIMIT,
        "{priority: {from: [{source: ServiceTier, number: {medium: 1}}]}}",
        PrioritySource::NO_NUMBER,
    ),
    (BREAKER, "{}", CircuitBreakerPolicySpec::NOTHING),
    (BREAKER, "{timeoutMs: 1, fallbackEndpoint: /f}", CircuitBreakerPolicySpec::NOTHING),
    (BREAKER, "{trip: {}}", Trip::NOTHING),
    (BREAKER, "{stages: []}", CircuitBreakerPolicySpec::NOTHING),
    (BREAKER, "{stages: [{name: decode}]}", StageBreaker::NOTHING),
    (BREAKER, "{stages: [{name: Decode, latency: {}}]}", StageBreaker::NAME),
    (BREAKER, "{failureThreshold: 1, timeouts: {}}", Timeouts::NOTHING),
    (BREAKER, "{failureThreshold: 1, timeouts: {firstByte: 1d}}", Duration::FORM),
    (BREAKER, "{trip: {errorRatio: {window: 1s, windowCalls: 30}}}", Trip::ONE_WINDOW),
    (BREAKER, "{trip: {slowCallRatio: {window: 1s, windowCalls: 30}}}", Trip::ONE_WINDOW),
    (BREAKER, "{trip: {latency: {window: 1s, windowCalls: 30}}}", Trip::ONE_WINDOW),
    (BREAKER, "{trip: {errorRatio: {windowCalls: 10}}}", Trip::MINIMUM),
    (BREAKER, "{trip: {slowCallRatio: {windowCalls: 10}}}", Trip::MINIMUM),
    (BREAKER, "{trip: {latency: {windowCalls: 10}}}", Trip::MINIMUM),
    (BREAKER, "{failureThreshold: 1, failureStatuses: ['429']}", CircuitBreakerPolicySpec::STATUS_IN_BOTH),
    (BREAKER, "{failureThreshold: 1, failureStatuses: ['3xx']}", StatusMatch::FORM),
    (BREAKER, "{failureThreshold: 1, backpressureStatuses: ['600']}", StatusMatch::FORM),
    (BREAKER, "{failureThreshold: 1, groupBy: {header: 'x canary'}}", HeaderName::FORM),
    (BREAKER, "{failureThreshold: 1, targetService: 'a.b.svc'}", CircuitBreakerPolicySpec::SERVICE),
    (BREAKER, "{failureThreshold: 1, fallbackEndpoint: 'https://a/'}", CircuitBreakerPolicySpec::FALLBACK),
    (BREAKER, "{failureThreshold: 1, fallbackEndpoint: '//a/'}", CircuitBreakerPolicySpec::FALLBACK),
    (BREAKER, "{failureThreshold: 1, fallbackEndpoint: '/a b'}", CircuitBreakerPolicySpec::FALLBACK),
    (BREAKER, "{failureThreshold: 1, fallbackEndpoint: '/a#b'}", CircuitBreakerPolicySpec::FALLBACK),
    (
        BREAKER,
        "{failureThreshold: 1, fallbackEndpoint: /f, fallback: {to: [{path: /f}]}}",
        CircuitBreakerPolicySpec::ONE_FALLBACK,
    ),
    (BREAKER, "{failureThreshold: 1, hooks: [{name: a}]}", Hook::ONE),
    (BREAKER, "{failureThreshold: 1, hooks: [{name: a, url: 'http://a', path: /x}]}", Hook::ONE),
    (BREAKER, "{failureThreshold: 1, hooks: [{name: A, url: 'http://a'}]}", Hook::NAME),
    (BREAKER, "{failureThreshold: 1, hooks: [{name: a, url: 'a'}]}", FallbackTarget::URL),
    (BREAKER, "{failureThreshold: 1, fallback: {to: [{}]}}", FallbackTarget::ONE),
    (BREAKER, "{failureThreshold: 1, fallback: {to: [{url: 'http://a', path: /f}]}}", FallbackTarget::ONE),
    (BREAKER, "{failureThreshold: 1, fallback: {to: [{cache: {}, static: {}}]}}", FallbackTarget::ONE),
    (BREAKER, "{failureThreshold: 1, fallback: {to: [{static: {}, model: a}]}}", FallbackTarget::ONE),
    (BREAKER, "{failureThreshold: 1, fallback: {to: [{url: 'ftp://a'}]}}", FallbackTarget::URL),
    (BREAKER, "{failureThreshold: 1, fallback: {to: [{url: 'http://a b'}]}}", FallbackTarget::URL),
    (BREAKER, "{failureThreshold: 1, fallback: {to: [{static: {contentType: json}}]}}", StaticAnswer::TYPE),
    (
        BREAKER,
        "{failureThreshold: 1, fallback: {to: [{service: {name: a.b, port: 1}}]}}",
        CircuitBreakerPolicySpec::SERVICE,
    ),
    (
        BREAKER,
        "{failureThreshold: 1, fallback: {to: [{service: {name: a, namespace: _, port: 1}}]}}",
        FallbackService::NAMESPACE,
    ),
    (BREAKER, "{failureThreshold: 1, targetService: a, selector: {}}", CircuitBreakerPolicySpec::ONE_TARGET),
    (
        BREAKER,
        "{failureThreshold: 1, targetService: a, targetRefs: [{kind: Service, name: a}]}",
        CircuitBreakerPolicySpec::ONE_TARGET,
    ),
    (
        BREAKER,
        "{failureThreshold: 1, selector: {}, targetRefs: [{kind: Service, name: a}]}",
        CircuitBreakerPolicySpec::ONE_TARGET,
    ),
];

#[test]
fn what_should_be_accepted_is_accepted() {
    for (kind, spec) in ACCEPTED {
        assert_eq!(refusals(kind, spec), Vec::<String>::new(), "{kind} {spec}");
    }
}

#[test]
fn what_should_be_refused_is_refused_for_its_own_reason_alone() {
    for (kind, spec, message) in REFUSED {
        assert_eq!(refusals(kind, spec), [*message], "{kind} {spec}");
    }
}

fn messages(schema: &Value, found: &mut BTreeSet<String>) {
    match schema {
        Value::Object(fields) => {
            for rule in fields.get("x-kubernetes-validations").and_then(Value::as_array).into_iter().flatten()
            {
                found.insert(rule["message"].as_str().unwrap_or_default().to_owned());
            }
            fields.values().for_each(|value| messages(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| messages(value, found)),
        _ => {}
    }
}

#[test]
fn every_rule_has_a_message_that_says_what_to_write_and_an_example_that_it_refuses() {
    let mut found = BTreeSet::new();
    messages(&schema(RATE_LIMIT), &mut found);
    messages(&schema(BREAKER), &mut found);
    for message in &found {
        assert!(message.contains("write "), "{message:?} says not what to write");
    }
    let refused: BTreeSet<_> = REFUSED.iter().map(|(_, _, message)| (*message).to_owned()).collect();
    assert_eq!(found, refused);
}
