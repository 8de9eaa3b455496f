//! The full decision, one by one, by cycle counter: key, token bucket, window, leaky bucket, concurrency, tiers,
//! breaker and priority; two of the rules look a key up.

use std::hint::black_box;

use crate::calm::{self, Calm};
use crate::cycles;
use crate::figure::{Figure, quantile};
use crate::traffic::{Clock, FULL, Random, Request, admitted, engine, finish, introduce, uniform, zipf};

const CALLERS: u32 = 1_000_000;
/// Cache lines of a table with room for twice as many keys.
const TABLE_LINES: usize = 2_097_152;
/// Decisions of one round.
const ROUND: usize = 50_000;
const ROUNDS: usize = 20;
/// Decisions that are timed as one.
const ROW: usize = 50;

pub(crate) fn run() -> Vec<Figure> {
    let one = measure("1 key", 1, &vec![0; ROUND]);
    let uniform = measure("10^6 keys, uniform", CALLERS, &uniform(CALLERS, ROUND * ROUNDS));
    let zipf = measure("10^6 keys, Zipf", CALLERS, &zipf(CALLERS, ROUND * ROUNDS));
    one.into_iter().chain([in_a_row()]).chain(uniform).chain(zipf).chain(load()).collect()
}

/// Where the counter moves in steps of many cycles, one decision is as long as one step more or less: so the mean of many
/// that come one after another and do not end, of which there is room for enough.
fn in_a_row() -> Figure {
    let engine = engine(FULL);
    let mut clock = Clock::new();
    introduce(&engine, &mut clock, 1);
    let request = Request::of(0);
    let calm = calm::rounds(ROUNDS, || {
        engine.tick(clock.next());
        let round = (0..ROUND / ROW).map(|_| {
            let start = cycles::start();
            for _ in 0..ROW {
                drop(black_box(engine.admit(clock.next(), &request.facts())));
            }
            cycles::end() - start
        });
        round.collect::<Vec<u64>>()
    });
    let name = format!("full decision, 1 key: mean of {ROW} in a row, median");
    let whole = figure(name, &calm, 0.5);
    Figure { value: whole.value / ROW as f64, ..whole }
}

/// What nobody can do without who looks up one of 10⁶ keys: one load from as much memory as the window's table has.
fn load() -> [Figure; 2] {
    let lines = vec![[1_u64; 8]; TABLE_LINES];
    let mut random = Random::new(13);
    let calm = calm::rounds(ROUNDS, || {
        let round = (0..ROUND).map(|_| {
            let line = random.next() as usize % TABLE_LINES;
            let start = cycles::start();
            black_box(lines[line][0]);
            cycles::end() - start
        });
        round.collect::<Vec<u64>>()
    });
    [("median", 0.5), ("P99", 0.99)].map(|(what, share)| {
        let name = format!("one load at random from the memory of 10^6 keys: {what}");
        figure(name, &calm, share)
    })
}

fn measure(name: &str, callers: u32, sequence: &[u32]) -> [Figure; 2] {
    let engine = engine(FULL);
    let mut clock = Clock::new();
    introduce(&engine, &mut clock, callers);
    let mut callers = sequence.iter().cycle();
    let calm = calm::rounds(ROUNDS, || {
        engine.tick(clock.next());
        let round = callers.by_ref().take(ROUND).map(|caller| {
            let (now, request) = (clock.next(), Request::of(*caller));
            let start = cycles::start();
            let decision = engine.admit(now, &request.facts());
            let cycles = cycles::end() - start;
            finish(&engine, now, admitted(decision));
            cycles
        });
        round.collect::<Vec<u64>>()
    });
    let of = |what: &str, share: f64| figure(format!("full decision, {name}: {what}"), &calm, share);
    let (median, p99) = (of("median", 0.5), of("P99", 0.99));
    // The promise for the median is of a warm key; for the tail of many.
    let median = if sequence.len() == ROUND { median.at_most(100.0) } else { median };
    [median, p99.at_most(200.0)]
}

/// Nanoseconds at a share of all samples, less what reading the counter takes.
fn figure(name: String, calm: &Calm<Vec<u64>>, share: f64) -> Figure {
    let note = format!("{} rounds of {ROUND}, {} discarded", calm.rounds.len(), calm.discarded);
    let mut samples: Vec<u64> = calm.rounds.iter().flatten().copied().collect();
    samples.sort_unstable();
    let (overhead, length) = (cycles::overhead(), cycles::length());
    let nanos =
        quantile(&samples, share).map_or(f64::NAN, |cycles| cycles.saturating_sub(overhead) as f64 * length);
    Figure::new(name, nanos, "ns").note(note)
}
