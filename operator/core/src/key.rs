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
}

impl WorkloadKind {
    /// Every kind, for whoever has to watch them all.
    pub const ALL: [Self; 5] =
        [Self::Deployment, Self::StatefulSet, Self::ReplicaSet, Self::DaemonSet, Self::Job];

    /// The kind with this API group and name, if policies can target it.
    pub fn parse(group: &str, kind: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| (known.group(), known.as_str()) == (group, kind))
    }

    /// Its API group.
    pub const fn group(self) -> &'static str {
        match self {
            Self::Job => "batch",
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
