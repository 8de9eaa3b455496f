//! The rules of a document, each with its policy and its state now.

use serde::Serialize;
use tidegate_policy::report::{Status, TierName};
use tidegate_policy::{Mode, PolicyDocument};

use crate::table::table;

/// One rule.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct RuleRow {
    pub(super) rule: String,
    pub(super) policy: String,
    pub(super) mode: Mode,
    /// What it does now, as the sidecar says; none while that obeys another document.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) state: Option<String>,
}

/// In the order in which a request meets them.
pub(super) fn of(document: &PolicyDocument, status: Option<&Status>) -> Vec<RuleRow> {
    let status = status.filter(|status| status.revision == document.revision);
    let mut rows = Vec::new();
    if let Some(breaker) = &document.breaker {
        let state =
            status.and_then(|status| status.breaker.as_ref()).map(|now| now.state.as_str().to_owned());
        rows.push(RuleRow::new("breaker", &breaker.policy, breaker.mode, state));
    }
    if let Some(tiers) = &document.tiers {
        let set = [
            (tiers.qps.is_some(), TierName::Qps),
            (tiers.gpu_memory.is_some(), TierName::GpuMemory),
            (tiers.latency.is_some(), TierName::Latency),
        ];
        for (_, tier) in set.into_iter().filter(|(set, _)| *set) {
            let state = status.and_then(|status| tier_state(status, tier));
            rows.push(RuleRow::new(format!("tier {}", tier.as_str()), &tiers.policy, tiers.mode, state));
        }
    }
    for limit in &document.limits {
        let now = status.and_then(|status| {
            status.limits.iter().find(|now| (&now.policy, &now.name) == (&limit.policy, &limit.name))
        });
        let state = now.map(|now| format!("{} keys, {} refused", now.keys, now.refused));
        rows.push(RuleRow::new(format!("limit {}", limit.name), &limit.policy, limit.mode, state));
    }
    if let Some(concurrency) = &document.concurrency {
        let now = status.and_then(|status| status.concurrency.as_ref());
        let state = now.map(|now| format!("{} of {} places taken", now.in_flight, now.limit));
        rows.push(RuleRow::new("concurrency", &concurrency.policy, concurrency.mode, state));
    }
    if let Some(queue) = &document.queue {
        let now = status.and_then(|status| status.queue.as_ref());
        let state = now.map(|now| format!("{} of {} wait", now.length, now.max_length));
        rows.push(RuleRow::new("queue", &queue.policy, queue.mode, state));
    }
    rows
}

fn tier_state(status: &Status, tier: TierName) -> Option<String> {
    let now = status.tiers.iter().find(|now| now.tier == tier)?;
    let figures = match (now.value, now.threshold) {
        (Some(value), Some(threshold)) => format!(", {value:.1} of {threshold:.1} {}", now.unit),
        (Some(value), None) => format!(", {value:.1} {}", now.unit),
        _ => String::new(),
    };
    Some(format!("{}{figures}", now.state.as_str()))
}

impl RuleRow {
    fn new(rule: impl Into<String>, policy: &str, mode: Mode, state: Option<String>) -> Self {
        Self { rule: rule.into(), policy: policy.to_owned(), mode, state }
    }
}

pub(super) fn text(rows: &[RuleRow]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let cells = |row: &RuleRow| {
        let state = row.state.clone().unwrap_or_else(|| "-".to_owned());
        [row.rule.clone(), row.policy.clone(), format!("{:?}", row.mode), state]
    };
    let rows: Vec<_> = rows.iter().map(cells).collect();
    format!("\n{}", table(["RULE", "POLICY", "MODE", "NOW"], &rows))
}
