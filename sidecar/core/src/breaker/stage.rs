//! Breakers over what is heard of the stages of the engine's pipeline: how long each takes, and that it ran out of
//! memory. Who hears of it, and from where, is no matter of these.

use std::sync::Arc;
use std::time::Duration;

use tidegate_policy::report::{BreakerState, StageState, StageStatus};
use tidegate_policy::{Breaker as Policy, Stage, StageBreaker, StatusMatch};

use super::cell::Record;
use super::condition::{Cut, Windowed, seconds};
use super::state::{Permit, State, Timing, Verdict};
use super::window::{Length, Window};
use crate::sync::{AtomicU64, Ordering::Relaxed};
use crate::{Rule, StageReading, Tick};

/// Rules of stages stand after those of the conditions.
const LATENCY: usize = 0;
const OUT_OF_MEMORY: usize = 1;
/// Of times that are told as counts so many are counted, and the others in proportion: beyond it the share is exact
/// enough.
const MOST_AT_ONCE: u64 = 1024;

/// The breaker of one stage.
#[derive(Debug)]
pub(super) struct StageCell {
    policy: StageBreaker,
    rules: [Arc<Rule>; 2],
    pub(super) state: Arc<State>,
    record: Arc<Record>,
    /// Nanoseconds of the clock at which one of its times was last heard of, and one more; 0: never.
    heard: Arc<AtomicU64>,
    latency: Option<(Windowed, Arc<Window>)>,
    out_of_memory: Option<Arc<Window>>,
}

impl StageCell {
    pub(super) fn all(policy: &Policy) -> Box<[Self]> {
        policy.stages.iter().take(Stage::MOST).map(|stage| Self::new(&policy.policy, stage.clone())).collect()
    }

    fn new(policy: &str, stage: StageBreaker) -> Self {
        let rule = |condition: &str| {
            let name = format!("stages.{}.{condition}", stage.stage.as_str());
            Arc::new(Rule { policy: policy.to_owned(), name })
        };
        let latency = Windowed::of_stage(&stage);
        let window = stage.out_of_memory.map(|o| Window::new(Length::Time(o.window_millis.duration())));
        Self {
            rules: [rule("latency"), rule("outOfMemory")],
            state: Arc::new(State::new()),
            record: Arc::new(Record::new()),
            heard: Arc::new(AtomicU64::new(0)),
            latency: latency.map(|condition| (condition, Arc::new(Window::new(condition.length)))),
            out_of_memory: window.map(Arc::new),
            policy: stage,
        }
    }

    /// The breaker of the same stage in the next policy: with this one's state and all counts that still mean the
    /// same.
    pub(super) fn succeed(&self, next: Self, now: Tick) -> Self {
        let kept = |window: &Arc<Window>, before: Length, after: Length| {
            if before == after { Arc::clone(window) } else { Arc::new(window.resized(after, now)) }
        };
        let latency = next.latency.map(|(after, fresh)| match &self.latency {
            Some((before, window)) if before.counts_like(&after) => {
                (after, kept(window, before.length, after.length))
            }
            _ => (after, fresh),
        });
        let length = |stage: &StageBreaker| {
            stage.out_of_memory.map(|condition| Length::Time(condition.window_millis.duration()))
        };
        let before = self.out_of_memory.as_ref().zip(length(&self.policy));
        let out_of_memory = match (before, length(&next.policy)) {
            (Some((window, before)), Some(after)) => Some(kept(window, before, after)),
            _ => next.out_of_memory,
        };
        Self {
            state: Arc::clone(&self.state),
            record: Arc::clone(&self.record),
            heard: Arc::clone(&self.heard),
            latency,
            out_of_memory,
            ..next
        }
    }

    pub(super) fn stage(&self) -> &Stage {
        &self.policy.stage
    }

