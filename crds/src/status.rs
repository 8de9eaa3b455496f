//! What became of a policy: is it on, where, and what is it doing. Counts, never lists of pods.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// State of a `RateLimitPolicy`, written by the operator.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RateLimitPolicyStatus {
    /// The generation of the spec that this status is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Accepted`: whether the policy is valid and wins somewhere. `Programmed`: whether its pods obey it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 8),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"])
    )]
    pub conditions: Vec<Condition>,
    /// Pods that the policy acts on.
    #[serde(default)]
    pub pods: PodCounts,
    /// Pods in which a tier of this policy is tripped, by tier.
    #[serde(default)]
    pub tiers_tripped: TierCounts,
    /// The command that gives a sidecar to the pods that have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub rotate: Option<String>,
}

/// State of a `CircuitBreakerPolicy`, written by the operator.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CircuitBreakerPolicyStatus {
    /// The generation of the spec that this status is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Accepted`: whether the policy is valid and wins somewhere. `Programmed`: whether its pods obey it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 8),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"])
    )]
    pub conditions: Vec<Condition>,
    /// Pods that the policy acts on.
    #[serde(default)]
    pub pods: PodCounts,
    /// Pods in which the breaker of this policy is open or half-open.
    #[serde(default)]
    pub breakers_open: i32,
    /// The command that gives a sidecar to the pods that have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub rotate: Option<String>,
}

/// Pods of a policy, counted. Pods that have finished are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodCounts {
    /// Selected by the policy.
    #[serde(default)]
    pub matched: i32,
    /// Of those, pods with a sidecar.
    #[serde(default)]
    pub injected: i32,
    /// Of those, pods whose sidecar enforces the newest document.
    #[serde(default)]
    pub programmed: i32,
    /// Pods whose sidecar enforces an older document, or has not reported.
    #[serde(default)]
    pub out_of_date: i32,
    /// Pods without a sidecar.
    #[serde(default)]
    pub uninjected: i32,
}

/// Pods in which a tier is tripped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TierCounts {
    /// Requests per second.
    #[serde(default)]
    pub qps: i32,
    /// GPU memory.
    #[serde(default)]
    pub gpu_memory: i32,
    /// Latency percentile.
    #[serde(default)]
    pub latency: i32,
}
