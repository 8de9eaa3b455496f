//! One token bucket by key beside governor's keyed limiter in the same rounds: by the generic limiter, which takes a key
//! and gives a verdict as governor's does, and through the whole engine, which finds the key in a request, classifies
//! and counts it, and gives it a ticket. Table and law are the same in both.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::hint::black_box;
use std::num::NonZeroU32;
use std::rc::Rc;
use std::time::{Duration, Instant};

use governor::clock::{Clock as GovernorClock, MonotonicClock};
use governor::nanos::Nanos;
use governor::{Quota, RateLimiter};
use tidegate_core::{ResourceLimiter, Tick, Units};
use tidegate_policy::{self as policy, Algorithm, Millis, ResourceLimits};

use crate::calm;
use crate::figure::{Figure, median};
use crate::scaling::own_time;
use crate::traffic::{Clock, Request, SINGLE, admit, engine, introduce, uniform};

const ROUND: usize = 100_000;
const ROUNDS: usize = 15;

/// Keys that the limiter counts each for itself, by default; beyond, only the engine is asked.
const LIMITER_KEYS: u32 = 70_000;

/// A clock that says what it was told, as ours is an argument.
#[derive(Debug, Clone)]
struct Told(Rc<Cell<u64>>);

impl GovernorClock for Told {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        Nanos::from(self.0.get())
    }
}

pub(crate) fn run() -> Vec<Figure> {
    let mut figures = Vec::new();
    for (name, callers) in [("1 key", 1), ("10^3 keys", 1_000), ("10^6 keys", 1_000_000)] {
        figures.extend(compare(name, callers));
    }
    figures
}

/// With the time given, and with both reading the same clock.
fn compare(name: &str, callers: u32) -> Vec<Figure> {
    let (engine, paying_engine) = (engine(SINGLE), engine(SINGLE));
    let (limiter, paying_limiter) = (limiter(), limiter());
    let mut clock = Clock::new();
    introduce(&engine, &mut clock, callers);
    introduce(&paying_engine, &mut Clock::new(), callers);
    let requests: Vec<Request> = uniform(callers, ROUND).into_iter().map(Request::of).collect();
    let quota = Quota::per_second(NonZeroU32::MAX).allow_burst(NonZeroU32::MAX);
    let told = Told(Rc::new(Cell::new(0)));
    let given = RateLimiter::<[u8; 24], _, _, _>::dashmap_with_clock(quota, told.clone());
    let paying = RateLimiter::<[u8; 24], _, _, _>::dashmap_with_clock(quota, MonotonicClock);
    for request in (0..callers).map(Request::of) {
        black_box((given.check_key(&request.key).is_ok(), paying.check_key(&request.key).is_ok()));
    }
    // Later than the clock of the introduction.
    let (origin, offset) = (Instant::now(), Duration::from_hours(1));
    let now = || Tick::from_duration(offset + origin.elapsed());
    let one = Units::new(1.0);
    let calm = calm::rounds(ROUNDS, || {
        [
            cost(&requests, |request| drop(black_box(admit(&engine, clock.next(), request)))),
            cost(&requests, |request| {
                black_box(limiter.acquire(clock.next(), &request.key, one).is_ok());
            }),
            cost(&requests, |request| {
                told.0.set(told.0.get() + 1000);
                black_box(given.check_key(&request.key).is_ok());
            }),
            cost(&requests, |request| drop(black_box(admit(&paying_engine, now(), request)))),
            cost(&requests, |request| {
                black_box(paying_limiter.acquire(now(), &request.key, one).is_ok());
            }),
            cost(&requests, |request| {
                black_box(paying.check_key(&request.key).is_ok());
            }),
        ]
    });
    let note = format!("{} rounds of {ROUND}, {} discarded", calm.rounds.len(), calm.discarded);
    let nanos = |what: &str, of: usize| {
        let value = median(calm.rounds.iter().map(|round| round[of]).collect());
        Figure::new(format!("one key's bucket, {name}: {what}"), value, "ns").note(note.clone())
    };
    let ratio = |what: &str, of: usize, to: usize| {
        let value = median(calm.rounds.iter().map(|round| round[of] / round[to]).collect());
        Figure::new(format!("one key's bucket, {name}: {what}"), value, "ratio")
    };
    let mut figures = vec![nanos("whole engine", 0), nanos("governor", 2)];
    let engine = [
        ratio("whole engine / governor, time given", 0, 2),
        ratio("whole engine / governor, both read the clock", 3, 5),
    ];
    if callers > LIMITER_KEYS {
        figures.extend(engine.map(|figure| figure.at_most(1.0)));
        return figures;
    }
    figures.extend(engine);
    figures.push(nanos("limiter", 1));
    figures.push(ratio("limiter / governor, time given", 1, 2).at_most(1.0));
    figures.push(ratio("limiter / governor, both read the clock", 4, 5).at_most(1.0));
    figures
}

/// A limiter by key that refuses nobody.
fn limiter() -> ResourceLimiter {
    let most = 1_000_000_000;
    let algorithm = Algorithm::TokenBucket { burst: most, initial: None };
    let tenant = policy::Quota { algorithm, limit: most, window_millis: Millis::new(1000).ok() };
    let limits = ResourceLimits { units: BTreeMap::new(), global: None, tenant: Some(tenant), request: None };
    ResourceLimiter::new(&limits, 42, Tick::from_nanos(1))
}

/// Nanoseconds of this thread's own time for each request: a mean of wall time would count the neighbours' slices.
fn cost(requests: &[Request], mut decide: impl FnMut(&Request)) -> f64 {
    let start = own_time();
    requests.iter().for_each(&mut decide);
    (own_time() - start) * 1e9 / requests.len() as f64
}
