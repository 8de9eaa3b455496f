//! One breaker: a state, the windows that its conditions look at, and why it tripped last.

use std::sync::{Arc, Mutex, PoisonError};

use tidegate_policy::StatusMatch;
use tidegate_policy::report::BreakerState;

use super::condition::{Cut, Kind, WINDOWED, Windowed};
use super::state::{Denied, Permit, State, Timing, Verdict};
use super::window::Window;
use crate::Tick;
use crate::sync::{AtomicF64, AtomicU32, AtomicU64, Ordering::Relaxed};

/// The conditions in windows, and what else a cell has to know to judge by them.
#[derive(Debug)]
pub(super) struct Conditions {
    pub(super) timing: Timing,
    pub(super) windowed: [Option<Windowed>; WINDOWED],
    pub(super) max_in_flight: Option<u32>,
    pub(super) failure_statuses: Vec<StatusMatch>,
}

/// Counted apart from all others.
#[derive(Debug)]
pub(super) struct Cell {
    pub(super) state: Arc<State>,
    pub(super) record: Arc<Record>,
    windows: [Option<Arc<Window>>; WINDOWED],
    in_flight: Arc<AtomicU64>,
}

/// What opened it last.
#[derive(Debug)]
pub(super) struct Record {
    rule: AtomicU32,
    observed: AtomicF64,
    limit: AtomicF64,
    reason: Mutex<Option<String>>,
}

impl Record {
    pub(super) fn new() -> Self {
        Self {
            rule: AtomicU32::new(0),
            observed: AtomicF64::new(0.0),
            limit: AtomicF64::new(0.0),
            reason: Mutex::new(None),
        }
    }

    #[cold]
    pub(super) fn store(&self, cut: Cut) {
        self.rule.store(cut.rule as u32, Relaxed);
        self.observed.store(cut.observed);
        self.limit.store(cut.limit);
        *self.reason.lock().unwrap_or_else(PoisonError::into_inner) = Some(cut.reason);
    }

    /// Place of the rule, what was observed and the limit.
    pub(super) fn numbers(&self) -> (usize, f64, f64) {
        (self.rule.load(Relaxed) as usize, self.observed.load(), self.limit.load())
    }

