//! Every verdict of ten million requests beside an oracle that remembers everything, for each way to count.
//!
//! Arrivals are Poisson at more than the limit, bursts at one instant, pauses, and now and then a day. The oracles do
//! exact integer arithmetic on what was admitted; a window may count up to one sub-window longer than it says, so
//! between the two nothing is asserted of it.

use std::collections::VecDeque;

use tidegate_core::{Decision, Tick};

use crate::figure::Figure;
use crate::traffic::{Random, Request, engine};

const EVENTS: u64 = 10_000_000;
const KEYS: u32 = 16;
const LIMIT: u64 = 100;
const BURST: u64 = 40;
const SUB_WINDOWS: u64 = 10;
const SECOND: u64 = 1_000_000_000;
const DAY: u64 = 86_400 * SECOND;

/// What must be answered. Nothing: either will do.
type Expected = Option<bool>;

/// Knows what has been admitted on one key.
trait Oracle {
    fn expects(&mut self, now: u64) -> Expected;
    fn admitted(&mut self, now: u64);
}

/// At most [`LIMIT`] in any trailing window, and no refusal unless a window of `longest` holds as many.
struct Log {
    instants: VecDeque<u64>,
    longest: u64,
}

/// At most [`LIMIT`] in each window that begins with a whole second.
struct Window {
    second: u64,
    count: u64,
}

/// A bucket of [`BURST`] that refills at [`LIMIT`] a second, in units of a request times a nanosecond.
struct Bucket {
    level: u64,
    seen: u64,
}

impl Oracle for Log {
    fn expects(&mut self, now: u64) -> Expected {
        let within =
            |window: u64| self.instants.iter().rev().take_while(|at| now - **at < window).count() as u64;
        if within(SECOND) >= LIMIT {
            return Some(false);
        }
        (within(self.longest) < LIMIT).then_some(true)
    }

    fn admitted(&mut self, now: u64) {
        while self.instants.len() as u64 > 2 * LIMIT {
            self.instants.pop_front();
        }
        self.instants.push_back(now);
    }
}

impl Oracle for Window {
    fn expects(&mut self, now: u64) -> Expected {
        if now / SECOND != self.second {
            *self = Self { second: now / SECOND, count: 0 };
        }
        Some(self.count < LIMIT)
    }

    fn admitted(&mut self, _: u64) {
        self.count += 1;
    }
}

impl Oracle for Bucket {
    fn expects(&mut self, now: u64) -> Expected {
        let refilled = (now - self.seen).saturating_mul(LIMIT).saturating_add(self.level);
        *self = Self { level: refilled.min(BURST * SECOND), seen: now };
        Some(self.level >= SECOND)
    }

    fn admitted(&mut self, _: u64) {
        self.level -= SECOND;
    }
}

pub(crate) fn run() -> Vec<Figure> {
    let log = |longest: u64| move || Log { instants: VecDeque::new(), longest };
    let full = || Bucket { level: BURST * SECOND, seen: 0 };
    vec![
        check("token bucket", r#"{"tokenBucket":{"burst":40}}"#, full),
        check("leaky bucket", r#"{"leakyBucket":{"burst":40}}"#, full),
        check("fixed window", r#""fixedWindow""#, || Window { second: 0, count: 0 }),
        check("sliding window", r#"{"slidingWindow":{"subWindows":10}}"#, log(SECOND + SECOND / SUB_WINDOWS)),
        check("exact log", r#""slidingLog""#, log(SECOND)),
    ]
}

fn check<O: Oracle>(name: &str, algorithm: &str, oracle: impl Fn() -> O) -> Figure {
    let policy = format!(
        r#"{{"apiVersion":"policy.tidegate.dev/v1","revision":"oracle","limits":[
            {{"policy":"n/p","name":"per-user","mode":"Enforce","key":[{{"header":"x-api-key"}}],
              "algorithm":{algorithm},"limit":{LIMIT},"windowMillis":1000}}],
            "priority":{{"from":[],"default":"Medium","highAllowedFrom":[]}}}}"#
    );
    let engine = engine(&policy);
    let requests: Vec<Request> = (0..KEYS).map(Request::of).collect();
    let mut oracles: Vec<O> = (0..KEYS).map(|_| oracle()).collect();
    let (mut random, mut now, mut still) = (Random::new(3), 1_000 * DAY, 0);
    let (mut wrong, mut admitted) = (0_u64, 0_u64);
    for _ in 0..EVENTS {
        now += gap(&mut random, &mut still);
        let key = (random.next() % u64::from(KEYS)) as usize;
        let passed =
            matches!(engine.admit(Tick::from_nanos(now), &requests[key].facts()), Decision::Admit(_));
        wrong += u64::from(oracles[key].expects(now).is_some_and(|expected| expected != passed));
        if passed {
            oracles[key].admitted(now);
            admitted += 1;
        }
    }
    let note = format!("{admitted} of {EVENTS} admitted");
    Figure::new(format!("10^7 requests beside the oracle, {name}: wrong"), wrong as f64, "verdicts")
        .at_most(0.0)
        .note(note)
}

/// Nanoseconds until the next request.
fn gap(random: &mut Random, still: &mut u64) -> u64 {
    if *still > 0 {
        *still -= 1;
        return 0;
    }
    // Of all keys together a third more than is allowed.
    let mean = SECOND as f64 / (LIMIT * u64::from(KEYS)) as f64 / 1.3;
    match random.next() % 20_000 {
        0 => DAY,
        1..20 => random.next() % (3 * SECOND),
        20..60 => {
            *still = random.next() % (3 * LIMIT * u64::from(KEYS));
            0
        }
        _ => (-(1.0 - random.share()).ln() * mean) as u64,
    }
}
