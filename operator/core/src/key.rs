//! Names of the objects that the index knows.

use std::fmt;

/// A pod.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodKey {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl PodKey {
    /// The pod `name` of `namespace`.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for PodKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The kinds of policies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PolicyKind {
    /// Tiers, priority and limits.
    RateLimitPolicy,
    /// Circuit breaker.
    CircuitBreakerPolicy,
}

impl PolicyKind {
    /// As in a manifest.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RateLimitPolicy => "RateLimitPolicy",
            Self::CircuitBreakerPolicy => "CircuitBreakerPolicy",
        }
    }
}

/// A policy.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyKey {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: PolicyKind,
}

impl PolicyKey {
    /// The policy `name` of `namespace`.
    pub fn new(kind: PolicyKind, namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into(), kind }
    }
}

impl fmt::Display for PolicyKey {
    /// As documents and reports name it: `namespace/name`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The kinds of objects that make pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WorkloadKind {
    /// `apps/Deployment`.
    Deployment,
    /// `apps/StatefulSet`.
    StatefulSet,
    /// `apps/ReplicaSet`.
    ReplicaSet,
    /// `apps/DaemonSet`.
    DaemonSet,
    /// `batch/Job`.
    Job,
    /// `batch/CronJob`.
    CronJob,
    /// `leaderworkerset.x-k8s.io/LeaderWorkerSet`.
    LeaderWorkerSet,
}

impl WorkloadKind {
    /// Every kind, for whoever has to watch them all.
    pub const ALL: [Self; 7] = [
        Self::Deployment,
        Self::StatefulSet,
        Self::ReplicaSet,
        Self::DaemonSet,
        Self::Job,
        Self::CronJob,
        Self::LeaderWorkerSet,
    ];

    /// The kind with this API group and name, if policies can target it.
    pub fn parse(group: &str, kind: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| (known.group(), known.as_str()) == (group, kind))
    }

    /// Its API group.
    pub const fn group(self) -> &'static str {
        match self {
            Self::Job | Self::CronJob => "batch",
            Self::LeaderWorkerSet => "leaderworkerset.x-k8s.io",
            Self::Deployment | Self::StatefulSet | Self::ReplicaSet | Self::DaemonSet => "apps",
        }
    }

    /// As in a manifest.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Deployment => "Deployment",
            Self::StatefulSet => "StatefulSet",
            Self::ReplicaSet => "ReplicaSet",
            Self::DaemonSet => "DaemonSet",
            Self::Job => "Job",
            Self::CronJob => "CronJob",
            Self::LeaderWorkerSet => "LeaderWorkerSet",
        }
    }
}

/// An object that makes pods, in the namespace where it is mentioned.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Workload {
    /// Its kind.
    pub kind: WorkloadKind,
    /// Its name.
    pub name: String,
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.as_str(), self.name)
    }
}

/// The kinds of objects that send traffic to the pods that they select by labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum FrontKind {
    /// `v1/Service`.
    #[default]
    Service,
    /// `inference.networking.k8s.io/InferencePool`.
    InferencePool,
    /// `inference.networking.x-k8s.io/InferencePool`, the experimental one.
    ExperimentalInferencePool,
}

impl FrontKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Service, Self::InferencePool, Self::ExperimentalInferencePool];

    /// The kind with this API group and name, if policies can target it.
    pub fn parse(group: &str, kind: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| (known.group(), known.as_str()) == (group, kind))
    }

    /// Its API group.
    pub const fn group(self) -> &'static str {
        match self {
            Self::Service => "",
            Self::InferencePool => "inference.networking.k8s.io",
            Self::ExperimentalInferencePool => "inference.networking.x-k8s.io",
        }
    }

    /// As in a manifest.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Service => "Service",
            Self::InferencePool | Self::ExperimentalInferencePool => "InferencePool",
        }
    }
}

/// An object that sends traffic to pods, in the namespace where it is mentioned.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Front {
    /// Its kind.
    pub kind: FrontKind,
    /// Its name.
    pub name: String,
}

impl fmt::Display for Front {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.as_str(), self.name)
    }
}

/// The kinds that a cluster has only where somebody has installed them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CustomKind {
    /// An engine on several pods, of `kubernetes-sigs/lws`.
    LeaderWorkerSet,
    /// A pool of the Gateway API's inference extension.
    InferencePool,
    /// The same before it was stable.
    ExperimentalInferencePool,
}

impl CustomKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::LeaderWorkerSet, Self::InferencePool, Self::ExperimentalInferencePool];

    /// Its API group.
    pub const fn group(self) -> &'static str {
        match self {
            Self::LeaderWorkerSet => WorkloadKind::LeaderWorkerSet.group(),
            Self::InferencePool => FrontKind::InferencePool.group(),
            Self::ExperimentalInferencePool => FrontKind::ExperimentalInferencePool.group(),
        }
    }

    /// As in a manifest.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LeaderWorkerSet => WorkloadKind::LeaderWorkerSet.as_str(),
            Self::InferencePool | Self::ExperimentalInferencePool => FrontKind::InferencePool.as_str(),
        }
    }

    /// The name of its `CustomResourceDefinition`.
    pub const fn definition(self) -> &'static str {
        match self {
            Self::LeaderWorkerSet => "leaderworkersets.leaderworkerset.x-k8s.io",
            Self::InferencePool => "inferencepools.inference.networking.k8s.io",
            Self::ExperimentalInferencePool => "inferencepools.inference.networking.x-k8s.io",
        }
    }

    /// As in the path of its objects.
    pub fn plural(self) -> &'static str {
        self.definition().split('.').next().unwrap_or_default()
    }
}

/// Why the objects of a kind are not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unavailable {
    /// Its `CustomResourceDefinition` is not installed.
    NotInstalled,
    /// The operator may not list them.
    Forbidden,
}
