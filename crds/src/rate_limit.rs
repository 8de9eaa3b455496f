//! `RateLimitPolicy`.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    Concurrency, Identity, Limit, Mode, Plans, PodSelector, Priority, Queue, RateLimitPolicyStatus,
    TargetRef, Tiers,
};

/// Protects the pods of an inference engine from more load than they can take.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "tidegate.dev",
    version = "v1alpha1",
    kind = "RateLimitPolicy",
    plural = "ratelimitpolicies",
    shortname = "rlp",
    category = "tidegate",
    namespaced,
    status = "RateLimitPolicyStatus",
    derive = "PartialEq",
    doc = "Adaptive tiers, priority classes and limits by key for the pods of an inference engine.",
    label("gateway.networking.k8s.io/policy", "direct"),
    annotation("helm.sh/resource-policy", "keep"),
    printcolumn(name = "Mode", type_ = "string", json_path = ".spec.mode"),
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Accepted\")].status"
    ),
    printcolumn(
        name = "Programmed",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Programmed\")].status"
    ),
    printcolumn(name = "Pods", type_ = "string", json_path = ".status.enforced"),
    printcolumn(name = "Tripped", type_ = "integer", json_path = ".status.tiersTripped.any"),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Programmed\")].reason"
    ),
    printcolumn(
        name = "Target",
        type_ = "string",
        json_path = ".status.ancestors[0].ancestorRef.name",
        priority = "1"
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Programmed\")].message",
        priority = "1"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "!has(self.targetRefs) || size(self.targetRefs) == 0 || !has(self.selector)"
).message(RateLimitPolicySpec::ONE_TARGET))]
#[x_kube(validation = Rule::new(
    "has(self.tiers) || has(self.identity) || has(self.priority) || has(self.concurrency) || has(self.queue) || has(self.plans) || (has(self.limits) && size(self.limits) > 0)"
).message(RateLimitPolicySpec::NOTHING))]
pub struct RateLimitPolicySpec {
    /// The objects whose pods the policy acts on. Excludes `selector`; without both it is the default of its whole
    /// namespace. Where several policies set tiers or priority for a pod, the more specific one wins: selector, then
    /// workload, then Service, then namespace; of equals the oldest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub target_refs: Vec<TargetRef>,
    /// The pods the policy acts on, by their labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<PodSelector>,
    /// `Enforce`, or `Shadow`: decide, count and log, and let every request pass.
    #[serde(default)]
    pub mode: Mode,
    /// The adaptive tiers, taken whole from the most specific policy that has them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tiers: Option<Tiers>,
    /// Whose tokens are believed, taken whole from the most specific policy that has it. Without: nobody's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<Identity>,
    /// Priority classes, taken whole from the most specific policy that has them. Without: `X-Priority` may ask for
    /// a lower class, and nobody may claim `High`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<Priority>,
    /// Limits by key. Those of all policies that act on a pod add up, at most 64 for a pod.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 32),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub limits: Vec<Limit>,
    /// A limit for each plan that clients can have, beside `limits`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plans: Option<Plans>,
    /// Which answers tell what is left of the limits, by `RateLimit`, `RateLimit-Policy` and `x-ratelimit-*`; taken from
    /// the most specific policy that has it. Without it in any policy of the pod: `OnRefusal`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limit_headers: Option<RateLimitHeaders>,
    /// How many requests may be in flight, taken whole from the most specific policy that has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<Concurrency>,
    /// Where requests wait that find no place in flight, taken whole from the most specific policy that has it. Without
    /// `concurrency` in any policy of the pod they wait for places of the default one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<Queue>,
}

impl RateLimitPolicySpec {
    /// What is said about two ways of naming the pods at once.
    pub const ONE_TARGET: &str =
        "targetRefs and selector exclude each other: write one of them, or neither for the whole namespace";
    /// What is said about a policy that limits nothing.
    pub const NOTHING: &str = "the policy limits nothing: write tiers, identity, priority, limits, plans, concurrency, queue or several of them";
}

/// Which answers tell what is left of the limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RateLimitHeaders {
    /// Every answer to a request that was judged.
    Always,
    /// Refusals.
    OnRefusal,
    /// None.
    Never,
}
