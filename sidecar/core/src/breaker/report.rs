//! State of the breakers for people.

use tidegate_policy::report::{BreakerGroups, BreakerState, BreakerStatus, Transition};

use super::Breaker;
use super::cell::Cell;
use super::groups::Groups;
use crate::Tick;

impl Breaker {
    /// State for people. Of several breakers the one that lets least pass.
    pub(crate) fn status(&self, now: Tick) -> BreakerStatus {
        let severity = |cell: &&Cell| match cell.state.state() {
            BreakerState::Closed => 0,
            BreakerState::HalfOpen => 1,
            BreakerState::Open => 2,
        };
        // The first of equals: without groups the only one.
        let worst = self.cells.iter().rev().max_by_key(severity).unwrap_or(&self.cells[0]);
        BreakerStatus {
            policy: self.policy.policy.clone(),
            mode: self.policy.mode,
            state: worst.state.state(),
            failure_ratio: worst.failure_ratio(now),
            consecutive_failures: worst.state.consecutive_failures(),
            last_trigger_reason: worst.record.reason(),
            half_open_in_millis: worst.state.half_opens_in(now).map(|left| left.as_millis() as u64),
            transitions: self.transitions(),
            groups: self.groups.as_ref().map(|groups| self.groups_status(groups)),
            stages: self.stages.iter().map(|stage| stage.status(now)).collect(),
        }
    }

    /// Of all breakers but those of stages.
    fn transitions(&self) -> Vec<Transition> {
        let mut sum: Vec<Transition> = Vec::new();
        for cell in &self.cells {
            for (i, (moved, count)) in cell.state.transitions().into_iter().enumerate() {
                match sum.get_mut(i) {
                    Some(transition) => transition.count += count,
                    None => sum.push(Transition { from: moved.from, to: moved.to, count }),
                }
            }
        }
        sum
    }

    fn groups_status(&self, groups: &Groups) -> BreakerGroups {
        let in_state = |state| self.cells.iter().filter(|cell| cell.state.state() == state).count() as u64;
        BreakerGroups {
            tracked: groups.taken() as u64,
            open: in_state(BreakerState::Open),
            half_open: in_state(BreakerState::HalfOpen),
        }
    }
}
