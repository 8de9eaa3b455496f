//! The circuit breakers of a pod: one, or one for each value of a key, and those over the stages of its engine.

mod cell;
mod condition;
mod groups;
mod report;
mod stage;
mod state;
mod statuses;
mod window;

use std::sync::Arc;
use std::time::Duration;

use tidegate_policy::{Breaker as Policy, Millis, Mode, PriorityClass, Stage};

use crate::spread::Spread;
use crate::{Cause, Facts, HeadOutcome, Refusal, Rule, StageReading, Tick, TimeLimits};
use cell::{Cell, Conditions};
use condition::{Kind, Windowed};
use groups::{Found, Groups, Newcomer};
use stage::StageCell;
use state::{Denied, Permit, Timing, Verdict};
use statuses::Statuses;

/// Least wait of a client that finds all probes out: when they come back is not known.
const PROBE_WAIT: Duration = Duration::from_secs(1);

/// The breakers in force.
#[derive(Debug)]
pub(crate) struct Breaker {
    policy: Policy,
    /// One for each kind of condition.
    rules: [Arc<Rule>; Kind::ALL.len()],
    conditions: Conditions,
    statuses: Statuses,
    groups: Option<Groups>,
    /// There is one breaker, without stages or a limit of calls in flight.
    alone: bool,
    /// The first is that of all requests whose group has none of its own.
    cells: Box<[Cell]>,
    stages: Box<[StageCell]>,
}

/// Leave to call the engine, by every breaker on the way.
#[derive(Debug, Default)]
pub(crate) struct Call {
    cell: u16,
    /// Its group has no breaker yet and gets one when the call is admitted by all rules.
    newcomer: Option<Newcomer>,
    /// None once the cell knows all that it wants to know of this call.
    permit: Option<Permit>,
    /// The same, as long as the call can still fail.
    leave: Option<Permit>,
    /// The head of the response is there, and is no failure.
    answered: bool,
    /// Holds a place in flight.
    in_flight: bool,
    stages: [Option<Permit>; Stage::MOST],
}

/// How long a call took until the first byte of the response's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FirstByte {
    After(Duration),
    /// Nobody waited for it any longer.
    LaterThan(Duration),
}

impl Breaker {
    pub(crate) fn new(policy: &Policy, seed: u64) -> Self {
        let rule =
            |kind: Kind| Arc::new(Rule { policy: policy.policy.clone(), name: kind.rule().to_owned() });
        let groups = policy.per.as_ref().map(|per| Groups::new(per, seed));
        let stages = StageCell::all(policy);
        let alone = groups.is_none() && stages.is_empty() && policy.trip.in_flight.is_none();
        let cells = 1 + policy.per.as_ref().map_or(0, |per| per.max.max(1) as usize);
        let conditions = Conditions {
            timing: Timing {
                open: policy.open_millis.duration(),
                probes: policy.half_open.probes.max(1),
                consecutive_failures: policy.trip.consecutive_failures.map(|c| c.count.max(1)),
                ramp: policy.half_open.ramp_millis.map_or(Duration::ZERO, Millis::duration),
                seed,
            },
            windowed: Windowed::all(&policy.trip),
            max_in_flight: policy.trip.in_flight.map(|trip| trip.max),
            failure_statuses: policy.failure_statuses.clone(),
        };
        Self {
            rules: Kind::ALL.map(rule),
            statuses: Statuses::new(&policy.failure_statuses, &policy.backpressure_statuses),
            groups,
            cells: (0..cells).map(|_| Cell::new(&conditions)).collect(),
            stages,
            alone,
            conditions,
            policy: policy.clone(),
        }
    }

    /// The breaker of the next document: with the state of this one when it comes from the same policy.
    pub(crate) fn succeed(&self, policy: &Policy, seed: u64, now: Tick) -> Self {
        let new = Self::new(policy, seed);
        if policy.policy != self.policy.policy {
            return new;
        }
        let same_groups = match (&self.groups, &policy.per) {
            (Some(groups), Some(per)) => groups.serves(per),
            (before, after) => before.is_none() && after.is_none(),
        };
        let kept = |cell: &Cell| cell.succeed(&self.conditions, &new.conditions, now);
        let cells = if same_groups { self.cells.iter().map(kept).collect() } else { new.cells };
        let stages = new.stages.into_iter().map(|next| {
            let before = self.stages.iter().find(|stage| stage.stage() == next.stage());
            match before {
                Some(before) => before.succeed(next, now),
                None => next,
            }
        });
        Self {
            groups: if same_groups { self.groups.clone() } else { new.groups },
            cells,
            stages: stages.collect(),
            ..new
        }
    }

    /// Whether its refusals are carried out.
    pub(crate) fn enforced(&self) -> bool {
        self.policy.mode == Mode::Enforce
    }

