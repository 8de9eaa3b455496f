//! Two threads: on keys of their own, and on one hot key.

use std::cell::Cell;
use std::ops::Range;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::thread::{CpuSet, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};
use tidegate_core::{Engine, Tick};

use crate::calm;
use crate::figure::{Figure, median};
use crate::traffic::{Clock, Request, SINGLE, admit, engine, introduce};

const ROUND: Duration = Duration::from_millis(40);
const ROUNDS: usize = 31;
/// Nanoseconds.
const HOUR: u64 = 3_600_000_000_000;
/// Nanoseconds from one request of a thread to its next. So few that a thread which is behind another on a hot key is
/// not refused: both together never lie further apart than the bucket is deep.
const STEP: u64 = 10;
/// Keys of one thread.
const KEYS: u32 = 64;

/// What the threads of a round do.
#[derive(Debug, Clone, Copy)]
enum Work {
    /// Count, in registers.
    Nothing,
    /// Decide, each thread on keys of its own.
    OwnKeys,
    /// Decide, each thread by an engine of its own: they have nothing in common but the machine.
    OwnEngines,
    /// Decide on the same key.
    HotKey,
}

pub(crate) fn run() -> Vec<Figure> {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    if processors < 2 {
        return vec![Figure::new("two threads", f64::NAN, "ratio").at_least(0.95).note("one processor")];
    }
    let engines = [engine(SINGLE), engine(SINGLE)];
    for engine in &engines {
        introduce(engine, &mut Clock::new(), 2 * KEYS);
    }
    // Each run begins an hour after the one before, so that what was spent there has come back.
    let hours = Cell::new(0);
    let next = || {
        hours.set(hours.get() + HOUR);
        hours.get()
    };
    let calm = calm::rounds(ROUNDS, || {
        // Each thread is compared with itself alone: neither processors nor keys are all alike.
        let gain = |work| {
            let alone = total(&engines, work, 0..1, next()) + total(&engines, work, 1..2, next());
            2.0 * total(&engines, work, 0..2, next()) / alone
        };
        [Work::Nothing, Work::OwnKeys, Work::OwnEngines, Work::HotKey].map(gain)
    });
    let note =
        format!("{} rounds, {} discarded; by CPU time of pinned threads", calm.rounds.len(), calm.discarded);
    let of = |value: fn(&[f64; 4]) -> f64| median(calm.rounds.iter().map(value).collect());
    vec![
        Figure::new("two threads: gain of an empty loop", of(|round| round[0]), "ratio").note(note),
        Figure::new(
            "two threads, own keys: gain / gain of an empty loop",
            of(|round| round[1] / round[0]),
            "ratio",
        )
        .at_least(0.95),
        Figure::new(
            "two threads, own engines: gain / gain of an empty loop",
            of(|round| round[2] / round[0]),
            "ratio",
        ),
        Figure::new("two threads, one hot key: gain", of(|round| round[3]), "ratio").at_least(1.0),
    ]
}

/// Decisions per second of these threads together.
fn total(engines: &[Engine; 2], work: Work, threads: Range<u32>, begin: u64) -> f64 {
    let (barrier, stop) = (Barrier::new(threads.len() + 1), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let workers: Vec<_> = threads
            .map(|thread| {
                scope.spawn({
                    let (barrier, stop) = (&barrier, &stop);
                    let engine = &engines[if matches!(work, Work::OwnEngines) { thread as usize } else { 0 }];
                    move || {
                        pin(thread as usize);
                        barrier.wait();
                        rate(engine, work, thread, begin, stop)
                    }
                })
            })
            .collect();
        barrier.wait();
        std::thread::sleep(ROUND);
        stop.store(true, Ordering::Relaxed);
        workers.into_iter().map(|worker| worker.join().unwrap_or(f64::NAN)).sum()
    })
}

/// Decisions per second of this thread's own time, so that others on the machine do not count.
fn rate(engine: &Engine, work: Work, thread: u32, begin: u64, stop: &AtomicBool) -> f64 {
    let requests: Vec<Request> = match work {
        Work::HotKey => vec![Request::of(0); KEYS as usize],
        Work::Nothing | Work::OwnKeys | Work::OwnEngines => {
            (thread * KEYS..(thread + 1) * KEYS).map(Request::of).collect()
        }
    };
    let (mut now, mut done) = (begin, 0_u64);
    let start = own_time();
    while !stop.load(Ordering::Relaxed) {
        for request in &requests {
            now += STEP;
            match work {
                Work::Nothing => _ = std::hint::black_box(now ^ u64::from(request.key[23])),
                Work::OwnKeys | Work::OwnEngines | Work::HotKey => {
                    drop(std::hint::black_box(admit(engine, Tick::from_nanos(now), request)));
                }
            }
        }
        done += u64::from(KEYS);
    }
    done as f64 / (own_time() - start)
}

/// CPU time of this thread, in seconds.
pub(crate) fn own_time() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Where it is not allowed, the scheduler decides.
fn pin(processor: usize) {
    let mut set = CpuSet::new();
    set.set(processor);
    _ = sched_setaffinity(None, &set);
}
