//! How requests come to the sidecar: by redirection in the pod's network, or by the name of the container port.
//!
//! Redirection catches everything that reaches the pod, and needs `NET_ADMIN` for one init container. Where that is
//! forbidden, the names of guarded ports move to the sidecar: Services with a named `targetPort` then lead there, and
//! nothing in the pod needs a privilege. Whoever comes by number goes around it, so a pod that some Service reaches by
//! number gets no sidecar, unless its owner consents.

use k8s_openapi::api::core::v1::{Container, ContainerPort, HTTPGetAction, Lifecycle, LifecycleHandler, Pod};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::json;

use super::companions::serving;
use super::mesh::Mesh;
use super::names::{ALLOW_BYPASS_ANNOTATION, INTERCEPTION_ANNOTATION};
use super::patch::PatchBuilder;
use super::ports::{is_tcp, resolve};
use super::probes::probes;
use super::skip::forbidding_level;
use super::{Admission, GuardedPorts, Plan, SidecarSettings, Skip, SkipReason};

/// The first port of a sidecar that a name leads to; the others follow.
const FIRST_NAMED: u16 = 15130;

/// How guarded traffic comes to the sidecar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Interception {
    /// By redirection, and by name where the namespace forbids that.
    #[default]
    Auto,
    /// By nftables rules in the pod's own network namespace, whatever the address it was meant for.
    Redirect,
    /// By the name of the container port.
    NamedPort,
}

impl Interception {
    /// As in the annotation and in the chart.
    pub const ALL: [(&'static str, Self); 3] =
        [("Auto", Self::Auto), ("Redirect", Self::Redirect), ("NamedPort", Self::NamedPort)];

    /// From its name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, interception)| *interception)
    }
}

/// What was chosen for a pod.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Way {
    Redirect,
    Names(Vec<MovedPort>),
}

impl Way {
    /// The ports whose names lead to the sidecar.
    pub(super) fn names(&self) -> impl Iterator<Item = &MovedPort> {
        match self {
            Self::Redirect => [].iter(),
            Self::Names(moved) => moved.iter(),
        }
    }
}

/// A container port whose name moves to the sidecar.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct MovedPort {
    /// `containers` or `initContainers`.
    list: &'static str,
    container: usize,
    /// Its place in the container's list.
    index: usize,
    pub(super) name: String,
    pub(super) guarded: u16,
    /// The sidecar's port that has the name now.
    pub(super) listen: u16,
}

/// Chooses the way, or says why there is none.
pub(super) fn choose(
    pod: &Pod,
    admission: &Admission<'_>,
    settings: &SidecarSettings,
    ports: &GuardedPorts,
) -> Result<Way, Skip> {
    let level = forbidding_level(admission.namespace);
    let asked = asked(pod, settings)?;
    if let Some(mesh) = Mesh::of(pod, admission.namespace) {
        mesh.must_leave_alone(settings.admin_port, pod, admission.namespace)?;
        return match asked {
            Interception::Redirect => Err(mesh.forbids_redirection()),
            Interception::Auto | Interception::NamedPort => by_name(pod, admission, ports),
        };
    }
    match (asked, level) {
        (Interception::Auto | Interception::Redirect, None) => Ok(Way::Redirect),
        (Interception::Redirect, Some(level)) => {
            let detail = format!(
                "the namespace enforces the Pod Security level {level}, which forbids NET_ADMIN: annotate {INTERCEPTION_ANNOTATION}: NamedPort"
            );
            Err(Skip::new(SkipReason::PodSecurity, detail))
        }
        (Interception::Auto, Some(_)) | (Interception::NamedPort, _) => by_name(pod, admission, ports),
    }
}

fn asked(pod: &Pod, settings: &SidecarSettings) -> Result<Interception, Skip> {
    let annotation = pod.metadata.annotations.as_ref().and_then(|all| all.get(INTERCEPTION_ANNOTATION));
    let Some(text) = annotation else { return Ok(settings.interception) };
    Interception::parse(text).ok_or_else(|| {
        let detail =
            format!("annotation {INTERCEPTION_ANNOTATION} is {text:?}: write Auto, Redirect or NamedPort");
        Skip::new(SkipReason::InvalidAnnotation, detail)
    })
}

