//! Nanoseconds per decision, beside governor in the same run. All of it is CPU time of the thread, which holds on a
//! busy machine too.
//!
//! `cargo bench -p tidegate-core --bench decide`
#![allow(missing_docs, clippy::panic)] // what criterion's macros make; a benchmark that is refused measures nothing

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU32;

use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use criterion::{Criterion, criterion_group, criterion_main};
use governor::clock::FakeRelativeClock;
use governor::{Quota, RateLimiter};
use tidegate_core::{
    Admission, Completion, Decision, Engine, Facts, HeadOutcome, Headers, NoClaims, Tick, Tokens,
};
use tidegate_policy::PolicyDocument;

/// Keys that fit the caches, and keys that do not.
const WARM: usize = 1_000;
const MANY: usize = 100_000;

/// Everything on: breaker with two windows, all tiers, priority, three limits.
const FULL: &str = r#"{"apiVersion":"policy.tidegate.dev/v1","revision":"bench",
  "tiers":{"policy":"inference/llama","mode":"Enforce",
    "qps":{"sampleIntervalMillis":1000,"windowMillis":300000,"max":1000000000},
    "gpuMemory":{"maxUtilization":0.75,"staleAfterMillis":10000,"onStale":"Ignore"},
    "latency":{"signal":"TotalLatency","percentile":0.99,"periodMillis":10000,"periods":3,"minimumSamples":100,
      "maxMillis":8000},
    "recovery":{"belowRatio":0.9,"holdMillis":10000}},
  "priority":{"from":[{"header":"x-priority"}],"default":"Medium","reservedHigh":0.2,
    "highAllowedFrom":[{"cidr":"10.0.0.0/8"}]},
  "limits":[
    {"policy":"inference/llama","name":"pod","mode":"Enforce","key":[],
      "algorithm":{"tokenBucket":{"burst":1000000000}},"limit":1000000000,"windowMillis":1000},
    {"policy":"inference/llama","name":"per-user","mode":"Enforce","key":[{"header":"x-api-key"}],
      "algorithm":{"slidingWindow":{"subWindows":10}},"limit":500000000,"windowMillis":60000},
    {"policy":"inference/llama","name":"per-client","mode":"Enforce","key":["clientIp"],
      "algorithm":{"tokenBucket":{"burst":1000000000}},"limit":1000000000,"windowMillis":1000}],
  "breaker":{"policy":"inference/llama","mode":"Enforce","openMillis":60000,"halfOpen":{"probes":1},
    "timeoutMillis":3000,"trip":{"consecutiveFailures":{"count":5},
      "errorRatio":{"threshold":0.5,"windowMillis":30000,"minimumRequests":20},
      "slowCallRatio":{"threshold":0.3,"slowerThanMillis":1000,"windowMillis":10000,"minimumRequests":20}}}}"#;

/// One token bucket by header and nothing else.
const SINGLE: &str = r#"{"apiVersion":"policy.tidegate.dev/v1","revision":"bench","limits":[
    {"policy":"inference/llama","name":"per-user","mode":"Enforce","key":[{"header":"x-api-key"}],
      "algorithm":{"tokenBucket":{"burst":1000000000}},"limit":1000000000,"windowMillis":1000}],
  "priority":{"from":[],"default":"Medium","highAllowedFrom":[]}}"#;

struct Request {
    key: [u8; 24],
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

fn requests(n: usize) -> Vec<Request> {
    let request = |i: usize| {
        let mut key = *b"sk-test-0123456789......";
        key[18..].copy_from_slice(format!("{i:06}").as_bytes());
        Request { key, client: IpAddr::V4(Ipv4Addr::from(0x0A00_0000 + (i % 5000) as u32)) }
    };
    (0..n).map(request).collect()
}

fn engine(json: &str) -> Engine {
    match PolicyDocument::from_json(json.as_bytes()) {
        Ok(document) => Engine::new(&document, 42, Tick::from_nanos(1)),
        Err(error) => panic!("the document of the benchmark: {error}"),
    }
}

fn admit(engine: &Engine, now: Tick, request: &Request) -> Admission {
    let facts = Facts {
        method: "POST",
        path: "/v1/chat/completions",
        client: request.client,
        headers: request,
        claims: &NoClaims,
        tokens: Tokens::default(),
    };
    match engine.admit(now, &facts) {
        Decision::Admit(admission) => admission,
        other => panic!("refused: {other:?}"),
    }
}

fn finish(engine: &Engine, now: Tick, admission: Admission) {
    let mut ticket = admission.ticket;
    engine.responded(now, &mut ticket, HeadOutcome::Status(200));
    let _ = engine.complete(
        now,
        ticket,
        &Completion { first_byte: Some(now), events: 0, whole: true, tokens: None },
    );
}

/// Requests in an order that no prefetcher knows, 1 µs apart.
struct Traffic {
    requests: Vec<Request>,
    next: usize,
    now: u64,
}

impl Traffic {
    fn new(keys: usize) -> Self {
        Self { requests: requests(keys), next: 0, now: 1_000_000_000 }
    }

