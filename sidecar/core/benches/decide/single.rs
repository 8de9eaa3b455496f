//! One token bucket by key through the whole engine, beside governor's keyed limiter in the same rounds.

use std::cell::Cell;
use std::hint::black_box;
use std::num::NonZeroU32;
use std::rc::Rc;
use std::time::{Duration, Instant};

use governor::clock::{Clock as GovernorClock, MonotonicClock};
use governor::nanos::Nanos;
use governor::{Quota, RateLimiter};
use tidegate_core::Tick;

use crate::calm;
use crate::figure::{Figure, median};
use crate::scaling::own_time;
use crate::traffic::{Clock, Request, SINGLE, admit, engine, introduce, uniform};

const ROUND: usize = 100_000;
const ROUNDS: usize = 15;

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
fn compare(name: &str, callers: u32) -> [Figure; 4] {
    let (engine, paying_engine) = (engine(SINGLE), engine(SINGLE));
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
    let calm = calm::rounds(ROUNDS, || {
        let ours = cost(&requests, |request| drop(black_box(admit(&engine, clock.next(), request))));
        let theirs = cost(&requests, |request| {
            told.0.set(told.0.get() + 1000);
            black_box(given.check_key(&request.key).is_ok());
        });
        let ours_paying = cost(&requests, |request| {
            let now = Tick::from_duration(offset + origin.elapsed());
            drop(black_box(admit(&paying_engine, now, request)));
        });
        let theirs_paying = cost(&requests, |request| {
            black_box(paying.check_key(&request.key).is_ok());
        });
        [ours, theirs, ours_paying, theirs_paying]
    });
    let note = format!("{} rounds of {ROUND}, {} discarded", calm.rounds.len(), calm.discarded);
    let of = |value: fn(&[f64; 4]) -> f64| median(calm.rounds.iter().map(value).collect());
    let figure =
        |what: &str, value: f64, unit| Figure::new(format!("one key's bucket, {name}: {what}"), value, unit);
    [
        figure("ours", of(|round| round[0]), "ns").note(note.clone()),
        figure("governor", of(|round| round[1]), "ns").note(note),
        figure("ours / governor, time given", of(|round| round[0] / round[1]), "ratio").at_most(1.0),
        figure("ours / governor, both read the clock", of(|round| round[2] / round[3]), "ratio").at_most(1.0),
    ]
}

/// Nanoseconds of this thread's own time for each request: a mean of wall time would count the neighbours' slices.
fn cost(requests: &[Request], mut decide: impl FnMut(&Request)) -> f64 {
    let start = own_time();
    requests.iter().for_each(&mut decide);
    (own_time() - start) * 1e9 / requests.len() as f64
}
