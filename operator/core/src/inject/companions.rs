//! Containers that others put beside the engine, and what they do with its traffic.
//!
//! ```text
//! Knative, KServe   client ──▶ queue-proxy :8012 ──▶ 127.0.0.1 engine :8080    queue-proxy drains the pod
//! Istio, Linkerd    client ──▶ mesh proxy (redirected) ──▶ the port that was asked for
//! ```

use k8s_openapi::api::core::v1::{Container, ContainerPort, Pod, PodSpec};

/// Knative's, and so that of `KServe` where it runs on Knative.
const QUEUE_PROXY: &str = "queue-proxy";
/// The queue-proxy's ports that carry no requests for the engine: hooks and health, metrics twice, profiles.
const QUEUE_PROXY_OWN: [&str; 4] = ["http-queueadm", "http-autometric", "http-usermetric", "profiling-port"];
/// Where the queue-proxy serves HTTP/2 without TLS (`BackendHTTP2Port`).
const QUEUE_PROXY_HTTP2: i32 = 8013;
/// What Knative's activator and ingress ask each pod, with a header of their own (`ProbePath`).
const KNATIVE_PROBE: &str = "/healthz";

/// Proxies of meshes, and what programs the redirection to them.
pub(super) const MESH_CONTAINERS: [&str; 6] = [
    "istio-proxy",
    "istio-init",
    "istio-validation",
    "linkerd-proxy",
    "linkerd-init",
    "linkerd-network-validator",
];

/// Whether the container belongs to a mesh.
pub(super) fn is_mesh(container: &Container) -> bool {
    MESH_CONTAINERS.contains(&container.name.as_str())
}

fn is_queue_proxy(container: &Container) -> bool {
    container.name == QUEUE_PROXY
}

/// Whether the container ends by itself, and in its own way, once its requests are done: nothing may hold it.
pub(super) fn drains_itself(container: &Container) -> bool {
    is_queue_proxy(container) || is_mesh(container)
}

/// Whether Knative drains the pod: its engine waits for the queue-proxy by a preStop of Knative's.
pub(super) fn knative_drains(pod: &Pod) -> bool {
    pod.spec.iter().flat_map(|spec| &spec.containers).any(is_queue_proxy)
}

/// What Knative asks the pod beside the kubelet.
pub(super) fn probe_of_others(pod: &Pod) -> Option<&'static str> {
    knative_drains(pod).then_some(KNATIVE_PROBE)
}

/// Whether requests for the engine come by this port.
pub(super) fn leads_to_engine(container: &Container, port: &ContainerPort) -> bool {
    let own = || port.name.as_deref().is_some_and(|name| QUEUE_PROXY_OWN.contains(&name));
    !(is_mesh(container) || is_queue_proxy(container) && own())
}

/// Whether the port speaks HTTP/2 without TLS, as its owner's convention has it.
pub(super) fn speaks_http2(container: &Container, port: &ContainerPort) -> bool {
    is_queue_proxy(container) && port.container_port == QUEUE_PROXY_HTTP2
}

/// The containers that serve while the pod runs, each with its list and its place there: the ordinary ones, and native
/// sidecars such as llm-d's router.
pub(super) fn serving(spec: &PodSpec) -> impl Iterator<Item = (&'static str, usize, &Container)> + Clone {
    let ordinary = spec.containers.iter().enumerate().map(|(i, c)| ("containers", i, c));
    let native = spec.init_containers.iter().flatten().enumerate().map(|(i, c)| ("initContainers", i, c));
    ordinary.chain(native.filter(|(.., container)| container.restart_policy.as_deref() == Some("Always")))
}