    pub(super) fn reason(&self) -> Option<String> {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Cell {
    pub(super) fn new(conditions: &Conditions) -> Self {
        Self {
            state: Arc::new(State::new()),
            record: Arc::new(Record::new()),
            windows: conditions.windowed.map(|c| c.map(|c| Arc::new(Window::new(c.length)))),
            in_flight: Arc::new(AtomicU64::new(0)),
        }
    }

    /// The cell of the next policy: with this one's state and all counts that still mean the same.
    pub(super) fn succeed(&self, old: &Conditions, new: &Conditions, now: Tick) -> Self {
        let kept = |i: usize| {
            let (before, after) = (old.windowed[i]?, new.windowed[i]?);
            let window = self.windows[i].as_ref().filter(|_| before.counts_like(&after))?;
            let same = before.length == after.length;
            Some(if same { Arc::clone(window) } else { Arc::new(window.resized(after.length, now)) })
        };
        let fresh = Self::new(new);
        let mut i = 0;
        let windows = fresh.windows.map(|window| {
            i += 1;
            kept(i - 1).or(window)
        });
        Self {
            state: Arc::clone(&self.state),
            record: Arc::clone(&self.record),
            windows,
            in_flight: Arc::clone(&self.in_flight),
        }
    }

    #[inline]
    pub(super) fn admit(&self, now: Tick, conditions: &Conditions) -> Result<Permit, Denied> {
        let permit = self.state.admit(now, conditions.timing)?;
        match conditions.max_in_flight {
            Some(max) if !self.enter(max) => {
                self.state.settle(now, conditions.timing, permit, Verdict::None);
                self.overflow(now, conditions, max);
                Err(Denied::Open(conditions.timing.open))
            }
            _ => Ok(permit),
        }
    }

    /// Takes a place in flight; false: all are taken. The count never exceeds the places.
    fn enter(&self, max: u32) -> bool {
        let taken = |n: u64| (n < u64::from(max)).then_some(n + 1);
        self.in_flight.fetch_update(Relaxed, Relaxed, taken).is_ok()
    }

    pub(super) fn leave(&self) {
        self.in_flight.fetch_sub(1, Relaxed);
    }

    #[cold]
    fn overflow(&self, now: Tick, conditions: &Conditions, max: u32) {
        if self.state.trip_now(now, conditions.timing).is_some() {
            let observed = u64::from(max) + 1;
            self.record.store(Cut {
                rule: Kind::InFlight as usize,
                observed: observed as f64,
                limit: f64::from(max),
                reason: format!("in_flight_{observed}_over_{max}"),
            });
        }
    }

    /// Counts a call in the window of each condition for which it is good or bad; trips if one says so.
    pub(super) fn count(
        &self,
        now: Tick,
        conditions: &Conditions,
        permit: Permit,
        bad: impl Fn(&Windowed) -> Option<bool>,
    ) {
        if !self.state.counts(permit) {
            return;
        }
        for (condition, window) in conditions.windowed.iter().zip(&self.windows) {
            let (Some(condition), Some(window)) = (condition, window) else { continue };
            let counts = bad(condition).and_then(|bad| window.record(now, bad));
            if let Some(cut) = counts.and_then(|c| condition.cut(c, &conditions.failure_statuses))
                && self.state.trip(now, conditions.timing, permit).is_some()
            {
                self.record.store(cut);
            }
        }
    }

    /// Takes a permit back with what the call said.
    pub(super) fn settle(&self, now: Tick, conditions: &Conditions, permit: Permit, verdict: Verdict) {
        if verdict == Verdict::Success && self.state.probes(permit) {
            // Before the state says that calls count: the first that does must find the windows empty.
            self.windows.iter().flatten().for_each(|window| window.clear());
        }
        if let Some(moved) = self.state.settle(now, conditions.timing, permit, verdict)
            && moved.to == BreakerState::Open
            && !permit.is_probe()
        {
            let count = conditions.timing.consecutive_failures.unwrap_or_default();
            self.record.store(Cut {
                rule: Kind::ConsecutiveFailures as usize,
                observed: f64::from(count),
                limit: f64::from(count),
                reason: format!("consecutive_failures_{count}"),
            });
        }
    }

    /// Share of failures in the window of the error ratio.
    pub(super) fn failure_ratio(&self, now: Tick) -> Option<f64> {
        self.windows[0].as_ref().and_then(|window| window.counts(now).ratio())
    }
}

#[cfg(test)]
#[cfg(loom)]
mod models {
    use std::time::Duration;

    use loom::thread;

    use super::*;

    fn conditions(max_in_flight: u32) -> Conditions {
        Conditions {
            timing: Timing {
                open: Duration::from_secs(1),
                probes: 1,
                consecutive_failures: None,
                ramp: Duration::ZERO,
                seed: 7,
            },
            windowed: [None; WINDOWED],
            max_in_flight: Some(max_in_flight),
            failure_statuses: Vec::new(),
        }
    }

    #[test]
    fn a_policy_that_changes_under_load_lets_no_more_in_flight_and_loses_no_place() {
        loom::model(|| {
            let conditions = || conditions(2);
            let now = Tick::from_nanos(1);
            let before = Arc::new(Cell::new(&conditions()));
            let other = {
                let before = Arc::clone(&before);
                let conditions = conditions();
                thread::spawn(move || {
                    // In and out again under the policy that was there when it came.
                    let permit = before.admit(now, &conditions).unwrap();
                    before.settle(now, &conditions, permit, Verdict::Success);
                    before.leave();
                })
            };
            let after = before.succeed(&conditions(), &conditions(), now);
            assert!(after.admit(now, &conditions()).is_ok());
            other.join().unwrap();
            assert_eq!(after.in_flight.load(Relaxed), 1);
            assert!(after.admit(now, &conditions()).is_ok(), "the place of the other is free");
            assert!(after.admit(now, &conditions()).is_err());
        });
    }

    #[test]
    fn no_more_are_in_flight_than_allowed_and_a_refused_one_leaves_no_place_taken() {
        loom::model(|| {
            let conditions = || conditions(1);
            let now = Tick::from_nanos(1);
            let cell = Arc::new(Cell::new(&conditions()));
            let other = {
                let cell = Arc::clone(&cell);
                let conditions = conditions();
                thread::spawn(move || cell.admit(now, &conditions).is_ok())
            };
            let mine = cell.admit(now, &conditions()).is_ok();
            assert!(mine ^ other.join().unwrap(), "one of both is in flight");
            assert_eq!(cell.state.state(), BreakerState::Open);
            assert_eq!(cell.in_flight.load(Relaxed), 1);
        });
    }
}
