//! One pod as `status` and `top` show it.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use serde::Serialize;
use tidegate_operator_core::inject::SKIPPED_ANNOTATION;
use tidegate_policy::report::{BreakerStatus, Status, TierName, TierStatus};

use crate::sidecars::{Page, container, injected_version};

/// What is known of a pod.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PodRow {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) sidecar: SidecarRow,
    /// Of the sidecar at this instant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) state: Option<StateRow>,
}

/// The sidecar, as the pod's object tells.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SidecarRow {
    pub(crate) injected: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) version: Option<String>,
    /// Why there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) skipped: Option<String>,
    /// Why it does not say how it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) unreachable: Option<String>,
}

/// What the sidecar says.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StateRow {
    pub(crate) revision: String,
    pub(crate) policy_source: String,
    pub(crate) operator_connected: bool,
    /// Whether its document is the one that follows from the policies.
    pub(crate) up_to_date: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) refused: Option<String>,
    pub(crate) draining: bool,
    pub(crate) in_flight: u64,
    pub(crate) pressure: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) queue_length: Option<u64>,
    /// Requests that limits have refused since they are in force.
    pub(crate) refused_by_limits: u64,
    pub(crate) tiers: Vec<TierRow>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) breaker: Option<BreakerRow>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TierRow {
    pub(crate) tier: TierName,
    pub(crate) policy: String,
    pub(crate) state: &'static str,
    pub(crate) shedding: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) value: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) threshold: Option<f64>,
    pub(crate) unit: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) recovery_countdown_millis: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BreakerRow {
    pub(crate) policy: String,
    pub(crate) state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) half_open_in_millis: Option<u64>,
}

impl PodRow {
    /// `wanted` is the revision that follows from the policies.
    pub(crate) fn new(pod: &Pod, page: Option<&Result<Page, String>>, wanted: Option<&str>) -> Self {
        let skipped = pod.annotations().get(SKIPPED_ANNOTATION).cloned();
        let answered = page.and_then(|page| page.as_ref().ok());
        let sidecar = SidecarRow {
            injected: container(pod).is_some(),
            version: answered
                .map(|page| page.version.clone())
                .or_else(|| injected_version(pod).map(str::to_owned)),
            skipped: skipped.filter(|_| container(pod).is_none()),
            unreachable: page.and_then(|page| page.as_ref().err().cloned()),
        };
        let state = answered.map(|page| StateRow::new(page, wanted));
        Self { namespace: pod.namespace().unwrap_or_default(), name: pod.name_any(), sidecar, state }
    }

    /// The version, or why there is none.
    pub(crate) fn sidecar(&self) -> String {
        let SidecarRow { injected, version, skipped, .. } = &self.sidecar;
        match (injected, skipped) {
            (true, _) => version.clone().unwrap_or_else(|| "unknown".to_owned()),
            (false, Some(reason)) => format!("none ({reason})"),
            (false, None) => "none".to_owned(),
        }
    }

    /// `tripped`, or what else is not as it should be with the tiers.
    pub(crate) fn tiers(&self) -> String {
        let Some(state) = &self.state else { return "-".to_owned() };
        let all = state.tiers.iter().map(|tier| format!("{}={}", tier.tier.as_str(), tier.state));
        let text = all.collect::<Vec<_>>().join(",");
        if text.is_empty() { "-".to_owned() } else { text }
    }

    pub(crate) fn breaker(&self) -> &'static str {
        self.state.as_ref().and_then(|state| state.breaker.as_ref()).map_or("-", |breaker| breaker.state)
    }
}

impl StateRow {
    fn new(page: &Page, wanted: Option<&str>) -> Self {
        let Page { policy_source, operator_connected, refused, draining, status, .. } = page;
        let Status { revision, pressure, in_flight, tiers, limits, breaker, queue, .. } = status;
        Self {
            revision: revision.clone(),
            policy_source: policy_source.clone(),
            operator_connected: *operator_connected,
            up_to_date: wanted.is_none_or(|wanted| wanted == revision),
            refused: refused.as_ref().map(|refused| refused.message.clone()),
            draining: *draining,
            in_flight: *in_flight,
            pressure: *pressure,
            queue_length: queue.as_ref().map(|queue| queue.length),
            refused_by_limits: limits.iter().map(|limit| limit.refused).sum(),
            tiers: tiers.iter().map(TierRow::new).collect(),
            breaker: breaker.as_ref().map(BreakerRow::new),
        }
    }
}

impl TierRow {
    fn new(tier: &TierStatus) -> Self {
        Self {
            tier: tier.tier,
            policy: tier.policy.clone(),
            state: tier.state.as_str(),
            shedding: tier.shedding,
            value: tier.value,
            threshold: tier.threshold,
            unit: tier.unit.clone(),
            reason: tier.stale_reason.clone().or_else(|| tier.last_trigger_reason.clone()),
            recovery_countdown_millis: tier.recovery_countdown_millis,
        }
    }
}

impl BreakerRow {
    fn new(breaker: &BreakerStatus) -> Self {
        Self {
            policy: breaker.policy.clone(),
            state: breaker.state.as_str(),
            reason: breaker.last_trigger_reason.clone(),
            half_open_in_millis: breaker.half_open_in_millis,
        }
    }
}
