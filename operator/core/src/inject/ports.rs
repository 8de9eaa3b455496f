//! Which ports of a pod are guarded.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Container, ContainerPort, Pod};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::companions::{leads_to_engine, serving, speaks_http2};
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
    /// All TCP container ports of the containers that serve, but for those that are not the engine's business, or
    /// those that the pod's annotation names, and the opaque and HTTP/2 ones. At least one, and none of the sidecar's
    /// own.
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
        let own = [settings.proxy_port, settings.admin_port];
        if let Some(port) = tcp_ports(pod, |_, _| true).find(|p| own.contains(p)) {
            let detail = format!("a container declares port {port}, which the sidecar needs for itself");
            return Err(Skip::new(SkipReason::InvalidPatch, detail));
        }
        let mut all = named.unwrap_or_else(|| declared(pod));
        all.extend(opaque.union(&http2));
        let http2 = http2.into_iter().chain(tcp_ports(pod, speaks_http2).filter(|port| all.contains(port)));
        let http2: BTreeSet<_> = http2.filter(|port| !opaque.contains(port)).collect();
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

    /// The ordinary containers whose end takes the answers of guarded ports with it: those that declare one, and all
    /// of them where a native sidecar declares it, or nobody.
    pub(super) fn served_by<'a>(&self, pod: &'a Pod) -> Vec<(usize, &'a Container)> {
        let declared = declared(pod);
        let undeclared = self.all.iter().any(|port| !declared.contains(port));
        let serves = |container: &Container| container_ports(container).any(|port| self.guards(port));
        let containers = || pod.spec.iter().flat_map(|spec| &spec.containers).enumerate();
        let all = undeclared || !containers().any(|(_, container)| serves(container));
        containers().filter(|(_, container)| all || serves(container)).collect()
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
    tcp_ports(pod, leads_to_engine).collect()
}

/// The TCP ports of the containers that serve which are as wanted.
fn tcp_ports(pod: &Pod, wanted: impl Fn(&Container, &ContainerPort) -> bool) -> impl Iterator<Item = u16> {
    let containers = pod.spec.iter().flat_map(serving);
    let ports =
        containers.flat_map(|(.., container)| container.ports.iter().flatten().map(move |p| (container, p)));
    let wanted = ports.filter(move |(container, port)| is_tcp(port) && wanted(container, port));
    wanted.filter_map(|(_, port)| u16::try_from(port.container_port).ok())
}

fn container_ports(container: &Container) -> impl Iterator<Item = u16> {
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