fn by_name(pod: &Pod, admission: &Admission<'_>, ports: &GuardedPorts) -> Result<Way, Skip> {
    if !admission.sidecar_port_names {
        let detail = "Services find the named ports of native sidecars from Kubernetes 1.32 on: upgrade, or allow NET_ADMIN";
        return Err(Skip::new(SkipReason::PodSecurity, detail));
    }
    let moved = moved(pod, ports)?;
    if !allows_bypass(pod)
        && let Some(service) =
            admission.services.iter().find(|one| one.goes_around(|port| ports.guards(port)))
    {
        let detail = format!(
            "{} reaches the pod by a port's number and would go around the sidecar: {}, or annotate the pod {ALLOW_BYPASS_ANNOTATION}: \"true\"",
            service.front(),
            service.remedy()
        );
        return Err(Skip::new(SkipReason::Bypassed, detail));
    }
    Ok(Way::Names(moved))
}

/// The owner knows that some clients go around the sidecar.
fn allows_bypass(pod: &Pod) -> bool {
    let annotations = pod.metadata.annotations.as_ref();
    annotations.and_then(|all| all.get(ALLOW_BYPASS_ANNOTATION)).is_some_and(|value| value == "true")
}

fn moved(pod: &Pod, ports: &GuardedPorts) -> Result<Vec<MovedPort>, Skip> {
    let declared = pod.spec.iter().flat_map(serving).flat_map(|(list, container, declaring)| {
        let ports = declaring.ports.iter().flatten().enumerate();
        ports.map(move |(index, port)| (list, container, index, port))
    });
    let mut moved: Vec<MovedPort> = Vec::new();
    let mut listen = FIRST_NAMED;
    for guarded in ports.all() {
        let mut here = declared.clone().filter(|(.., port)| is_tcp(port) && number(port) == Some(guarded));
        let named = here.find_map(|(list, container, index, port)| {
            Some((list, container, index, port, port.name.clone()?))
        });
        let Some((list, container, index, port, name)) = named else {
            let detail = format!(
                "guarded port {guarded} has no name: name the containerPort, and let Services have that name as targetPort"
            );
            return Err(Skip::new(SkipReason::Bypassed, detail));
        };
        if port.host_port.is_some() {
            let detail = format!("hostPort of port {guarded} goes around the sidecar: use a Service");
            return Err(Skip::new(SkipReason::Bypassed, detail));
        }
        while declared.clone().any(|(.., port)| number(port) == Some(listen)) || ports.guards(listen) {
            listen += 1;
        }
        moved.push(MovedPort { list, container, index, name, guarded, listen });
        listen += 1;
    }
    Ok(moved)
}

fn number(port: &ContainerPort) -> Option<u16> {
    u16::try_from(port.container_port).ok()
}

/// Takes the names from the engine's ports, and writes numbers where its own probes and hooks used them.
pub(super) fn take_names(plan: &Plan<'_>, patch: &mut PatchBuilder<'_>) {
    let Way::Names(moved) = plan.way else { return };
    for port in moved {
        let (container, index) = (port.container.to_string(), port.index.to_string());
        patch.remove(["spec", port.list, &container, "ports", &index, "name"]);
    }
    for place in plan.pod.spec.iter().flat_map(serving) {
        let (list, index, _) = place;
        let names = moved.iter().filter(|port| (port.list, port.container) == (list, index));
        number_references(place, &names.map(|port| port.name.as_str()).collect::<Vec<_>>(), patch);
    }
}

fn number_references(
    (list, index, container): (&str, usize, &Container),
    names: &[&str],
    patch: &mut PatchBuilder<'_>,
) {
    let index = index.to_string();
    let mut write = |place: &[&str], port: &IntOrString| {
        if let (IntOrString::String(name), Some(number)) = (port, resolve(container, port))
            && names.contains(&name.as_str())
        {
            let field = ["spec", list, &index].into_iter().chain(place.iter().copied());
            patch.add(field.chain(["port"]), json!(number));
        }
    };
    for (field, probe) in probes(container) {
        if let Some(HTTPGetAction { port, .. }) = &probe.http_get {
            write(&[field, "httpGet"], port);
        }
        if let Some(tcp) = &probe.tcp_socket {
            write(&[field, "tcpSocket"], &tcp.port);
        }
    }
    for (field, handler) in hooks(container.lifecycle.as_ref()) {
        if let Some(HTTPGetAction { port, .. }) = &handler.http_get {
            write(&["lifecycle", field, "httpGet"], port);
        }
    }
}

fn hooks(lifecycle: Option<&Lifecycle>) -> impl Iterator<Item = (&'static str, &LifecycleHandler)> {
    let both = lifecycle.map(|own| [("postStart", &own.post_start), ("preStop", &own.pre_stop)]);
    both.into_iter().flatten().filter_map(|(field, handler)| Some((field, handler.as_ref()?)))
}
