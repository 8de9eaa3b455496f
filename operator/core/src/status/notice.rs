//! What an on-call person wants to be told when it happens, as Events on policies.

use tidegate_policy::report::{BreakerState, Report};

use super::PolicyStatus;
use crate::key::{PodKey, PolicyKey, PolicyKind};

/// An Event to be emitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// The policy it is about.
    pub policy: PolicyKey,
    /// The pod it happened in.
    pub pod: Option<PodKey>,
    /// Whether somebody should look.
    pub type_: NoticeType,
    /// For machines: what happened.
    pub reason: &'static str,
    /// For machines: what was done about it.
    pub action: &'static str,
    /// For people.
    pub note: String,
}

/// The type of an Event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoticeType {
    /// For information.
    Normal,
    /// Somebody should look.
    Warning,
}

/// What a report tells that the one before did not. Without one before, only what is wrong now.
pub fn after_report(pod: &PodKey, before: Option<&Report>, after: &Report) -> Vec<Notice> {
    let mut notices = tier_notices(pod, before, after);
    notices.extend(breaker_notice(pod, before, after));
    notices
}

/// What a new status tells that the one before did not: a policy refused, or accepted again.
pub fn after_status(
    policy: &PolicyKey,
    before: Option<&PolicyStatus>,
    after: &PolicyStatus,
) -> Option<Notice> {
    let (now, message) = acceptance(after)?;
    let then = before.and_then(acceptance).map(|(reason, _)| reason);
    if then == Some(now) {
        return None;
    }
    let (type_, reason, action) = match now {
        "Invalid" => (NoticeType::Warning, "PolicyRefused", "KeepLastGood"),
        "Conflicted" => (NoticeType::Warning, "PolicyConflicted", "Ignore"),
        "Accepted" if then.is_some() => (NoticeType::Normal, "PolicyAccepted", "Enforce"),
        _ => return None,
    };
    Some(Notice { policy: policy.clone(), pod: None, type_, reason, action, note: message.to_owned() })
}

fn acceptance(status: &PolicyStatus) -> Option<(&str, &str)> {
    let accepted = status.conditions().iter().find(|condition| condition.type_ == "Accepted")?;
    Some((&accepted.reason, &accepted.message))
}

fn policy_key(kind: PolicyKind, policy: &str) -> Option<PolicyKey> {
    policy.split_once('/').map(|(namespace, name)| PolicyKey::new(kind, namespace, name))
}

fn tier_notices(pod: &PodKey, before: Option<&Report>, after: &Report) -> Vec<Notice> {
    let was_shedding = |tier| {
        let tiers = before.map(|report| report.status.tiers.as_slice()).unwrap_or_default();
        tiers.iter().any(|old| old.tier == tier && old.shedding)
    };
    let changed = after.status.tiers.iter().filter(|tier| tier.shedding != was_shedding(tier.tier));
    changed
        .filter_map(|tier| {
            let name = tier.tier.as_str();
            let (type_, reason, action, note) = if tier.shedding {
                let why = tier.last_trigger_reason.as_deref().unwrap_or("no reason given");
                let note = format!("{name} tier of pod {} tripped: {why}", pod.name);
                (NoticeType::Warning, "TierTripped", "ShedLoad", note)
            } else {
                let note = format!("{name} tier of pod {} recovered", pod.name);
                (NoticeType::Normal, "TierRecovered", "Admit", note)
            };
            let policy = policy_key(PolicyKind::RateLimitPolicy, &tier.policy)?;
            Some(Notice { policy, pod: Some(pod.clone()), type_, reason, action, note })
        })
        .collect()
}

fn breaker_notice(pod: &PodKey, before: Option<&Report>, after: &Report) -> Option<Notice> {
    let breaker = after.status.breaker.as_ref()?;
    let then = before.and_then(|report| report.status.breaker.as_ref()).map(|breaker| breaker.state);
    let (type_, reason, action, note) = match (then.unwrap_or_default(), breaker.state) {
        (BreakerState::Closed | BreakerState::HalfOpen, BreakerState::Open) => {
            let why = breaker.last_trigger_reason.as_deref().unwrap_or("no reason given");
            let note = format!("breaker of pod {} opened: {why}", pod.name);
            (NoticeType::Warning, "BreakerOpened", "RefuseRequests", note)
        }
        (BreakerState::Open | BreakerState::HalfOpen, BreakerState::Closed) => {
            let note = format!("breaker of pod {} closed", pod.name);
            (NoticeType::Normal, "BreakerClosed", "Admit", note)
        }
        _ => return None,
    };
    let policy = policy_key(PolicyKind::CircuitBreakerPolicy, &breaker.policy)?;
    Some(Notice { policy, pod: Some(pod.clone()), type_, reason, action, note })
}