    /// What the engine may take, where that is enforced.
    pub(crate) fn time_limits(&self) -> TimeLimits {
        if !self.enforced() {
            return TimeLimits::default();
        }
        let limits = &self.policy.timeouts;
        let time = |millis: Option<Millis>| millis.map(Millis::duration);
        TimeLimits {
            connect: time(limits.connect_millis),
            first_byte: self.first_byte_limit(),
            between_chunks: time(limits.between_chunks_millis),
            total: time(limits.total_millis.or(self.policy.timeout_millis)),
            total_of_stream: time(limits.total_millis),
        }
    }

    /// Whether an answer with this status is a failure.
    pub(crate) fn is_failure(&self, status: u16) -> bool {
        self.statuses.verdict(status) == Verdict::Failure
    }

    fn first_byte_limit(&self) -> Option<Duration> {
        self.policy.timeouts.first_byte_millis.or(self.policy.timeout_millis).map(Millis::duration)
    }

    pub(crate) fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Leave for one call, where there is one breaker and it is closed: of nearly all calls that is all there is to say.
    #[inline]
    pub(crate) fn admit_at_once(&self) -> Option<Call> {
        let permit = if self.alone { self.cells[0].state.closed()? } else { return None };
        Some(Call { permit: Some(permit), leave: Some(permit), ..Call::default() })
    }

    /// Leave for one call.
    pub(crate) fn admit(
        &self,
        now: Tick,
        class: PriorityClass,
        facts: &Facts<'_>,
        spread: &Spread,
    ) -> Result<Call, Refusal> {
        let found = self.groups.as_ref().map_or(Found::Place(0), |groups| groups.find(facts));
        let mut call = match found {
            Found::Place(place) => self.enter(now, place).map_err(|denied| {
                let (rule, observed, limit) = self.cells[place].record.numbers();
                let rule = &self.rules[rule.min(self.rules.len() - 1)];
                self.refusal(denied, (Arc::clone(rule), observed, limit), class, spread)
            })?,
            Found::Newcomer(newcomer) => Call { newcomer: Some(newcomer), ..Call::default() },
        };
        for (stage, permit) in self.stages.iter().zip(&mut call.stages) {
            match stage.state.admit(now, self.stage_timing()) {
                Ok(leave) => *permit = Some(leave),
                Err(denied) => {
                    self.give_back(now, call);
                    return Err(self.refusal(denied, stage.tripped_by(), class, spread));
                }
            }
        }
        Ok(call)
    }

    fn enter(&self, now: Tick, place: usize) -> Result<Call, Denied> {
        let permit = self.cells[place].admit(now, &self.conditions)?;
        Ok(Call {
            cell: place as u16,
            permit: Some(permit),
            leave: Some(permit),
            in_flight: self.conditions.max_in_flight.is_some(),
            ..Call::default()
        })
    }

    /// All rules have admitted the call: a group that comes for the first time gets its breaker now. Where others of its
    /// group were faster and tripped it already, this one call passes uncounted.
    #[inline]
    pub(crate) fn begin(&self, now: Tick, call: &mut Call) {
        let Some(groups) = &self.groups else { return };
        let Some(newcomer) = call.newcomer.take() else { return };
        if let Ok(entered) = self.enter(now, groups.claim(newcomer)) {
            *call = Call { stages: call.stages, ..entered };
        }
    }

    /// The call never happened.
    pub(crate) fn give_back(&self, now: Tick, mut call: Call) {
        self.settle(now, &mut call, Verdict::None);
        self.settle_stages(now, &mut call, Verdict::None);
        self.leave(&call);
    }

    /// The call was answered, or not. The engine's backpressure, such as vLLM's full queue, says that it is busy, not
    /// that it is broken, so it is no verdict. Where the timeout is enforced the caller has cut off what exceeds it, by a
    /// clock that leaves the client's slow upload out. In shadow mode nobody does, and what took longer is a failure.
    pub(crate) fn responded(&self, now: Tick, call: &mut Call, outcome: HeadOutcome, elapsed: Duration) {
        let limit = self.first_byte_limit().filter(|_| !self.enforced());
        let late = limit.is_some_and(|limit| elapsed > limit);
        let verdict = match outcome {
            HeadOutcome::TimedOut | HeadOutcome::Failed => Verdict::Failure,
            HeadOutcome::Status(status) => match self.statuses.verdict(status) {
                Verdict::Success if late => Verdict::Failure,
                verdict => verdict,
            },
        };
        self.settle_stages(now, call, verdict);
        let Some(permit) = call.permit else { return };
        let own = &self.cells[usize::from(call.cell)];
        match verdict {
            Verdict::None => self.settle(now, call, Verdict::None),
            Verdict::Failure => {
                // Its first byte will not come, or be that of an error: the head is all there is to time.
                own.count(now, &self.conditions, permit, |condition| {
                    Some(condition.slower_than.is_none_or(|slow| elapsed > slow))
                });
                self.settle(now, call, Verdict::Failure);
            }
            Verdict::Success => {
                call.answered = true;
                own.count(now, &self.conditions, permit, |c| c.slower_than.is_none().then_some(false));
                if !self.looks_at_latency() {
                    self.settle(now, call, Verdict::Success);
                } else if !permit.is_probe() {
                    // It ends a row of failures now; the permit stays for its latency.
                    own.settle(now, &self.conditions, permit, Verdict::Success);
                }
            }
        }
    }

