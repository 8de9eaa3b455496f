//! The kubelet's probes. HTTP probes of guarded ports stay as they are and pass without limits. TCP and gRPC
//! probes would be answered by the sidecar itself and hide a dead engine, so they go to the admin port, which
//! asks the engine.

use std::collections::BTreeSet;
use std::fmt::Write;

use k8s_openapi::api::core::v1::{Container, HTTPGetAction, PodSpec, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::json;

use super::Plan;
use super::companions::probe_of_others;
use super::interception::Way;
use super::patch::PatchBuilder;
use super::ports::resolve;

/// Rewrites what must be and returns the exact paths that pass without limits.
pub(super) fn rewrite(
    plan: &Plan<'_>,
    patch: &mut PatchBuilder<'_>,
    warnings: &mut Vec<String>,
) -> BTreeSet<String> {
    let mut unlimited = BTreeSet::from(["/metrics".to_owned()]);
    unlimited.extend(probe_of_others(plan.pod).map(str::to_owned));
    for (list, index, container) in plan.pod.spec.iter().flat_map(indexed) {
        for (field, probe) in probes(container) {
            match verdict(plan, container, probe) {
                Verdict::Untouched => {}
                Verdict::Unlimited(exact) if is_plain(&exact) => {
                    unlimited.insert(exact);
                }
                Verdict::Unlimited(exact) => warnings.push(format!(
                    "{field} of container {} asks for {exact:?}, which is limited like any request: use a path of letters, digits, '/', '-', '.', '_' and '~'",
                    container.name
                )),
                // Without redirection the kubelet reaches the engine itself.
                Verdict::Rewritten { .. } | Verdict::Tls(_) if *plan.way != Way::Redirect => {}
                Verdict::Rewritten { handler, path: asked } => {
                    let place = ["spec", list, &index.to_string(), field].map(str::to_owned);
                    patch.remove(place.iter().map(String::as_str).chain([handler]));
                    let http = json!({"port": plan.settings.admin_port, "path": asked, "scheme": "HTTP"});
                    patch.add(place.iter().map(String::as_str).chain(["httpGet"]), http);
                }
                Verdict::Tls(port) => warnings.push(format!(
                    "{field} of container {} speaks TLS on guarded port {port}, which the sidecar refuses: name it in tidegate.dev/opaque-ports",
                    container.name
                )),
            }
        }
    }
    unlimited
}

enum Verdict {
    Untouched,
    Unlimited(String),
    Rewritten { handler: &'static str, path: String },
    Tls(u16),
}

fn verdict(plan: &Plan<'_>, container: &Container, probe: &Probe) -> Verdict {
    let guarded = |port: &IntOrString, host: Option<&String>| {
        // A probe with a host of its own does not come to this pod's address.
        host.is_none_or(String::is_empty)
            .then(|| resolve(container, port))
            .flatten()
            .filter(|port| plan.ports.guards(*port))
    };
    if let Some(http) = &probe.http_get {
        return match guarded(&http.port, http.host.as_ref()) {
            None => Verdict::Untouched,
            Some(port) if plan.ports.is_opaque(port) => Verdict::Untouched,
            Some(port) if http.scheme.as_deref() == Some("HTTPS") => Verdict::Tls(port),
            Some(_) => Verdict::Unlimited(exact_path(http)),
        };
    }
    if let Some(port) = probe.tcp_socket.as_ref().and_then(|tcp| guarded(&tcp.port, tcp.host.as_ref())) {
        return Verdict::Rewritten { handler: "tcpSocket", path: format!("/probe/tcp/{port}") };
    }
    match &probe.grpc {
        Some(grpc) if guarded(&IntOrString::Int(grpc.port), None).is_some() => {
            let path = format!("/probe/grpc/{}{}", grpc.port, service_query(grpc.service.as_deref()));
            Verdict::Rewritten { handler: "grpc", path }
        }
        _ => Verdict::Untouched,
    }
}

/// The path that the kubelet asks for: with a leading slash, without the query.
fn exact_path(http: &HTTPGetAction) -> String {
    let path = http.path.as_deref().unwrap_or_default();
    let path = path.split(['?', '#']).next().unwrap_or_default();
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

/// Whether the path can be a flag of the sidecar and is compared byte by byte without surprises.
fn is_plain(path: &str) -> bool {
    path.len() <= 1024 && path.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-._~:@%+=&!$*".contains(&b))
}

fn service_query(service: Option<&str>) -> String {
    let mut query = String::new();
    for byte in service.unwrap_or_default().bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            query.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(query, "%{byte:02X}");
        }
    }
    if query.is_empty() { query } else { format!("?service={query}") }
}

pub(super) fn probes(container: &Container) -> impl Iterator<Item = (&'static str, &Probe)> {
    [
        ("livenessProbe", &container.liveness_probe),
        ("readinessProbe", &container.readiness_probe),
        ("startupProbe", &container.startup_probe),
    ]
    .into_iter()
    .filter_map(|(field, probe)| Some((field, probe.as_ref()?)))
}

fn indexed(spec: &PodSpec) -> impl Iterator<Item = (&'static str, usize, &Container)> {
    let init = spec.init_containers.iter().flatten().enumerate();
    let ordinary = spec.containers.iter().enumerate();
    init.map(|(i, c)| ("initContainers", i, c)).chain(ordinary.map(|(i, c)| ("containers", i, c)))
}
