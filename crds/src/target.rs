//! Which pods a policy acts on.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An object of the policy's own namespace whose pods the policy acts on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "(self.group == '' && self.kind == 'Service') || (self.group == 'batch' && self.kind in ['Job', 'CronJob']) || (self.group == 'apps' && self.kind in ['Deployment', 'StatefulSet', 'ReplicaSet', 'DaemonSet']) || (self.group == 'leaderworkerset.x-k8s.io' && self.kind == 'LeaderWorkerSet') || (self.group in ['inference.networking.k8s.io', 'inference.networking.x-k8s.io'] && self.kind == 'InferencePool')"
).message(TargetRef::KINDS))]
pub struct TargetRef {
    /// API group of the object: `apps`, `batch`, `leaderworkerset.x-k8s.io`, `inference.networking.k8s.io` (or its
    /// experimental `inference.networking.x-k8s.io`), or empty for a Service.
    #[serde(default)]
    #[schemars(length(max = 63))]
    pub group: String,
    /// Kind of the object: `Deployment`, `StatefulSet`, `ReplicaSet`, `DaemonSet`, `Job`, `CronJob`,
    /// `LeaderWorkerSet`, `InferencePool` or `Service`.
    #[schemars(length(min = 1, max = 63))]
    pub kind: String,
    /// Name of the object.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

impl TargetRef {
    /// What is said about a pair of group and kind that no policy can target.
    pub const KINDS: &str = "not a kind that policies can target: write group: apps with kind: Deployment, StatefulSet, ReplicaSet or DaemonSet, group: batch with kind: Job or CronJob, group: leaderworkerset.x-k8s.io with kind: LeaderWorkerSet, group: inference.networking.k8s.io with kind: InferencePool, or group: \"\" with kind: Service; other pods are reached by selector";
}

/// A label selector with bounds. It selects pods of the policy's own namespace; an empty one selects all of them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodSelector {
    /// Labels that a pod must have, with these values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16, "additionalProperties" = {"type": "string", "maxLength": 63}))]
    pub match_labels: BTreeMap<String, String>,
    /// Conditions on labels that a pod must meet, all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub match_expressions: Vec<SelectorRequirement>,
}

/// One condition on a label.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "(self.operator in ['In', 'NotIn']) == (has(self.values) && size(self.values) > 0)"
).message(SelectorRequirement::VALUES))]
pub struct SelectorRequirement {
    /// The label.
    #[schemars(length(min = 1, max = 317))]
    pub key: String,
    /// How it is compared.
    pub operator: SelectorOperator,
    /// What it is compared with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(max = 63)), extend("x-kubernetes-list-type" = "atomic"))]
    pub values: Vec<String>,
}

impl SelectorRequirement {
    /// What is said about an operator with the wrong number of values.
    pub const VALUES: &str =
        "values do not fit the operator: write values for In and NotIn, and none for Exists and DoesNotExist";
}

/// How a label is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SelectorOperator {
    /// The label has one of the values.
    In,
    /// The label is absent or has none of the values.
    NotIn,
    /// The label is there.
    Exists,
    /// The label is absent.
    DoesNotExist,
}
