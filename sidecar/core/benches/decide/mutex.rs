//! The engine as it is beside the same engine behind one lock.

use std::sync::{Barrier, Mutex, PoisonError};
use std::time::Instant;

use tidegate_core::{Engine, Tick};

use crate::calm;
use crate::figure::{Figure, median};
use crate::traffic::{Clock, FULL, Request, admit, engine, finish, introduce};

const ROUND: u32 = 100_000;
const ROUNDS: usize = 10;
const KEYS: u32 = 64;
const THREADS: u32 = 2;

pub(crate) fn run() -> Vec<Figure> {
    let (free, locked) = (engine(FULL), Mutex::new(engine(FULL)));
    introduce(&free, &mut Clock::new(), THREADS * KEYS);
    introduce(&locked.lock().unwrap_or_else(PoisonError::into_inner), &mut Clock::new(), THREADS * KEYS);
    let behind_lock = |now: Tick, request: &Request| {
        let engine = locked.lock().unwrap_or_else(PoisonError::into_inner);
        whole(&engine, now, request);
    };
    let one_by_one = calm::rounds(ROUNDS, || {
        let as_it_is = elapsed(1, |now, request| whole(&free, now, request));
        elapsed(1, behind_lock) / as_it_is
    });
    let at_once = calm::rounds(ROUNDS, || {
        let as_it_is = elapsed(THREADS, |now, request| whole(&free, now, request));
        elapsed(THREADS, behind_lock) / as_it_is
    });
    let figure = |threads: u32, calm: calm::Calm<f64>| {
        let name = format!("behind one lock / as it is, {threads} thread(s): time");
        let note =
            format!("{} rounds of {ROUND} for each thread, {} discarded", calm.rounds.len(), calm.discarded);
        Figure::new(name, median(calm.rounds), "ratio").at_least(1.0).note(note)
    };
    vec![figure(1, one_by_one), figure(THREADS, at_once)]
}

fn whole(engine: &Engine, now: Tick, request: &Request) {
    finish(engine, now, admit(engine, now, request));
}

/// Seconds until all threads have served their requests.
fn elapsed(threads: u32, serve: impl Fn(Tick, &Request) + Sync) -> f64 {
    let barrier = Barrier::new(threads as usize);
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (barrier, serve) = (&barrier, &serve);
            scope.spawn(move || {
                let requests: Vec<Request> = (thread * KEYS..(thread + 1) * KEYS).map(Request::of).collect();
                barrier.wait();
                for n in 0..ROUND {
                    let now = Tick::from_nanos(2_000_000_000_000 + u64::from(n) * 1000);
                    serve(now, &requests[(n % KEYS) as usize]);
                }
            });
        }
    });
    begun.elapsed().as_secs_f64()
}
