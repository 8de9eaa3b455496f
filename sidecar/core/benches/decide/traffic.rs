//! Policies and requests of the benchmarks.

use std::net::{IpAddr, Ipv4Addr};

use tidegate_core::{
    Admission, Completion, Decision, Engine, Facts, HeadOutcome, Headers, NoClaims, Tick, Tokens,
};
use tidegate_policy::PolicyDocument;

/// Everything on: breaker with three conditions, all tiers, priority, and five limits with two keys between them, whose
/// rules have room for twice the keys that come.
pub(crate) const FULL: &str = r#"{"apiVersion":"policy.tidegate.dev/v1","revision":"bench","limitMemoryBytes":268435456,
  "tiers":{"policy":"n/p","mode":"Enforce",
    "qps":{"sampleIntervalMillis":1000,"windowMillis":300000,"max":1000000000},
    "gpuMemory":{"maxUtilization":0.75,"staleAfterMillis":10000,"onStale":"Ignore"},
    "latency":{"signal":"TotalLatency","percentile":0.99,"periodMillis":10000,"periods":3,"minimumSamples":100,
      "maxMillis":8000},
    "recovery":{"belowRatio":0.9,"holdMillis":10000}},
  "priority":{"from":[{"header":"x-priority"}],"default":"Medium","reservedHigh":0.2,
    "highAllowedFrom":[{"cidr":"10.0.0.0/8"}]},
  "limits":[
    {"policy":"n/p","name":"in-flight","mode":"Enforce","key":[],"algorithm":"concurrency","limit":16000000},
    {"policy":"n/p","name":"leak","mode":"Enforce","key":[],
      "algorithm":{"leakyBucket":{"burst":1000000000}},"limit":1000000000,"windowMillis":1000},
    {"policy":"n/p","name":"per-client","mode":"Enforce","key":["clientIp"],"maxKeys":2097152,
      "algorithm":{"slidingWindow":{"subWindows":6}},"limit":500000000,"windowMillis":60000},
    {"policy":"n/p","name":"pod","mode":"Enforce","key":[],
      "algorithm":{"tokenBucket":{"burst":1000000000}},"limit":1000000000,"windowMillis":1000},
    {"policy":"n/p","name":"per-user","mode":"Enforce","key":[{"header":"x-api-key"}],"maxKeys":2097152,
      "algorithm":{"tokenBucket":{"burst":100000000}},"limit":100000000,"windowMillis":1000}],
  "breaker":{"policy":"n/p","mode":"Enforce","openMillis":60000,"halfOpen":{"probes":1},
    "timeoutMillis":3000,"trip":{"consecutiveFailures":{"count":5},
      "errorRatio":{"threshold":0.5,"windowMillis":30000,"minimumRequests":20},
      "slowCallRatio":{"threshold":0.3,"slowerThanMillis":1000,"windowMillis":10000,"minimumRequests":20}}}}"#;

/// One token bucket by header and nothing else.
pub(crate) const SINGLE: &str = r#"{"apiVersion":"policy.tidegate.dev/v1","revision":"bench","limitMemoryBytes":268435456,"limits":[
    {"policy":"n/p","name":"per-user","mode":"Enforce","key":[{"header":"x-api-key"}],"maxKeys":2097152,
      "algorithm":{"tokenBucket":{"burst":1000000000}},"limit":1000000000,"windowMillis":1000}],
  "priority":{"from":[],"default":"Medium","highAllowedFrom":[]}}"#;

/// The requests of one caller.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request {
    pub(crate) key: [u8; 24],
    client: IpAddr,
}

impl Headers for Request {
    fn get(&self, name: &str) -> Option<&[u8]> {
        match name {
            "x-api-key" => Some(&self.key),
            "x-priority" => Some(b"medium"),
            _ => None,
        }
    }
}

impl Request {
    /// Of caller number `caller`.
    pub(crate) fn of(caller: u32) -> Self {
        let mut key = *b"sk-test-0123456789......";
        let mut rest = caller;
        for digit in key[16..].iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        Self { key, client: IpAddr::V4(Ipv4Addr::from(0x0B00_0000 + caller)) }
    }

    pub(crate) fn facts(&self) -> Facts<'_> {
        Facts {
            method: "POST",
            path: "/v1/chat/completions",
            client: self.client,
            headers: self,
            claims: &NoClaims,
            model: None,
            service_tier: None,
            tokens: Tokens::default(),
        }
    }
}

/// An engine for a policy that validates.
pub(crate) fn engine(json: &str) -> Engine {
    match PolicyDocument::from_json(json.as_bytes()) {
        Ok(document) => Engine::new(&document, 42, Tick::from_nanos(1)),
        Err(error) => panic!("the document of the benchmark: {error}"),
    }
}

pub(crate) fn admit(engine: &Engine, now: Tick, request: &Request) -> Admission {
    admitted(engine.admit(now, &request.facts()))
}

pub(crate) fn admitted(decision: Decision) -> Admission {
    match decision {
        Decision::Admit(admission) => admission,
        other => panic!("refused: {other:?}"),
    }
}

pub(crate) fn finish(engine: &Engine, now: Tick, admission: Admission) {
    let mut ticket = admission.ticket;
    engine.responded(now, &mut ticket, HeadOutcome::Status(200));
    let completion = Completion { first_byte: Some(now), events: 0, whole: true, tokens: None };
    // Nobody waits for the place.
    _ = engine.complete(now, ticket, &completion);
}

/// Virtual time, a microsecond for each request.
#[derive(Debug)]
pub(crate) struct Clock(u64);

impl Clock {
    pub(crate) fn new() -> Self {
        Self(1_000_000_000)
    }

    pub(crate) fn next(&mut self) -> Tick {
        self.0 += 1000;
        Tick::from_nanos(self.0)
    }
}

/// Makes every caller known to the engine, with the ticks that make room for them.
pub(crate) fn introduce(engine: &Engine, clock: &mut Clock, callers: u32) {
    for caller in 0..callers {
        let now = clock.next();
        if caller % 1000 == 0 {
            engine.tick(now);
        }
        finish(engine, now, admit(engine, now, &Request::of(caller)));
    }
}

/// Pseudorandom numbers, by xorshift64* (Vigna).
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// In [0, 1).
    pub(crate) fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Callers, each as likely as the others.
pub(crate) fn uniform(callers: u32, requests: usize) -> Vec<u32> {
    let mut random = Random::new(7);
    (0..requests).map(|_| (random.next() % u64::from(callers)) as u32).collect()
}

/// Callers by Zipf's law with exponent 1: the second is half as frequent as the first.
pub(crate) fn zipf(callers: u32, requests: usize) -> Vec<u32> {
    let mut sum = 0.0;
    let sums: Vec<f64> = (1..=callers)
        .map(|rank| {
            sum += 1.0 / f64::from(rank);
            sum
        })
        .collect();
    let mut random = Random::new(11);
    // Frequent callers are not neighbours in memory.
    let spread = |rank: usize| (rank as u64 * 7_919 % u64::from(callers)) as u32;
    (0..requests).map(|_| random.share() * sum).map(|at| spread(sums.partition_point(|s| *s < at))).collect()
}
