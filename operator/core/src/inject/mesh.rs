//! Pods whose traffic another mesh redirects to its own proxy.
//!
//! Two redirections of the same packets do not add up: whoever comes first sees all, and ours would see the mesh's TLS.
//! A sidecar that is reached by the name of its port comes after the mesh's proxy instead, with requests as the engine
//! would get them. The mesh has to leave the admin port alone: the kubelet starts and drains the pod through it, and
//! knows nothing of the mesh's certificates.
//!
//! ```text
//! client ══TLS══▶ istio-proxy ──▶ tidegate-sidecar :15130 ──▶ 127.0.0.1 engine :8000
//! kubelet ─────────(excluded)───▶ tidegate-sidecar :15121
//! ```

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;

use super::companions::is_mesh;
use super::names::INTERCEPTION_ANNOTATION;
use super::skip::all_containers;
use super::{NamespaceFacts, Skip, SkipReason};

/// A mesh that redirects the pod's traffic, or will when its webhook comes after ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mesh {
    Istio,
    /// By the node's proxy: nothing in the pod tells which ports it leaves alone.
    Ambient,
    Linkerd,
}

impl Mesh {
    /// The mesh of a pod.
    pub(super) fn of(pod: &Pod, namespace: &NamespaceFacts) -> Option<Self> {
        let spec = pod.spec.as_ref()?;
        let container = |prefix: &str| all_containers(spec).any(|c| is_mesh(c) && c.name.starts_with(prefix));
        if container("istio-") {
            return Some(Self::Istio);
        }
        if container("linkerd-") {
            return Some(Self::Linkerd);
        }
        let labels = pod.metadata.labels.as_ref();
        let ambient = optional(labels, "istio.io/dataplane-mode")
            .or_else(|| optional(Some(&namespace.labels), "istio.io/dataplane-mode"));
        if ambient == Some("ambient") {
            return Some(Self::Ambient);
        }
        if istio_will_inject(pod, namespace) {
            return Some(Self::Istio);
        }
        let linkerd = optional(pod.metadata.annotations.as_ref(), "linkerd.io/inject")
            .or_else(|| optional(Some(&namespace.annotations), "linkerd.io/inject"));
        matches!(linkerd, Some("enabled" | "ingress")).then_some(Self::Linkerd)
    }

    /// Whether the mesh leaves a port of the pod alone; otherwise why there can be no sidecar.
    pub(super) fn must_leave_alone(
        self,
        port: u16,
        pod: &Pod,
        namespace: &NamespaceFacts,
    ) -> Result<(), Skip> {
        let own = pod.metadata.annotations.as_ref();
        let (name, annotation, ports) = match self {
            Self::Istio => ("Istio", ISTIO_PORTS, optional(own, ISTIO_PORTS)),
            // Linkerd takes its settings from the namespace too.
            Self::Linkerd => {
                let ports = optional(own, LINKERD_PORTS)
                    .or_else(|| optional(Some(&namespace.annotations), LINKERD_PORTS));
                ("Linkerd", LINKERD_PORTS, ports)
            }
            Self::Ambient => {
                return Err(skip(
                    "Istio's ambient mode redirects the pod's traffic: opt the pod out of one of the two",
                ));
            }
        };
        if ports.is_some_and(|ports| lists(ports, port)) {
            return Ok(());
        }
        Err(skip(format!(
            "{name} redirects the pod's traffic: opt the pod out of one of the two, or annotate it {annotation}: \"{port}\" and {INTERCEPTION_ANNOTATION}: NamedPort"
        )))
    }

    /// Two redirections were asked for.
    pub(super) fn forbids_redirection(self) -> Skip {
        skip(format!(
            "{self:?} redirects the pod's traffic already: annotate the pod {INTERCEPTION_ANNOTATION}: NamedPort"
        ))
    }
}

const ISTIO_PORTS: &str = "traffic.sidecar.istio.io/excludeInboundPorts";
const LINKERD_PORTS: &str = "config.linkerd.io/skip-inbound-ports";

fn skip(detail: impl Into<String>) -> Skip {
    Skip::new(SkipReason::OtherMesh, detail)
}

/// Ports separated by commas; Linkerd takes ranges such as `4567-4570` too.
fn lists(ports: &str, port: u16) -> bool {
    ports.split(',').any(|item| {
        let (first, last) = item.split_once('-').unwrap_or((item, item));
        let bounds = (first.trim().parse::<u16>(), last.trim().parse::<u16>());
        matches!(bounds, (Ok(first), Ok(last)) if (first..=last).contains(&port))
    })
}

/// What the owner should know of a mesh's proxy among the ordinary containers.
pub(super) fn ends_with_the_engine(pod: &Pod) -> Option<String> {
    let container = pod.spec.iter().flat_map(|spec| &spec.containers).find(|container| is_mesh(container))?;
    Some(format!(
        "container {} gets its SIGTERM together with the engine, and may cut off requests that the engine still answers: let the mesh inject native sidecars",
        container.name
    ))
}

fn istio_will_inject(pod: &Pod, namespace: &NamespaceFacts) -> bool {
    let labels = pod.metadata.labels.as_ref();
    // Istio lets the label win over the annotation, and both over the namespace.
    let own = optional(labels, "sidecar.istio.io/inject")
        .or_else(|| optional(pod.metadata.annotations.as_ref(), "sidecar.istio.io/inject"));
    if let Some(choice) = own {
        return choice == "true";
    }
    let revision = namespace.labels.contains_key("istio.io/rev")
        || labels.is_some_and(|labels| labels.contains_key("istio.io/rev"));
    optional(Some(&namespace.labels), "istio-injection").map_or(revision, |choice| choice == "enabled")
}

fn optional<'a>(map: Option<&'a BTreeMap<String, String>>, key: &str) -> Option<&'a str> {
    map?.get(key).map(String::as_str)
}
