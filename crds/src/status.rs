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
    /// The objects that the policy is attached to, and what became of it there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub ancestors: Vec<PolicyAncestorStatus>,
    /// On how many of the pods that it acts on the policy is in force, such as `2/3`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub enforced: Option<String>,
    /// Pods that the policy acts on.
    #[serde(default)]
    pub pods: PodCounts,
    /// Pods in which a tier of this policy is tripped, by tier.
    #[serde(default)]
    pub tiers_tripped: TierCounts,
    /// What the limits of the policy come to over all of its pods.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub limits: Vec<LimitStatus>,
    /// The command that gives the newest sidecar to the pods that have none or an old one.
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
    /// The objects that the policy is attached to, and what became of it there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub ancestors: Vec<PolicyAncestorStatus>,
    /// On how many of the pods that it acts on the policy is in force, such as `2/3`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub enforced: Option<String>,
    /// Pods that the policy acts on.
    #[serde(default)]
    pub pods: PodCounts,
    /// Pods in which the breaker of this policy is open or half-open.
    #[serde(default)]
    pub breakers_open: i32,
    /// The command that gives the newest sidecar to the pods that have none or an old one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub rotate: Option<String>,
}

/// An object that a policy is attached to, as the Gateway API's `PolicyAncestorStatus`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyAncestorStatus {
    /// The object.
    pub ancestor_ref: AncestorRef,
    /// Who wrote this, which is always `tidegate.dev/operator`.
    #[schemars(length(min = 1, max = 253))]
    pub controller_name: String,
    /// The conditions of the policy as far as the pods of this object go.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 8),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"])
    )]
    pub conditions: Vec<Condition>,
}

/// The name of an object that a policy is attached to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AncestorRef {
    /// The API group of the object, which is empty for the core group.
    #[serde(default)]
    #[schemars(length(max = 253))]
    pub group: String,
    /// The kind of the object.
    #[schemars(length(min = 1, max = 63))]
    pub kind: String,
    /// The namespace of the object; a Namespace has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
    /// The name of the object.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// What a limit comes to over all pods. Each pod counts by itself, so whoever reaches all of them may have the total.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LimitStatus {
    /// The name of the limit.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// What each pod admits per window, or at once where there is no window.
    pub per_pod: i64,
    /// The window of the limit; limits of requests in flight have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub window: Option<String>,
    /// Pods on which the limit is in force.
    pub pods: i32,
    /// What all of these pods admit together.
    pub total: i64,
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
    /// Pods whose sidecar has another image than the one that is injected now.
    #[serde(default)]
    pub old_sidecar: i32,
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
    /// Pods in which any of them is tripped.
    #[serde(default)]
    pub any: i32,
}