    /// Takes what is heard. What comes while it is open was sent before and says nothing about what comes next.
    pub(super) fn observe(&self, now: Tick, timing: Timing, reading: StageReading) {
        if !matches!(reading, StageReading::OutOfMemory) {
            self.heard.fetch_max(now.as_nanos().saturating_add(1), Relaxed);
        }
        if self.state.state() == BreakerState::Open {
            return;
        }
        let cut = match reading {
            StageReading::Took(took) => self.took(now, took),
            StageReading::Counted { times, over } => self.counted(now, times, over),
            StageReading::OutOfMemory => self.exhausted(now),
        };
        if let Some(cut) = cut
            && self.state.trip_now(now, timing).is_some()
        {
            self.record.store(cut);
        }
    }

    fn took(&self, now: Tick, took: Duration) -> Option<Cut> {
        let (condition, _) = self.latency.as_ref()?;
        let over = condition.slower_than.is_some_and(|slow| took > slow);
        self.counted(now, 1, u64::from(over))
    }

    fn counted(&self, now: Tick, times: u64, over: u64) -> Option<Cut> {
        let (condition, window) = self.latency.as_ref()?;
        // A probe is judged by itself, as those of requests are.
        if over > 0 && self.state.is_probed() {
            window.clear();
            window.record(now, true);
            return self.slow(&condition.at_once(), window, now);
        }
        let counted = times.min(MOST_AT_ONCE);
        let over = over.min(times).saturating_mul(counted).div_ceil(times.max(1));
        for i in 0..counted {
            window.record(now, i < over);
        }
        // Only what is over makes it worse.
        (over > 0).then(|| self.slow(condition, window, now)).flatten()
    }

    fn slow(&self, condition: &Windowed, window: &Window, now: Tick) -> Option<Cut> {
        let cut = condition.cut(window.counts(now), StatusMatch::FAILURES.as_slice())?;
        let reason = format!("{}_{}", self.stage().as_str(), cut.reason);
        Some(Cut { rule: LATENCY, reason, ..cut })
    }

    fn exhausted(&self, now: Tick) -> Option<Cut> {
        let (window, policy) = (self.out_of_memory.as_ref()?, self.policy.out_of_memory?);
        let seen = window.record(now, true)?.bad;
        (seen >= u64::from(policy.count)).then(|| Cut {
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

    /// Takes a permit back with what the call said.
    pub(super) fn settle(&self, now: Tick, timing: Timing, permit: Permit, verdict: Verdict) {
        if verdict == Verdict::Success && self.state.probes(permit) {
            // What was seen before it opened does not open it again.
            let windows = self.latency.iter().map(|(_, window)| window).chain(&self.out_of_memory);
            windows.for_each(|window| window.clear());
        }
        self.state.settle(now, timing, permit, verdict);
    }

    /// The rule that opened it, what it observed and its limit.
    pub(super) fn tripped_by(&self) -> (Arc<Rule>, f64, f64) {
        let (rule, observed, limit) = self.record.numbers();
        (Arc::clone(&self.rules[rule.min(OUT_OF_MEMORY)]), observed, limit)
    }

    pub(super) fn status(&self, now: Tick) -> StageStatus {
        let heard = self.heard.load(Relaxed).checked_sub(1).map(Tick::from_nanos);
        let stale = self.policy.stale_after_millis.unwrap_or(self.policy.window_millis).duration();
        // That it runs out of memory is told by the answers themselves.
        let fresh = self.latency.is_none() || heard.is_some_and(|at| now.since(at) < stale);
        StageStatus {
            stage: self.stage().clone(),
            state: match self.state.state() {
                BreakerState::Open => StageState::Open,
                BreakerState::HalfOpen => StageState::HalfOpen,
                BreakerState::Closed if fresh => StageState::Closed,
                BreakerState::Closed => StageState::NoSignal,
            },
            last_trigger_reason: self.record.reason(),
            signal_age_millis: heard.map(|at| now.since(at).as_millis() as u64),
            over_ratio: self.latency.as_ref().and_then(|(_, window)| window.counts(now).ratio()),
            out_of_memory: self.out_of_memory.as_ref().map(|window| window.counts(now).bad),
        }
    }
}
