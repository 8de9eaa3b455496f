//! All layers of a policy under a surge, in virtual time.
#![allow(clippy::unwrap_used)] // only tests are here

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tidegate_core::{
    Completion, Decision, Engine, Facts, HeadOutcome, Headers, NoClaims, Tick, Ticket, Tokens,
};
use tidegate_policy::PolicyDocument;
use tidegate_policy::report::BreakerState;

/// Requests per second without the surge, and how many times that it brings.
const CALM: u64 = 50_600;
const SURGE: u64 = 17;
/// One request of five is the greedy user's; the others share theirs among so many.
const USERS: u64 = 10_000;
/// The engine answers in this time while it has no more to do than this.
const LATENCY: Duration = Duration::from_millis(20);
const AT_ONCE: usize = 256;

/// The policies of an example as a sidecar gets them.
fn example(name: &str) -> PolicyDocument {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/examples").join(name);
    let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-tidegate"));
    let output = command.arg("compile").arg("-f").arg(file).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    PolicyDocument::from_json(&output.stdout).unwrap()
}

struct User(String);

impl Headers for User {
    fn get(&self, name: &str) -> Option<&[u8]> {
        (name == "x-user").then_some(self.0.as_bytes())
    }
}

struct Surge {
    engine: Engine,
    now: Tick,
    ticked: Tick,
    arrivals: u64,
    ends: BinaryHeap<Reverse<(Tick, u64)>>,
    tickets: BTreeMap<u64, Ticket>,
    admitted: u64,
    greedy: u64,
    waits: Vec<Duration>,
    refused: BTreeMap<String, u64>,
    most_in_flight: usize,
}

impl Surge {
    fn new(document: &PolicyDocument) -> Self {
        let start = Tick::default();
        Self {
            engine: Engine::new(document, 7, start),
            now: start,
            ticked: start,
            arrivals: 0,
            ends: BinaryHeap::new(),
            tickets: BTreeMap::new(),
            admitted: 0,
            greedy: 0,
            waits: Vec::new(),
            refused: BTreeMap::new(),
            most_in_flight: 0,
        }
    }

    /// So many requests a second, evenly; how many of them were admitted.
    fn run(&mut self, seconds: u64, rate: u64) -> u64 {
        let before = self.admitted;
        let (start, all) = (self.now, seconds * rate);
        for n in 0..all {
            self.now = start + Duration::from_nanos(n * 1_000_000_000 / rate);
            self.catch_up();
            self.arrive();
        }
        self.now = start + Duration::from_secs(seconds);
        self.admitted - before
    }

    fn catch_up(&mut self) {
        if self.now.since(self.ticked) >= Duration::from_millis(100) {
            self.ticked = self.now;
            assert!(self.engine.tick(self.now).is_empty(), "nobody waits");
        }
        while let Some(Reverse((end, n))) = self.ends.peek().copied().filter(|next| next.0.0 <= self.now) {
            self.ends.pop();
            self.answer(end, n);
        }
    }

    fn answer(&mut self, end: Tick, n: u64) {
        let mut ticket = self.tickets.remove(&n).unwrap();
        self.engine.responded(end, &mut ticket, HeadOutcome::Status(200));
        self.engine.first_byte(end, &mut ticket);
        let whole = Completion { first_byte: Some(end), events: 1, whole: true, tokens: None };
        assert!(self.engine.complete(end, ticket, &whole).is_empty(), "nobody waits");
    }

    fn arrive(&mut self) {
        self.arrivals += 1;
        let greedy = self.arrivals.is_multiple_of(5);
        // Users in an order that has nothing to do with time.
        let user = self.arrivals.wrapping_mul(0x9E37_79B9_7F4A_7C15) % USERS;
        let user = User(if greedy { "greedy".to_owned() } else { user.to_string() });
        let decision = self.engine.admit(
            self.now,
            &Facts {
                method: "POST",
                path: "/v1/completions",
                client: IpAddr::V4(Ipv4Addr::LOCALHOST),
                headers: &user,
                claims: &NoClaims,
                model: None,
                service_tier: None,
                tokens: Tokens::default(),
            },
        );
        match decision {
            Decision::Admit(admission) => {
                self.admitted += 1;
                self.greedy += u64::from(greedy);
                self.waits.push(admission.wait);
                let load = (self.tickets.len() / AT_ONCE) as u32 + 1;
                self.ends.push(Reverse((self.now + admission.wait + LATENCY * load, self.arrivals)));
                self.tickets.insert(self.arrivals, admission.ticket);
                self.most_in_flight = self.most_in_flight.max(self.tickets.len());
            }
            Decision::Refuse(refusal) => {
                assert!(refusal.retry_after > Duration::ZERO);
                *self.refused.entry(refusal.rule.name.clone()).or_default() += 1;
            }
            other => unreachable!("neither fallback nor queue: {other:?}"),
        }
    }

    fn p99(&mut self) -> Duration {
        self.waits.sort_unstable();
        self.waits[self.waits.len() * 99 / 100]
    }
}

#[test]
fn all_layers_hold_a_surge_of_seventeen_times_without_a_trip() {
    let mut surge = Surge::new(&example("layers.yaml"));
    let calm = surge.run(2, CALM);
    let peak = surge.run(2, CALM * SURGE);
    let after = surge.run(2, CALM);
    let p99 = surge.p99();
    println!(
        "{CALM}/s, {}/s, {CALM}/s: admitted {calm}, {peak}, {after}; P99 of the wait {p99:?}, at most {:?}; at most {} in \
         flight; refused by {:?}; the greedy user got {}",
        CALM * SURGE,
        surge.waits.last().unwrap(),
        surge.most_in_flight,
        surge.refused,
        surge.greedy
    );
    assert!(p99 <= Duration::from_millis(12), "{p99:?}");
    // The pod serves what it can all the time, and never more: the burst of its bucket is spent in the first second.
    for (admitted, seconds, burst) in [(calm, 2, 2000), (peak, 2, 0), (after, 2, 0)] {
        let rate = 5000 * seconds;
        assert!((rate * 19 / 20..=rate + burst + 1).contains(&admitted), "{admitted} in {seconds} s");
    }
    assert!(surge.greedy <= 3000, "{}: all within one minute", surge.greedy);
    let status = surge.engine.snapshot(surge.now);
    let breaker = status.breaker.unwrap();
    assert_eq!(breaker.state, BreakerState::Closed);
    assert!(breaker.transitions.iter().all(|transition| transition.count == 0), "{breaker:?}");
    assert!(surge.most_in_flight <= 1000, "{}", surge.most_in_flight);
    assert!(
        surge.refused.keys().all(|rule| ["per-user", "per-node", "concurrency"].contains(&rule.as_str()))
    );
}