    /// The first byte of the response's body is there, or nobody waits for it any longer. At most once for each call.
    pub(crate) fn first_byte(&self, now: Tick, call: &mut Call, first: FirstByte) {
        let Some(permit) = call.permit.filter(|_| call.answered) else { return };
        let own = &self.cells[usize::from(call.cell)];
        let slow = |condition: &Windowed| {
            let slow = condition.slower_than?;
            match first {
                FirstByte::After(elapsed) => Some(elapsed > slow),
                // It would have taken longer still, so it is slow, or nobody knows.
                FirstByte::LaterThan(elapsed) => (elapsed > slow).then_some(true),
            }
        };
        own.count(now, &self.conditions, permit, slow);
        let slow = self.conditions.windowed.iter().flatten().any(|condition| slow(condition) == Some(true));
        let verdict = match first {
            _ if slow => Verdict::Failure,
            FirstByte::After(_) => Verdict::Success,
            FirstByte::LaterThan(_) => Verdict::None,
        };
        if permit.is_probe() {
            self.settle(now, call, verdict);
        }
        call.permit = None;
    }

    /// The engine stopped in the middle of an answer. Where its beginning was a success already, that one stands and a
    /// failure follows it; a probe that has succeeded has nothing more to say.
    pub(crate) fn broke_off(&self, now: Tick, call: &mut Call) {
        let Some(permit) = call.permit.take().or(call.leave.filter(|leave| !leave.is_probe())) else {
            return;
        };
        let own = &self.cells[usize::from(call.cell)];
        own.count(now, &self.conditions, permit, |c| c.slower_than.is_none().then_some(true));
        own.settle(now, &self.conditions, permit, Verdict::Failure);
        call.leave = None;
    }

    /// The call is over.
    pub(crate) fn complete(&self, now: Tick, mut call: Call, first: FirstByte) {
        self.first_byte(now, &mut call, first);
        self.give_back(now, call);
    }

    /// Takes what is heard of the `i`th stage of the policy.
    pub(crate) fn observe(&self, now: Tick, i: usize, reading: StageReading) {
        if let Some(stage) = self.stages.get(i) {
            stage.observe(now, self.stage_timing(), reading);
        }
    }

    /// Ends ramps whose time is over.
    pub(crate) fn tick(&self, now: Tick) {
        self.cells.iter().for_each(|cell| cell.state.tick(now, self.conditions.timing));
        self.stages.iter().for_each(|stage| stage.state.tick(now, self.stage_timing()));
    }

    fn looks_at_latency(&self) -> bool {
        self.conditions.windowed.iter().flatten().any(|condition| condition.slower_than.is_some())
    }

    /// Stages are tripped by their own readings; calls only probe them.
    fn stage_timing(&self) -> Timing {
        Timing { consecutive_failures: None, ..self.conditions.timing }
    }

    fn settle(&self, now: Tick, call: &mut Call, verdict: Verdict) {
        if let Some(permit) = call.permit.take() {
            self.cells[usize::from(call.cell)].settle(now, &self.conditions, permit, verdict);
        }
    }

    fn settle_stages(&self, now: Tick, call: &mut Call, verdict: Verdict) {
        for (stage, permit) in self.stages.iter().zip(&mut call.stages) {
            if let Some(permit) = permit.take() {
                stage.settle(now, self.stage_timing(), permit, verdict);
            }
        }
    }

    fn leave(&self, call: &Call) {
        if call.in_flight {
            self.cells[usize::from(call.cell)].leave();
        }
    }

    #[cold]
    fn refusal(
        &self,
        denied: Denied,
        (rule, observed, limit): (Arc<Rule>, f64, f64),
        class: PriorityClass,
        spread: &Spread,
    ) -> Refusal {
        let least = match denied {
            Denied::Open(left) | Denied::Ramp(left) => left,
            Denied::ProbesOut => PROBE_WAIT.min(self.conditions.timing.open),
        };
        Refusal { cause: Cause::Breaker, rule, class, observed, limit, retry_after: spread.over(least) }
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
#[cfg(test)]
#[cfg(not(loom))]
mod vectors;
