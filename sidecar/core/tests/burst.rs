//! A burst replayed in virtual time: low is refused, medium slowed, high passes all through, and all recovers by
//! itself.
#![allow(clippy::unwrap_used, clippy::panic)] // only tests are here

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use tidegate_core::{
    Cause, Completion, Decision, Engine, Facts, GpuMemoryReading, HeadOutcome, Headers, NoClaims, Signal,
    Tick, Tokens,
};
use tidegate_policy::report::{TierName, TierState};
use tidegate_policy::{PolicyDocument, PriorityClass};

const CLASSES: [&str; 3] = ["high", "medium", "low"];

struct Priority(&'static str);

impl Headers for Priority {
    fn get(&self, name: &str) -> Option<&[u8]> {
        (name == "x-priority").then_some(self.0.as_bytes())
    }
}

/// What happened to one class in a stretch of time.
#[derive(Debug, Default, Clone, Copy)]
struct Count {
    passed: u32,
    refused: u32,
}

/// An engine under traffic, with the 100 ms tick that the sidecar gives it.
struct Replay {
    engine: Engine,
    now: Tick,
    ticked: Tick,
}

impl Replay {
    fn new(tiers: &str) -> Self {
        let json = format!(
            r#"{{"apiVersion":"policy.tidegate.dev/v1","revision":"r",
            "priority":{{"from":[{{"header":"x-priority"}}],"default":"Medium","reservedHigh":0.2,
            "highAllowedFrom":[{{"cidr":"10.0.0.0/8"}}]}},
            "tiers":{{"policy":"inference/llama","mode":"Enforce",{tiers},
            "recovery":{{"belowRatio":0.9,"holdMillis":10000}}}}}}"#
        );
        let document = PolicyDocument::from_json(json.as_bytes()).unwrap();
        Self {
            engine: Engine::new(&document, 7, Tick::default()),
            now: Tick::default(),
            ticked: Tick::default(),
        }
    }

    /// So many requests of each class each second, evenly mixed, answered after `latency`.
    fn run(&mut self, seconds: u64, per_class: u32, latency: Duration) -> BTreeMap<&'static str, Count> {
        let mut counts = BTreeMap::new();
        let gap = Duration::from_secs(1) / (per_class.max(1) * 3);
        let end = self.now + Duration::from_secs(seconds);
        while self.now < end {
            for class in CLASSES {
                self.now = self.now + gap;
                if self.now.since(self.ticked) >= Duration::from_millis(100) {
                    self.ticked = self.now;
                    self.engine.tick(self.now);
                }
                if per_class > 0 {
                    self.request(class, latency, counts.entry(class).or_default());
                }
            }
        }
        counts
    }

    fn request(&self, class: &'static str, latency: Duration, count: &mut Count) {
        let headers = Priority(class);
        let client = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
        match self.engine.admit(
            self.now,
            &Facts {
                method: "POST",
                path: "/",
                client,
                headers: &headers,
                claims: &NoClaims,
                model: None,
                service_tier: None,
                tokens: Tokens::default(),
            },
        ) {
            Decision::Admit(admission) => {
                count.passed += 1;
                let mut ticket = admission.ticket;
                let end = self.now + latency;
                self.engine.responded(end, &mut ticket, HeadOutcome::Status(200));
                self.engine.complete(
                    end,
                    ticket,
                    &Completion { first_byte: Some(end), events: 0, whole: true, tokens: None },
                );
            }
            Decision::Refuse(refusal) => {
                count.refused += 1;
                assert_ne!(refusal.class, PriorityClass::High, "{refusal:?}");
                assert!(refusal.retry_after > Duration::ZERO);
                let expected = if refusal.class == PriorityClass::Low { "tier" } else { "pressure" };
                assert!(refusal.cause == Cause::Pressure || refusal.cause.as_str().contains(expected));
            }
            Decision::Fallback(..) => panic!("there is no breaker"),
            Decision::Queue(..) => panic!("there is no queue"),
        }
    }

    fn state(&self, tier: TierName) -> TierState {
        let status = self.engine.snapshot(self.now);
        status.tiers.iter().find(|t| t.tier == tier).unwrap().state
    }
}

