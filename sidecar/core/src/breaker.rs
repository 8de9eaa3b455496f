//! The circuit breaker of a pod.

mod state;
mod window;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tidegate_policy::report::{BreakerState, BreakerStatus, Transition};
use tidegate_policy::{
    Breaker as Policy, ErrorRatio, Fallback, Mode, PriorityClass, RelativePath, SlowCallRatio,
};

pub(crate) use state::Permit;

use crate::spread::Spread;
use crate::sync::AtomicF64;
use crate::{Cause, HeadOutcome, Refusal, Rule, Tick};
use state::{Denied, State, Timing, Verdict};
use window::{Counts, RatioWindow};

/// Least wait of a client that finds all probes out: when they come back is not known.
const PROBE_WAIT: Duration = Duration::from_secs(1);

/// A breaker in force.
#[derive(Debug)]
pub(crate) struct Breaker {
    policy: Policy,
    rule: Arc<Rule>,
    timing: Timing,
    state: Arc<State>,
    errors: Option<Arc<RatioWindow>>,
    slow: Option<Arc<RatioWindow>>,
    trip: Arc<Trip>,
}

/// What opened it last.
#[derive(Debug)]
struct Trip {
    observed: AtomicF64,
    limit: AtomicF64,
    reason: Mutex<Option<String>>,
}

/// Why a trip happened.
struct Cut {
    observed: f64,
    limit: f64,
    reason: String,
}

impl Breaker {
    pub(crate) fn new(policy: &Policy) -> Self {
        let window = |millis: Option<tidegate_policy::Millis>| {
            millis.map(|millis| Arc::new(RatioWindow::new(millis.duration())))
        };
        let trip =
            Trip { observed: AtomicF64::new(0.0), limit: AtomicF64::new(0.0), reason: Mutex::new(None) };
        Self {
            rule: Arc::new(Rule { policy: policy.policy.clone(), name: "trip".to_owned() }),
            timing: Timing {
                open: policy.open_millis.duration(),
                probes: policy.half_open.probes.max(1),
                consecutive_failures: policy.trip.consecutive_failures.map(|c| c.count.max(1)),
            },
            state: Arc::new(State::new()),
            errors: window(policy.trip.error_ratio.map(|trip| trip.window_millis)),
            slow: window(policy.trip.slow_call_ratio.map(|trip| trip.window_millis)),
            trip: Arc::new(trip),
            policy: policy.clone(),
        }
    }

    /// The breaker of the next document: with the state of this one when it comes from the same policy.
    pub(crate) fn succeed(&self, policy: &Policy, now: Tick) -> Self {
        let new = Self::new(policy);
        if policy.policy != self.policy.policy {
            return new;
        }
        let (old, trip) = (&self.policy.trip, &policy.trip);
        let keep = |before: &Option<Arc<RatioWindow>>, same: bool, length: Option<Duration>| {
            let (before, length) = (before.as_ref()?, length?);
            Some(if same { Arc::clone(before) } else { Arc::new(before.resized(length, now)) })
        };
        let errors = trip.error_ratio.map(|t| t.window_millis);
        let slow = trip.slow_call_ratio.map(|t| t.window_millis);
        // How slow is slow is part of what was counted; the ratio of errors is not.
        let slower = |t: &Option<SlowCallRatio>| t.map(|t| t.slower_than_millis);
        let same_slow = slower(&old.slow_call_ratio) == slower(&trip.slow_call_ratio);
        Self {
            state: Arc::clone(&self.state),
            trip: Arc::clone(&self.trip),
            errors: keep(
                &self.errors,
                old.error_ratio.map(|t| t.window_millis) == errors,
                errors.map(tidegate_policy::Millis::duration),
            )
            .or(new.errors),
            slow: keep(
                &self.slow,
                old.slow_call_ratio.map(|t| t.window_millis) == slow,
                slow.map(tidegate_policy::Millis::duration),
            )
            .filter(|_| same_slow)
            .or(new.slow),
            ..new
        }
    }

    /// Whether its refusals are carried out.
    pub(crate) fn enforced(&self) -> bool {
        self.policy.mode == Mode::Enforce
    }

    /// Time until the response head, when it is enforced.
    pub(crate) fn timeout(&self) -> Option<Duration> {
        self.policy.timeout_millis.filter(|_| self.enforced()).map(tidegate_policy::Millis::duration)
    }

    pub(crate) fn fallback(&self) -> Option<&RelativePath> {
        self.policy.fallback.as_ref().map(|Fallback::Path(path)| path)
    }

    /// Leave for one call.
    pub(crate) fn admit(&self, now: Tick, class: PriorityClass, spread: &Spread) -> Result<Permit, Refusal> {
        self.state.admit(now, self.timing).map_err(|denied| self.refusal(denied, class, spread))
    }

    /// The call never happened or ended without an answer.
    pub(crate) fn give_back(&self, now: Tick, permit: Permit) {
        self.state.settle(now, self.timing, permit, Verdict::None);
    }

