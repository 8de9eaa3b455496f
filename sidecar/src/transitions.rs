//! Changes of state that people want to read about: one line for each.

use tidegate_policy::report::{BreakerState, BreakerStatus, Status, TierName, TierState, TierStatus};
use tracing::{info, warn};

/// Compares each snapshot of the engine with the one before.
#[derive(Debug, Default)]
pub struct Transitions {
    tiers: Vec<(TierName, TierState)>,
    breaker: Option<BreakerState>,
}

/// A tier or a breaker went from one state to another.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Transition<'a> {
    subject: &'static str,
    from: &'static str,
    to: &'static str,
    policy: &'a str,
    reason: &'a str,
    /// Requests are refused now that were not before.
    bad: bool,
}

impl Transitions {
    /// Logs what changed since the last call, and says whether anything did.
    pub fn look(&mut self, status: &Status) -> bool {
        let changed = self.changes(status);
        for Transition { subject, from, to, policy, reason, bad } in &changed {
            if *bad {
                warn!(subject, from, to, policy, reason, "state changed");
            } else {
                info!(subject, from, to, policy, reason, "state changed");
            }
        }
        let any = !changed.is_empty();
        self.tiers.clear();
        self.tiers.extend(status.tiers.iter().map(|tier| (tier.tier, tier.state)));
        self.breaker = status.breaker.as_ref().map(|breaker| breaker.state);
        any
    }

    /// A tier or breaker that appears with a policy begins in its first state; one that vanishes says nothing.
    fn changes<'a>(&self, status: &'a Status) -> Vec<Transition<'a>> {
        let tiers = status.tiers.iter().filter_map(|tier| {
            let before = self.tiers.iter().find(|(name, _)| *name == tier.tier);
            tier_change(before.map_or_else(TierState::default, |(_, state)| *state), tier)
        });
        let breaker =
            status.breaker.iter().filter_map(|b| breaker_change(self.breaker.unwrap_or_default(), b));
        tiers.chain(breaker).collect()
    }
}

fn tier_change(from: TierState, tier: &TierStatus) -> Option<Transition<'_>> {
    let bad = matches!(tier.state, TierState::Tripped | TierState::Stale);
    // A quiet period after a busy one is no news.
    let calm = |state| matches!(state, TierState::Normal | TierState::NoData);
    let news = from != tier.state && !(calm(from) && calm(tier.state));
    news.then(|| Transition {
        subject: tier.tier.as_str(),
        from: from.as_str(),
        to: tier.state.as_str(),
        policy: &tier.policy,
        reason: tier.last_trigger_reason.as_deref().filter(|_| bad).unwrap_or_default(),
        bad,
    })
}

fn breaker_change(from: BreakerState, breaker: &BreakerStatus) -> Option<Transition<'_>> {
    let bad = breaker.state == BreakerState::Open;
    (from != breaker.state).then(|| Transition {
        subject: "breaker",
        from: from.as_str(),
        to: breaker.state.as_str(),
        policy: &breaker.policy,
        reason: breaker.last_trigger_reason.as_deref().filter(|_| bad).unwrap_or_default(),
        bad,
    })
}

#[cfg(test)]
mod tests {
    use tidegate_policy::Mode;

    use super::*;

    fn status(tier: TierState, breaker: Option<BreakerState>) -> Status {
        let tier = TierStatus {
            tier: TierName::Qps,
            policy: "a/b".to_owned(),
            mode: Mode::Enforce,
            state: tier,
            shedding: false,
            value: None,
            threshold: None,
            unit: "requests/s".to_owned(),
            pressure: 0.0,
            weight: 1.0,
            baseline: None,
            last_trigger_reason: Some("too much".to_owned()),
            last_triggered_millis_ago: None,
            recovery_countdown_millis: None,
            signal_age_millis: None,
            stale_reason: None,
            signals: Vec::new(),
            estimate: None,
            overdue: None,
        };
        let breaker = breaker.map(|state| BreakerStatus {
            policy: "a/c".to_owned(),
            mode: Mode::Enforce,
            state,
            failure_ratio: None,
            consecutive_failures: 0,
            last_trigger_reason: Some("failed".to_owned()),
            half_open_in_millis: None,
            transitions: Vec::new(),
            groups: None,
            stages: Vec::new(),
        });
        Status { tiers: vec![tier], breaker, ..Status::default() }
    }

    #[test]
    fn each_change_is_told_once_and_its_reason_only_when_it_is_for_the_worse() {
        let mut transitions = Transitions::default();
        let calm = status(TierState::Normal, Some(BreakerState::Closed));
        assert!(transitions.look(&calm));
        assert!(!transitions.look(&calm));
        let bad = status(TierState::Tripped, Some(BreakerState::Open));
        let told: Vec<_> =
            transitions.changes(&bad).iter().map(|t| (t.subject, t.from, t.to, t.reason)).collect();
        let expected = [("qps", "normal", "tripped", "too much"), ("breaker", "closed", "open", "failed")];
        assert_eq!(told, expected);
        assert!(transitions.look(&bad));
        assert!(transitions.changes(&calm).iter().all(|t| t.reason.is_empty() && !t.bad));
    }

    #[test]
    fn what_a_policy_takes_away_is_no_change_of_state() {
        let mut transitions = Transitions::default();
        transitions.look(&status(TierState::Tripped, Some(BreakerState::Open)));
        assert!(!transitions.look(&Status::default()));
    }
}
