//! The one place that reads the time.

use std::cell::Cell;
use std::time::Instant;

use tidegate_core::Tick;

thread_local! {
    static MOMENT: Cell<Read> = const { Cell::new(Read::Always) };
}

/// Whether the time is read.
#[derive(Clone, Copy)]
enum Read {
    /// Each time it is asked for.
    Always,
    /// When it is asked for next, and then no more.
    Once,
    /// It was.
    At(Instant),
}

/// One step of a task, in which no time passes: [`Clock::moment`] reads the clock once while this lives. To be held for
/// a single poll, which takes some microseconds and waits for nothing.
#[derive(Debug)]
pub struct Moment(());

impl Moment {
    /// From now on, on this thread.
    pub fn begin() -> Self {
        MOMENT.set(Read::Once);
        Self(())
    }
}

impl Drop for Moment {
    fn drop(&mut self) {
        MOMENT.set(Read::Always);
    }
}

/// A monotonic clock whose origin is the start of the process.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    origin: Instant,
}

impl Clock {
    /// A clock that starts now.
    pub fn new() -> Self {
        Self { origin: Instant::now() }
    }

    /// The time.
    pub fn now(&self) -> Tick {
        self.tick(Instant::now())
    }

    /// The time of the [`Moment`] that this thread is in; the time, when it is in none.
    pub fn moment(&self) -> Tick {
        self.tick(moment())
    }

    fn tick(&self, at: Instant) -> Tick {
        Tick::from_duration(at.saturating_duration_since(self.origin))
    }
}

/// As [`Clock::moment`] tells it.
pub fn moment() -> Instant {
    match MOMENT.get() {
        Read::At(read) => read,
        Read::Always => Instant::now(),
        Read::Once => {
            let now = Instant::now();
            MOMENT.set(Read::At(now));
            now
        }
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_time_passes_in_a_moment_and_it_does_after_it() {
        let clock = Clock::new();
        let before = clock.moment();
        let in_it = {
            let _moment = Moment::begin();
            let first = clock.moment();
            while clock.now() == first {}
            assert_eq!(clock.moment(), first);
            first
        };
        assert!(before <= in_it && in_it < clock.moment());
    }
}