    /// The call was answered, or not. 503 and 429 of the engine are backpressure, such as vLLM's full queue: they
    /// say that it is busy, not that it is broken, so they are no verdict. Other statuses from 500 on are
    /// failures, and so is what took longer than the timeout, also where that is not enforced.
    pub(crate) fn record(&self, now: Tick, permit: Permit, outcome: HeadOutcome, elapsed: Duration) {
        let late = self.policy.timeout_millis.is_some_and(|timeout| elapsed > timeout.duration());
        let verdict = match outcome {
            HeadOutcome::Status(429 | 503) => Verdict::None,
            HeadOutcome::Status(500..) | HeadOutcome::TimedOut | HeadOutcome::Failed => Verdict::Failure,
            HeadOutcome::Status(_) if late => Verdict::Failure,
            HeadOutcome::Status(_) => Verdict::Success,
        };
        if verdict != Verdict::None && self.state.counts(permit) {
            self.record_in_windows(now, permit, verdict, elapsed);
        }
        if verdict == Verdict::Success && self.state.probes(permit) {
            // Before the state says Closed: a call that is let through then must find the windows empty.
            self.errors.iter().chain(&self.slow).for_each(|window| window.clear());
        }
        if let Some(moved) = self.state.settle(now, self.timing, permit, verdict)
            && (moved.from, moved.to) == (BreakerState::Closed, BreakerState::Open)
        {
            let count = self.timing.consecutive_failures.unwrap_or_default();
            let reason = format!("consecutive_failures_{count}");
            self.trip.store(Cut { observed: f64::from(count), limit: f64::from(count), reason });
        }
    }

    /// State for people.
    pub(crate) fn status(&self, now: Tick) -> BreakerStatus {
        let transitions = self.state.transitions();
        BreakerStatus {
            policy: self.policy.policy.clone(),
            mode: self.policy.mode,
            state: self.state.state(),
            failure_ratio: self.errors.as_ref().and_then(|window| window.counts(now).ratio()),
            consecutive_failures: self.state.consecutive_failures(),
            last_trigger_reason: self.trip.reason.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            half_open_in_millis: self.state.half_opens_in(now).map(|left| left.as_millis() as u64),
            transitions: transitions
                .map(|(moved, count)| Transition { from: moved.from, to: moved.to, count })
                .to_vec(),
        }
    }

    fn record_in_windows(&self, now: Tick, permit: Permit, verdict: Verdict, elapsed: Duration) {
        let errors = self.policy.trip.error_ratio.as_ref().zip(self.errors.as_ref());
        if let Some((trip, window)) = errors {
            let counts = window.record(now, verdict == Verdict::Failure);
            self.open_if(now, permit, counts.and_then(|counts| errors_cut(trip, counts)));
        }
        let slow = self.policy.trip.slow_call_ratio.as_ref().zip(self.slow.as_ref());
        if let Some((trip, window)) = slow {
            let counts = window.record(now, elapsed > trip.slower_than_millis.duration());
            self.open_if(now, permit, counts.and_then(|counts| slow_cut(trip, counts)));
        }
    }

    fn open_if(&self, now: Tick, permit: Permit, cut: Option<Cut>) {
        if let Some(cut) = cut
            && self.state.trip(now, self.timing, permit).is_some()
        {
            self.trip.store(cut);
        }
    }

    #[cold]
    fn refusal(&self, denied: Denied, class: PriorityClass, spread: &Spread) -> Refusal {
        let least = match denied {
            Denied::Open(left) => left,
            Denied::ProbesOut => PROBE_WAIT.min(self.timing.open),
        };
        Refusal {
            cause: Cause::Breaker,
            rule: Arc::clone(&self.rule),
            class,
            observed: self.trip.observed.load(),
            limit: self.trip.limit.load(),
            retry_after: spread.over(least),
        }
    }
}

impl Trip {
    #[cold]
    fn store(&self, cut: Cut) {
        self.observed.store(cut.observed);
        self.limit.store(cut.limit);
        *self.reason.lock().unwrap_or_else(PoisonError::into_inner) = Some(cut.reason);
    }
}

fn errors_cut(trip: &ErrorRatio, counts: Counts) -> Option<Cut> {
    let observed = reached(counts, trip.minimum_requests, trip.threshold.get())?;
    let reason = format!("5xx_rate_{}_in_{}", percent(observed), length(trip.window_millis.duration()));
    Some(Cut { observed, limit: trip.threshold.get(), reason })
}

fn slow_cut(trip: &SlowCallRatio, counts: Counts) -> Option<Cut> {
    let observed = reached(counts, trip.minimum_requests, trip.threshold.get())?;
    let reason = format!(
        "slow_calls_{}_over_{}ms_in_{}",
        percent(observed),
        trip.slower_than_millis.get(),
        length(trip.window_millis.duration())
    );
    Some(Cut { observed, limit: trip.threshold.get(), reason })
}

/// The share of bad calls, when there are enough calls and it is over the threshold.
fn reached(counts: Counts, minimum: u32, threshold: f64) -> Option<f64> {
    counts.ratio().filter(|ratio| counts.calls >= u64::from(minimum) && *ratio >= threshold)
}

fn percent(share: f64) -> String {
    format!("{:.0}%", share * 100.0)
}

/// Whole seconds as `30s`, anything else as `1500ms`.
fn length(duration: Duration) -> String {
    match duration.as_millis() {
        millis if millis.is_multiple_of(1000) => format!("{}s", millis / 1000),
        millis => format!("{millis}ms"),
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
