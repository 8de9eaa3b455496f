//! A decision that admits allocates nothing.

use std::net::{IpAddr, Ipv4Addr};

use tidegate_core::{Completion, Decision, Engine, Facts, HeadOutcome, Headers, NoClaims, Tick, Tokens};
use tidegate_policy::PolicyDocument;

#[path = "counting/allocator.rs"]
mod allocator;

use allocator::allocations;

struct Key([u8; 8]);

impl Headers for Key {
    fn get(&self, name: &str) -> Option<&[u8]> {
        match name {
            "x-api-key" => Some(&self.0),
            "x-priority" => Some(b"medium"),
            _ => None,
        }
    }
}

/// Everything on: a limit of each kind that keeps no log, tiers, the limit of requests in flight, and the breaker.
const POLICY: &str = r#"{"apiVersion":"policy.tidegate.dev/v1","revision":"r",
  "tiers":{"policy":"n/p","mode":"Enforce",
    "qps":{"sampleIntervalMillis":1000,"windowMillis":300000,"max":1000000000},
    "gpuMemory":{"maxUtilization":0.75,"staleAfterMillis":10000,"onStale":"Ignore"},
    "latency":{"signal":"TotalLatency","percentile":0.99,"periodMillis":10000,"periods":3,"minimumSamples":100,
      "maxMillis":8000},
    "recovery":{"belowRatio":0.9,"holdMillis":10000}},
  "concurrency":{"policy":"n/p","mode":"Enforce"},
  "limits":[
    {"policy":"n/p","name":"in-flight","mode":"Enforce","key":[{"header":"x-api-key"}],
      "algorithm":"concurrency","limit":999},
    {"policy":"n/p","name":"leak","mode":"Enforce","key":[],
      "algorithm":{"leakyBucket":{"burst":100000000}},"limit":100000000,"windowMillis":1000},
    {"policy":"n/p","name":"fixed","mode":"Enforce","key":[],
      "algorithm":"fixedWindow","limit":100000000,"windowMillis":1000},
    {"policy":"n/p","name":"ring","mode":"Enforce","key":[{"header":"x-api-key"}],
      "algorithm":{"slidingWindow":{"subWindows":10}},"limit":100000000,"windowMillis":60000},
    {"policy":"n/p","name":"bucket","mode":"Enforce","key":["clientIp","path"],
      "algorithm":{"tokenBucket":{"burst":10000000}},"limit":10000000,"windowMillis":1000}],
  "breaker":{"policy":"n/p","mode":"Enforce","openMillis":60000,"halfOpen":{"probes":1},"timeoutMillis":3000,
    "trip":{"consecutiveFailures":{"count":5},
      "errorRatio":{"threshold":0.5,"windowMillis":30000,"minimumRequests":20},
      "slowCallRatio":{"threshold":0.3,"slowerThanMillis":1000,"windowMillis":10000,"minimumRequests":20}}}}"#;

/// True if the request passed.
fn serve(engine: &Engine, n: u64) -> bool {
    let now = Tick::from_nanos(1_000_000_000 + n * 1000);
    let key = Key((n % 1000).to_le_bytes());
    let client = IpAddr::V4(Ipv4Addr::from(n as u32 % 500));
    let facts = Facts {
        method: "POST",
        path: "/v1/completions",
        client,
        headers: &key,
        claims: &NoClaims,
        model: None,
        service_tier: None,
        tokens: Tokens::default(),
    };
    let Decision::Admit(admission) = engine.admit(now, &facts) else { return false };
    let mut ticket = admission.ticket;
    engine.responded(now, &mut ticket, HeadOutcome::Status(200));
    engine.complete(now, ticket, &Completion { first_byte: Some(now), events: 0, whole: true, tokens: None });
    true
}

#[test]
fn two_hundred_thousand_requests_through_every_rule_allocate_nothing() {
    let engine = Engine::new(&PolicyDocument::from_json(POLICY.as_bytes()).unwrap(), 1, Tick::from_nanos(0));
    assert!((0..2_000).all(|n| serve(&engine, n)));
    let before = allocations();
    let passed = (2_000..202_000).filter(|n| serve(&engine, *n)).count();
    let allocated = allocations() - before;
    assert_eq!((passed, allocated), (200_000, 0));
}
