//! The full decision, one by one, by cycle counter: key, token bucket, window, leaky bucket, concurrency, tiers,
//! breaker and priority; two of the rules look a key up.

use crate::figure::{Figure, quantile};
use crate::traffic::{Clock, FULL, Request, admit, engine, finish, introduce, uniform, zipf};
use crate::{calm, cycles};

const CALLERS: u32 = 1_000_000;
/// Decisions of one round.
const ROUND: usize = 50_000;
const ROUNDS: usize = 20;

pub(crate) fn run() -> Vec<Figure> {
    let one = measure("1 key", 1, &vec![0; ROUND]);
    let uniform = measure("10^6 keys, uniform", CALLERS, &uniform(CALLERS, ROUND * ROUNDS));
    let zipf = measure("10^6 keys, Zipf", CALLERS, &zipf(CALLERS, ROUND * ROUNDS));
    one.into_iter().chain(uniform).chain(zipf).collect()
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
            let admission = admit(&engine, now, &request);
            let cycles = cycles::end() - start;
            finish(&engine, now, admission);
            cycles
        });
        round.collect::<Vec<u64>>()
    });
    let note = format!("{} rounds of {ROUND}, {} discarded", calm.rounds.len(), calm.discarded);
    let mut samples: Vec<u64> = calm.rounds.into_iter().flatten().collect();
    samples.sort_unstable();
    let (overhead, length) = (cycles::overhead(), cycles::length());
    let nanos = |share: f64| {
        quantile(&samples, share).map_or(f64::NAN, |cycles| cycles.saturating_sub(overhead) as f64 * length)
    };
    let figure =
        |what: &str, share: f64| Figure::new(format!("full decision, {name}: {what}"), nanos(share), "ns");
    let (median, p99) = (figure("median", 0.5), figure("P99", 0.99));
    // The promise for the median is of a warm key; for the tail of many.
    let median = if sequence.len() == ROUND { median.at_most(100.0) } else { median };
    [median.note(note.clone()), p99.at_most(200.0).note(note)]
}
