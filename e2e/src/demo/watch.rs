//! What is seen of the pods while the demo runs, and what has changed.

use std::{collections::BTreeMap, time::Duration};

use tidegate_policy::report::{BreakerState, Status, TierName, TierState};

use crate::load::Report;

/// One protected pod.
#[derive(Debug, Clone, Default)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Its `/throttle/status`; `None` while it does not answer.
    pub status: Option<Status>,
    /// The largest use of its GPUs' memory so far, in bytes.
    pub gpu_peak: u64,
    /// Size of its GPUs' memory, in bytes.
    pub gpu_total: u64,
}

/// A change that people want to know of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Happening {
    /// When, since the start.
    pub at: Duration,
    /// In one line.
    pub text: String,
}

/// Everything that a view shows.
#[derive(Debug, Clone, Default)]
pub struct Scene {
    /// Time since the start.
    pub at: Duration,
    /// What the demo is doing.
    pub phase: String,
    /// The pods.
    pub pods: Vec<Pod>,
    /// All requests so far.
    pub report: Report,
    /// What happened so far.
    pub happenings: Vec<Happening>,
}

impl Scene {
    /// A scene with pods of these names.
    pub fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let pods = names.into_iter().map(|name| Pod { name: name.to_owned(), ..Pod::default() }).collect();
        Self { pods, ..Self::default() }
    }

    /// Notes that something happened now.
    pub fn tell(&mut self, text: impl Into<String>) {
        self.happenings.push(Happening { at: self.at, text: text.into() });
    }

    /// Takes in what a pod says now, and notes what has changed since the last time.
    pub fn observe(&mut self, pod: usize, status: Option<Status>) {
        let Some(pod) = self.pods.get_mut(pod) else { return };
        let changes = match (&pod.status, &status) {
            (Some(before), Some(after)) => changes(before, after),
            _ => Vec::new(),
        };
        let at = self.at;
        self.happenings.extend(
            changes.into_iter().map(|change| Happening { at, text: format!("{}: {change}", pod.name) }),
        );
        pod.status = status;
    }

    /// Takes in how much memory a pod's GPUs use now.
    pub fn observe_gpu(&mut self, pod: usize, used: u64, total: u64) {
        if let Some(pod) = self.pods.get_mut(pod) {
            pod.gpu_peak = pod.gpu_peak.max(used);
            pod.gpu_total = total;
        }
    }
}

/// What is different, each in one line.
fn changes(before: &Status, after: &Status) -> Vec<String> {
    let mut changes = Vec::new();
    let states: BTreeMap<TierName, TierState> =
        before.tiers.iter().map(|tier| (tier.tier, tier.state)).collect();
    for tier in &after.tiers {
        let Some(state) = states.get(&tier.tier).filter(|state| **state != tier.state) else { continue };
        let reason = match (&tier.last_trigger_reason, tier.state) {
            (Some(reason), TierState::Tripped) => format!(" ({reason})"),
            _ => String::new(),
        };
        changes.push(format!(
            "{} tier {} → {}{reason}",
            tier.tier.as_str(),
            state.as_str(),
            tier.state.as_str()
        ));
    }
    if let (Some(before), Some(after)) = (&before.breaker, &after.breaker)
        && before.state != after.state
    {
        let reason = match (&after.last_trigger_reason, after.state) {
            (Some(reason), BreakerState::Open) => format!(" ({reason})"),
            _ => String::new(),
        };
        changes.push(format!("breaker {} → {}{reason}", before.state.as_str(), after.state.as_str()));
    }
    if before.revision != after.revision {
        changes.push(format!("policy {} in force", after.revision));
    }
    changes
}

#[cfg(test)]
pub(super) mod tests {
    use tidegate_policy::{
        Mode,
        report::{BreakerStatus, TierStatus},
    };

    use super::*;

    pub(in crate::demo) fn status(state: TierState, breaker: BreakerState) -> Status {
        let tier = TierStatus {
            tier: TierName::Qps,
            policy: "demo/llama".to_owned(),
            mode: Mode::Enforce,
            state,
            shedding: state == TierState::Tripped,
            value: Some(20.5),
            threshold: Some(16.0),
            unit: "requests/s".to_owned(),
            pressure: 0.5,
            weight: 1.0,
            baseline: None,
            last_trigger_reason: Some("20.5 requests/s over the ceiling of 16.0".to_owned()),
            last_triggered_millis_ago: Some(10),
            recovery_countdown_millis: Some(2900),
            signal_age_millis: None,
            stale_reason: None,
            signals: Vec::new(),
            estimate: None,
            overdue: None,
        };
        let breaker = BreakerStatus {
            policy: "demo/llama".to_owned(),
            mode: Mode::Enforce,
            state: breaker,
            failure_ratio: None,
            consecutive_failures: 5,
            last_trigger_reason: None,
            half_open_in_millis: Some(1500),
            transitions: Vec::new(),
            groups: None,
            stages: Vec::new(),
        };
        Status { tiers: vec![tier], breaker: Some(breaker), pressure: 0.5, ..Status::default() }
    }

    #[test]
    fn only_changes_are_told_with_their_reason() {
        let mut scene = Scene::new(["llama-0"]);
        scene.observe(0, Some(status(TierState::Normal, BreakerState::Closed)));
        scene.observe(0, Some(status(TierState::Normal, BreakerState::Closed)));
        assert!(scene.happenings.is_empty());
        scene.observe(0, Some(status(TierState::Tripped, BreakerState::Open)));
        let texts: Vec<&str> = scene.happenings.iter().map(|happening| happening.text.as_str()).collect();
        assert_eq!(
            texts,
            [
                "llama-0: qps tier normal → tripped (20.5 requests/s over the ceiling of 16.0)",
                "llama-0: breaker closed → open"
            ]
        );
    }

    #[test]
    fn the_peak_of_the_gpu_is_kept() {
        let mut scene = Scene::new(["llama-0"]);
        for used in [10, 70, 30] {
            scene.observe_gpu(0, used, 100);
        }
        assert_eq!((scene.pods[0].gpu_peak, scene.pods[0].gpu_total), (70, 100));
    }
}
