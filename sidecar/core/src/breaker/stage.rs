//! Breakers over what the engine tells of the stages of its pipeline.

use std::sync::{Arc, Mutex, PoisonError};

use tidegate_policy::report::{BreakerState, StageState, StageStatus};
use tidegate_policy::{Breaker as Policy, Stage, StageBreaker};

use super::cell::Record;
use super::condition::{Cut, seconds};
use super::state::{State, Timing};
use super::window::{Length, Window};
use crate::{Rule, StageReading, Tick};

/// Rules of stages stand after those of the conditions.
const OUT_OF_MEMORY: usize = 1;

/// The breaker of one stage.
#[derive(Debug)]
pub(super) struct StageCell {
    policy: StageBreaker,
    rules: [Arc<Rule>; 2],
    pub(super) state: Arc<State>,
    record: Arc<Record>,
    seen: Arc<Mutex<Seen>>,
    out_of_memory: Option<Arc<Window>>,
}

/// The last reading.
#[derive(Debug, Default)]
struct Seen {
    at: Option<Tick>,
    out_of_memory: Option<u64>,
}

impl StageCell {
    pub(super) fn all(policy: &Policy) -> Box<[Self]> {
        policy.stages.iter().map(|stage| Self::new(&policy.policy, *stage)).collect()
    }

    fn new(policy: &str, stage: StageBreaker) -> Self {
        let rule = |condition: &str| {
            let name = format!("stages.{}.{condition}", stage.stage.as_str());
            Arc::new(Rule { policy: policy.to_owned(), name })
        };
        let window = stage.out_of_memory.map(|o| Window::new(Length::Time(o.window_millis.duration())));
        Self {
            policy: stage,
            rules: [rule("p99"), rule("outOfMemory")],
            state: Arc::new(State::new()),
            record: Arc::new(Record::new()),
            seen: Arc::default(),
            out_of_memory: window.map(Arc::new),
        }
    }

    /// The breaker of the same stage in the next policy: with this one's state and all that it has seen.
    pub(super) fn succeed(&self, next: Self, now: Tick) -> Self {
        let lengths = (self.policy.out_of_memory, next.policy.out_of_memory);
        let kept = self.out_of_memory.as_ref().zip(lengths.1).map(|(window, after)| {
            let same = lengths.0.is_some_and(|before| before.window_millis == after.window_millis);
            let length = Length::Time(after.window_millis.duration());
            if same { Arc::clone(window) } else { Arc::new(window.resized(length, now)) }
        });
        Self {
            state: Arc::clone(&self.state),
            record: Arc::clone(&self.record),
            seen: Arc::clone(&self.seen),
            out_of_memory: kept.or(next.out_of_memory),
            ..next
        }
    }

    pub(super) fn stage(&self) -> Stage {
        self.policy.stage
    }

    /// Takes a reading: opens when it is over a threshold, also while probes are out.
    pub(super) fn observe(&self, now: Tick, timing: Timing, reading: &StageReading) {
        let since = {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            let before = seen.out_of_memory;
            *seen =
                Seen { at: seen.at.max(Some(reading.at)), out_of_memory: reading.out_of_memory.or(before) };
            // A count that falls began anew with the engine.
            let events = |count: u64, before: u64| count.checked_sub(before).unwrap_or(count);
            reading.out_of_memory.zip(before).map_or(0, |(count, before)| events(count, before))
        };
        let cut = self.slow(reading).or_else(|| self.exhausted(now, since));
        if let Some(cut) = cut
            && self.state.trip_now(now, timing).is_some()
        {
            self.record.store(cut);
        }
    }

    fn slow(&self, reading: &StageReading) -> Option<Cut> {
        let (p99, over) = (reading.p99?, self.policy.p99_over_millis?);
        (p99 > over.duration()).then(|| Cut {
            rule: 0,
            observed: p99.as_secs_f64() * 1000.0,
            limit: over.get() as f64,
            reason: format!("{}_p99_{}ms_over_{}ms", self.stage().as_str(), p99.as_millis(), over.get()),
        })
    }

    fn exhausted(&self, now: Tick, events: u64) -> Option<Cut> {
        let (window, policy) = (self.out_of_memory.as_ref()?, self.policy.out_of_memory?);
        // More than trip it need not be counted one by one.
        for _ in 0..events.min(u64::from(policy.count)) {
            window.record(now, true);
        }
        let seen = window.counts(now).bad;
        (events > 0 && seen >= u64::from(policy.count)).then(|| Cut {
            rule: OUT_OF_MEMORY,
            observed: seen as f64,
            limit: f64::from(policy.count),
            reason: format!(
                "{}_out_of_memory_{seen}_in_{}",
                self.stage().as_str(),
                seconds(policy.window_millis.duration())
            ),
        })
    }

    /// The rule that opened it, what it observed and its limit.
    pub(super) fn tripped_by(&self) -> (Arc<Rule>, f64, f64) {
        let (rule, observed, limit) = self.record.numbers();
        (Arc::clone(&self.rules[rule.min(OUT_OF_MEMORY)]), observed, limit)
    }

    pub(super) fn status(&self, now: Tick) -> StageStatus {
        let at = self.seen.lock().unwrap_or_else(PoisonError::into_inner).at;
        let fresh = |at: Tick| now.since(at) < self.policy.stale_after_millis.duration();
        StageStatus {
            stage: self.stage(),
            state: match self.state.state() {
                BreakerState::Open => StageState::Open,
                BreakerState::HalfOpen => StageState::HalfOpen,
                BreakerState::Closed if at.is_some_and(fresh) => StageState::Closed,
                BreakerState::Closed => StageState::NoSignal,
            },
            last_trigger_reason: self.record.reason(),
            signal_age_millis: at.map(|at| now.since(at).as_millis() as u64),
        }
    }
}