const QUICK: Duration = Duration::from_millis(20);

#[test]
fn a_burst_over_the_learned_ceiling_is_shed_by_class_and_recovers_by_itself() {
    let mut replay = Replay::new(
        r#""qps":{"sampleIntervalMillis":1000,"windowMillis":300000,
        "learned":{"sigma":2,"factor":1.5,"floor":10,"minimumSamples":60}}"#,
    );
    let calm = replay.run(90, 20, QUICK);
    assert!(calm.values().all(|count| count.refused == 0), "{calm:?}");
    assert_eq!(replay.state(TierName::Qps), TierState::Normal);
    let burst = replay.run(30, 100, QUICK);
    assert_eq!(burst["high"].refused, 0);
    assert!(burst["low"].passed <= 60, "{burst:?}");
    let medium = burst["medium"];
    // What was admitted before the burst, less the reserve, and a quarter more: 50 requests a second of 100.
    assert!((300..1600).contains(&medium.passed), "{medium:?}");
    assert_eq!(replay.state(TierName::Qps), TierState::Tripped);
    replay.run(12, 20, QUICK);
    assert_eq!(replay.state(TierName::Qps), TierState::Normal);
    let after = replay.run(30, 20, QUICK);
    assert!(after.values().all(|count| count.refused == 0), "{after:?}");
}

#[test]
fn slow_answers_trip_the_latency_tier_after_three_periods_and_quiet_ones_free_it() {
    let mut replay = Replay::new(
        r#""latency":{"signal":"TotalLatency","percentile":0.99,"periodMillis":10000,"periods":3,
        "minimumSamples":100,"learned":{"factor":1.8,"minimumPeriods":3}}"#,
    );
    replay.run(61, 20, QUICK);
    assert_eq!(replay.state(TierName::Latency), TierState::Normal);
    let two = replay.run(19, 20, QUICK * 10);
    assert!(two.values().all(|count| count.refused == 0), "{two:?}");
    replay.run(12, 20, QUICK * 10);
    assert_eq!(replay.state(TierName::Latency), TierState::Tripped);
    let tripped = replay.run(5, 20, QUICK * 10);
    assert_eq!((tripped["low"].passed, tripped["high"].refused), (0, 0));
    replay.run(25, 0, QUICK);
    assert_eq!(replay.state(TierName::Latency), TierState::NoData, "nothing came");
    let after = replay.run(10, 20, QUICK);
    assert!(after.values().all(|count| count.refused == 0), "{after:?}");
}

#[test]
fn full_gpu_memory_sheds_at_once_and_frees_after_the_hold_time() {
    let mut replay =
        Replay::new(r#""gpuMemory":{"maxUtilization":0.75,"staleAfterMillis":60000,"onStale":"Ignore"}"#);
    let read = |replay: &Replay, used| {
        let reading = GpuMemoryReading { used, total: 100, at: replay.now };
        replay.engine.observe(replay.now, Signal::GpuMemory(reading));
    };
    read(&replay, 50);
    let calm = replay.run(10, 20, QUICK);
    assert!(calm.values().all(|count| count.refused == 0), "{calm:?}");
    read(&replay, 90);
    let full = replay.run(20, 20, QUICK);
    assert_eq!((full["low"].passed, full["high"].refused), (0, 0));
    // Calm were 60 a second: a quarter of what is not reserved is left, 12 a second and a burst.
    assert!((230..=260).contains(&full["medium"].passed), "{full:?}");
    read(&replay, 50);
    replay.run(11, 20, QUICK);
    assert_eq!(replay.state(TierName::GpuMemory), TierState::Normal);
    let after = replay.run(10, 20, QUICK);
    assert!(after.values().all(|count| count.refused == 0), "{after:?}");
}