    fn next(&mut self) -> (Tick, &Request) {
        self.now += 1000;
        self.next = (self.next + 7919) % self.requests.len();
        (Tick::from_nanos(self.now), &self.requests[self.next])
    }
}

/// CPU time of the thread that measures.
struct CpuTime;

impl Measurement for CpuTime {
    type Intermediate = u64;
    type Value = u64;

    fn start(&self) -> u64 {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
    }

    fn end(&self, start: u64) -> u64 {
        self.start() - start
    }

    fn add(&self, one: &u64, other: &u64) -> u64 {
        one + other
    }

    fn zero(&self) -> u64 {
        0
    }

    fn to_f64(&self, value: &u64) -> f64 {
        *value as f64
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        WallTime.formatter()
    }
}

fn decide(c: &mut Criterion<CpuTime>) {
    let mut group = c.benchmark_group("decide");
    for (name, json, keys) in [("full", FULL, WARM), ("single", SINGLE, WARM), ("single", SINGLE, MANY)] {
        let engine = engine(json);
        let mut traffic = Traffic::new(keys);
        group.bench_function(format!("{name}, {keys} keys: admit"), |b| {
            b.iter(|| {
                let (now, request) = traffic.next();
                black_box(admit(&engine, now, request))
            });
        });
        group.bench_function(format!("{name}, {keys} keys: admit, respond, complete"), |b| {
            b.iter(|| {
                let (now, request) = traffic.next();
                finish(&engine, now, admit(&engine, now, request));
            });
        });
    }
    group.finish();
}

/// The same traffic through governor's keyed limiter: with the key as the request has it, and with a number that
/// somebody else has made of it.
fn governor(c: &mut Criterion<CpuTime>) {
    let mut group = c.benchmark_group("governor");
    let quota = Quota::per_second(NonZeroU32::MAX).allow_burst(NonZeroU32::MAX);
    for keys in [WARM, MANY] {
        let clock = FakeRelativeClock::default();
        let by_bytes = RateLimiter::<[u8; 24], _, _, _>::dashmap_with_clock(quota, clock.clone());
        let mut traffic = Traffic::new(keys);
        group.bench_function(format!("keyed DashMap, {keys} keys of 24 bytes"), |b| {
            b.iter(|| {
                let (_, request) = traffic.next();
                clock.advance(std::time::Duration::from_micros(1));
                black_box(by_bytes.check_key(&request.key).is_ok())
            });
        });
        let by_number = RateLimiter::<u32, _, _, _>::dashmap_with_clock(quota, clock.clone());
        group.bench_function(format!("keyed DashMap, {keys} keys of 4 bytes"), |b| {
            b.iter(|| {
                let (now, _) = traffic.next();
                clock.advance(std::time::Duration::from_micros(1));
                black_box(by_number.check_key(&((now.as_nanos() / 1000) as u32 % keys as u32)).is_ok())
            });
        });
    }
    group.finish();
}

fn refuse(c: &mut Criterion<CpuTime>) {
    let json = SINGLE.replace("1000000000}},\"limit\":1000000000", "1}},\"limit\":1");
    let engine = engine(&json);
    let requests = requests(100);
    let facts = |r| Facts {
        method: "POST",
        path: "/",
        client: IpAddr::V4(Ipv4Addr::LOCALHOST),
        headers: r,
        claims: &NoClaims,
        tokens: Tokens::default(),
    };
    let now = Tick::from_nanos(1_000_000_000);
    for request in &requests {
        black_box(engine.admit(now, &facts(request)));
    }
    let mut i = 0;
    c.bench_function("decide/single, 100 keys: refuse", |b| {
        b.iter(|| {
            i = (i + 1) % requests.len();
            black_box(engine.admit(now, &facts(&requests[i])))
        });
    });
}

/// Not a mean but the spread: each decision timed by itself, less what the clock costs. Not run when the command
/// line asks for another benchmark.
fn percentiles(_: &mut Criterion<CpuTime>) {
    let asked = std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
    if asked.is_some_and(|name| name != "percentiles") {
        return;
    }
    for keys in [WARM, MANY, 1_000_000] {
        let engine = engine(FULL);
        let mut traffic = Traffic::new(keys);
        for _ in 0..keys * 2 {
            let (now, request) = traffic.next();
            black_box(admit(&engine, now, request));
        }
        let clock = timings(|| {});
        let decisions = timings(|| {
            let (now, request) = traffic.next();
            black_box(admit(&engine, now, request));
        });
        let at = |timings: &[u64], share: f64| timings[(timings.len() as f64 * share) as usize];
        let own = |share| at(&decisions, share).saturating_sub(at(&clock, 0.5));
        println!("decide/full, {keys} keys, one by one: p50 {} ns, p99 {} ns", own(0.5), own(0.99));
    }
}

fn timings(mut step: impl FnMut()) -> Vec<u64> {
    let mut timings: Vec<u64> = (0..1_000_000)
        .map(|_| {
            let start = CpuTime.start();
            step();
            CpuTime.end(start)
        })
        .collect();
    timings.sort_unstable();
    timings
}

criterion_group! {
    name = benches;
    config = Criterion::default().with_measurement(CpuTime);
    targets = decide, refuse, governor, percentiles
}
criterion_main!(benches);
