//! Which ports of a pod are guarded.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Container, ContainerPort, Pod};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::names::{HTTP2_PORTS_ANNOTATION, OPAQUE_PORTS_ANNOTATION, PORTS_ANNOTATION};
use super::{SidecarSettings, Skip, SkipReason};

/// The ports whose traffic goes through the sidecar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuardedPorts {
    all: BTreeSet<u16>,
    opaque: BTreeSet<u16>,
    http2: BTreeSet<u16>,
}

impl GuardedPorts {
    /// All TCP container ports of the ordinary containers, or those that the pod's annotation names, and the
    /// opaque and HTTP/2 ones. At least one, and none of the sidecar's own.
    pub fn of(pod: &Pod, settings: &SidecarSettings) -> Result<Self, Skip> {
        let opaque = annotated(pod, OPAQUE_PORTS_ANNOTATION)?.unwrap_or_default();
        let http2 = annotated(pod, HTTP2_PORTS_ANNOTATION)?.unwrap_or_default();
        if let Some(port) = opaque.intersection(&http2).next() {
            let detail = format!(
                "port {port} is in {OPAQUE_PORTS_ANNOTATION} and in {HTTP2_PORTS_ANNOTATION}: write it in one of them"
            );
            return Err(Skip::new(SkipReason::InvalidAnnotation, detail));
        }
        let named = annotated(pod, PORTS_ANNOTATION)?;
        let declared = declared(pod);
        let own = [settings.proxy_port, settings.admin_port];
        if let Some(port) = declared.iter().find(|p| own.contains(p)) {
            let detail = format!("a container declares port {port}, which the sidecar needs for itself");
            return Err(Skip::new(SkipReason::InvalidPatch, detail));
        }
        let mut all = named.unwrap_or(declared);
        all.extend(opaque.union(&http2));
        if let Some(port) = all.iter().find(|p| own.contains(p)) {
            let detail = format!("port {port} is the sidecar's own: name the engine's ports");
            return Err(Skip::new(SkipReason::InvalidAnnotation, detail));
        }
        if all.is_empty() {
            let detail =
                format!("no TCP containerPort is declared: declare one or annotate {PORTS_ANNOTATION}");
            return Err(Skip::new(SkipReason::NoPortToGuard, detail));
        }
        Ok(Self { all, opaque, http2 })
    }

    /// Every guarded port, ascending.
    pub fn all(&self) -> impl Iterator<Item = u16> {
        self.all.iter().copied()
    }

    /// The guarded ports that are passed on as bytes, ascending.
    pub fn opaque(&self) -> impl Iterator<Item = u16> {
        self.opaque.iter().copied()
    }

    /// The guarded ports whose engine speaks HTTP/2, ascending.
    pub fn http2(&self) -> impl Iterator<Item = u16> {
        self.http2.iter().copied()
    }

    pub(super) fn guards(&self, port: u16) -> bool {
        self.all.contains(&port)
    }

    pub(super) fn is_opaque(&self, port: u16) -> bool {
        self.opaque.contains(&port)
    }

    /// Whether a container serves a guarded port. A guarded port that nobody declares can be anybody's.
    pub(super) fn served_by(&self, container: &Container, pod: &Pod) -> bool {
        let declared = declared(pod);
        tcp_ports(container).any(|port| self.guards(port))
            || self.all.iter().any(|port| !declared.contains(port))
    }
}

/// A port by number, or by the name that the container gives it.
pub(super) fn resolve(container: &Container, port: &IntOrString) -> Option<u16> {
    match port {
        IntOrString::Int(number) => u16::try_from(*number).ok(),
        IntOrString::String(name) => container
            .ports
            .iter()
            .flatten()
            .find(|p| p.name.as_deref() == Some(name))
            .and_then(|p| u16::try_from(p.container_port).ok()),
    }
}

fn declared(pod: &Pod) -> BTreeSet<u16> {
    pod.spec.iter().flat_map(|spec| &spec.containers).flat_map(tcp_ports).collect()
}

fn tcp_ports(container: &Container) -> impl Iterator<Item = u16> {
    let tcp = container.ports.iter().flatten().filter(|port| is_tcp(port));
    tcp.filter_map(|port| u16::try_from(port.container_port).ok())
}

pub(super) fn is_tcp(port: &ContainerPort) -> bool {
    matches!(port.protocol.as_deref(), None | Some("TCP"))
}

fn annotated(pod: &Pod, annotation: &str) -> Result<Option<BTreeSet<u16>>, Skip> {
    let Some(text) = pod.metadata.annotations.as_ref().and_then(|a| a.get(annotation)) else {
        return Ok(None);
    };
    let port = |part: &str| match part.trim().parse::<u16>() {
        Ok(port) if port != 0 => Ok(port),
        _ => Err(Skip::new(
            SkipReason::InvalidAnnotation,
            format!(
                "annotation {annotation}: {:?} is not a port: write 1 to 65535, separated by commas, such as \"8000,8001\"",
                part.trim()
            ),
        )),
    };
    text.split(',').map(port).collect::<Result<_, _>>().map(Some)
}
