//! The cycle counter of the processor.

use std::time::{Duration, Instant};

/// Nothing before it is still under way, nothing behind it has begun.
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)] // two instructions that every x86-64 processor has, and that touch no memory
pub(crate) fn start() -> u64 {
    use std::arch::x86_64::{_mm_lfence, _rdtsc};
    // SAFETY: LFENCE and RDTSC need SSE2, which is part of x86-64, and have no preconditions.
    unsafe {
        _mm_lfence();
        let now = _rdtsc();
        _mm_lfence();
        now
    }
}

/// All before it is done.
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)] // as above
pub(crate) fn end() -> u64 {
    use std::arch::x86_64::{__rdtscp, _mm_lfence};
    let mut processor = 0;
    // SAFETY: RDTSCP writes to the number that it is given; the processor of any server has it.
    unsafe {
        let now = __rdtscp(&raw mut processor);
        _mm_lfence();
        now
    }
}

/// Elsewhere the system's clock in nanoseconds: coarser, but the overhead is taken off all the same.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn start() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn end() -> u64 {
    start()
}

/// Nanoseconds of one cycle.
pub(crate) fn length() -> f64 {
    let (clock, cycles) = (Instant::now(), start());
    while clock.elapsed() < Duration::from_millis(50) {
        std::hint::spin_loop();
    }
    let (elapsed, cycles) = (clock.elapsed(), end() - cycles);
    elapsed.as_nanos() as f64 / cycles as f64
}

/// What the counter itself costs: the median of its readings back to back.
pub(crate) fn overhead() -> u64 {
    let mut readings: Vec<u64> = (0..100_001).map(|_| (start(), end())).map(|(from, to)| to - from).collect();
    readings.sort_unstable();
    readings[readings.len() / 2]
}
