//! Which pods get no sidecar, and why.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};

use super::names::{INJECT_LABEL, INJECTION_NAMESPACE_LABEL, REDIRECT_CONTAINER, SIDECAR_CONTAINER};
use super::{Admission, NamespaceFacts};

/// Why a pod has no sidecar, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SkipReason {
    /// Neither its namespace nor its own label asks for one.
    NotRequested,
    /// Its namespace asks, but no policy selects it.
    NoPolicy,
    /// It has one.
    AlreadyInjected,
    /// Its label says `disabled`.
    OptedOut,
    /// Redirecting would catch the node's traffic.
    HostNetwork,
    /// It runs on Windows, where nothing here can redirect.
    Windows,
    /// Its namespace forbids `NET_ADMIN`.
    PodSecurity,
    /// Clients would go around a sidecar that is reached by name.
    Bypassed,
    /// Another mesh redirects its traffic.
    OtherMesh,
    /// No TCP port is declared.
    NoPortToGuard,
    /// One of its `tidegate.dev/` annotations cannot be read.
    InvalidAnnotation,
    /// The patch would not give a valid pod.
    InvalidPatch,
}

impl SkipReason {
    /// As in the annotation and in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotRequested => "NotRequested",
            Self::NoPolicy => "NoPolicy",
            Self::AlreadyInjected => "AlreadyInjected",
            Self::OptedOut => "OptedOut",
            Self::HostNetwork => "HostNetwork",
            Self::Windows => "Windows",
            Self::PodSecurity => "PodSecurity",
            Self::Bypassed => "Bypassed",
            Self::OtherMesh => "OtherMesh",
            Self::NoPortToGuard => "NoPortToGuard",
            Self::InvalidAnnotation => "InvalidAnnotation",
            Self::InvalidPatch => "InvalidPatch",
        }
    }

    /// Whether the pod is told: it asked for a sidecar and does not have one.
    pub(super) const fn is_written_on_the_pod(self) -> bool {
        !matches!(self, Self::NotRequested | Self::NoPolicy | Self::AlreadyInjected)
    }
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a pod has no sidecar, with the particulars.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {detail}")]
pub struct Skip {
    /// In one word.
    pub reason: SkipReason,
    /// In one line: what was found, and what to write instead.
    pub detail: String,
}

impl Skip {
    pub(super) fn new(reason: SkipReason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into() }
    }
}

/// The reasons that can be seen before anything is planned.
pub(super) fn check(pod: &Pod, admission: &Admission<'_>) -> Result<(), Skip> {
    let spec = pod.spec.as_ref().ok_or_else(|| Skip::new(SkipReason::InvalidPatch, "the pod has no spec"))?;
    if all_containers(spec).any(|c| [SIDECAR_CONTAINER, REDIRECT_CONTAINER].contains(&c.name.as_str())) {
        return Err(Skip::new(SkipReason::AlreadyInjected, "the pod has a sidecar"));
    }
    requested(pod, admission)?;
    if let Some(detail) = windows(spec) {
        return Err(Skip::new(SkipReason::Windows, detail));
    }
    if spec.host_network == Some(true) {
        return Err(Skip::new(SkipReason::HostNetwork, "hostNetwork is true: use the pod network"));
    }
    Ok(())
}

fn requested(pod: &Pod, admission: &Admission<'_>) -> Result<(), Skip> {
    let namespace = value(&admission.namespace.labels, INJECTION_NAMESPACE_LABEL) == Some("enabled");
    match (optional(pod.metadata.labels.as_ref(), INJECT_LABEL), namespace) {
        (Some("enabled"), _) => Ok(()),
        (Some("disabled"), true) => {
            Err(Skip::new(SkipReason::OptedOut, format!("label {INJECT_LABEL} is disabled")))
        }
        (_, false) => Err(Skip::new(
            SkipReason::NotRequested,
            format!(
                "neither {INJECTION_NAMESPACE_LABEL} on the namespace nor {INJECT_LABEL} on the pod is enabled"
            ),
        )),
        (None, true) if admission.selected => Ok(()),
        (None, true) => Err(Skip::new(SkipReason::NoPolicy, "no policy selects the pod")),
        (Some(other), true) => Err(Skip::new(
            SkipReason::InvalidAnnotation,
            format!("label {INJECT_LABEL} is {other:?}: write enabled or disabled"),
        )),
    }
}

fn windows(spec: &PodSpec) -> Option<&'static str> {
    let selector = optional(spec.node_selector.as_ref(), "kubernetes.io/os") == Some("windows");
    let os = spec.os.as_ref().is_some_and(|os| os.name == "windows");
    (selector || os).then_some("the pod runs on Windows, where traffic cannot be redirected")
}

/// The Pod Security level of the namespace, if it forbids `NET_ADMIN`.
pub(super) fn forbidding_level(namespace: &NamespaceFacts) -> Option<&str> {
    let level = value(&namespace.labels, "pod-security.kubernetes.io/enforce")?;
    matches!(level, "baseline" | "restricted").then_some(level)
}

/// Init containers first.
pub(super) fn all_containers(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    spec.init_containers.iter().flatten().chain(&spec.containers)
}

fn value<'a>(map: &'a BTreeMap<String, String>, key: &str) -> Option<&'a str> {
    map.get(key).map(String::as_str)
}

fn optional<'a>(map: Option<&'a BTreeMap<String, String>>, key: &str) -> Option<&'a str> {
    map.and_then(|map| value(map, key))
}
