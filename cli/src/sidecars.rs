//! What sidecars say of themselves, read through the API server's proxy to pods, so that nothing but the API server has
//! to be reachable.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt as _;
use http::Request;
use k8s_openapi::api::core::v1::{Container, Pod};
use kube::ResourceExt as _;
use serde::Deserialize;
use tidegate_operator_core::inject::{INJECTED_ANNOTATION, SIDECAR_CONTAINER};
use tidegate_operator_core::key::PodKey;
use tidegate_policy::report::{RefusedDocument, Status};

use crate::cluster::{Cluster, said};

/// Port of `/throttle/status`, where the pod does not say.
const ADMIN_PORT: i32 = 15121;
/// Its name in the pod.
const ADMIN_PORT_NAME: &str = "tidegate-admin";
/// Sidecars that are asked at a time.
const AT_ONCE: usize = 16;
/// A sidecar that has not answered by then is told as such.
const PATIENCE: Duration = Duration::from_secs(5);

/// `/throttle/status`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Page {
    pub(crate) version: String,
    pub(crate) policy_source: String,
    pub(crate) operator_connected: bool,
    pub(crate) refused: Option<RefusedDocument>,
    pub(crate) draining: bool,
    #[serde(flatten)]
    pub(crate) status: Status,
}

/// What each pod's sidecar said, or why it did not.
pub(crate) type Pages = BTreeMap<PodKey, Result<Page, String>>;

pub(crate) fn key(pod: &Pod) -> PodKey {
    PodKey::new(pod.namespace().unwrap_or_default(), pod.name_any())
}

/// The sidecar of a pod, as a container of it.
pub(crate) fn container(pod: &Pod) -> Option<&Container> {
    let containers = pod.spec.as_ref()?.init_containers.as_ref()?;
    containers.iter().find(|container| container.name == SIDECAR_CONTAINER)
}

/// The version that injected the pod.
pub(crate) fn injected_version(pod: &Pod) -> Option<&str> {
    container(pod)?;
    pod.metadata.annotations.as_ref()?.get(INJECTED_ANNOTATION).map(String::as_str)
}

/// Whether the pod has not run to its end.
pub(crate) fn is_alive(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    !matches!(phase, Some("Succeeded" | "Failed"))
}

/// Asks all sidecars of these pods; pods without one are left out.
pub(crate) async fn ask(cluster: &Cluster, pods: &[Pod]) -> Pages {
    let asked = pods.iter().filter(|pod| container(pod).is_some() && is_alive(pod));
    // Owned, because a stream of borrowing futures is not `Send` for every lifetime.
    let questions: Vec<_> = asked.map(|pod| (key(pod), path(pod))).collect();
    let answers = questions.into_iter().map(async |(pod, path)| (pod, page(cluster, &path).await));
    futures::stream::iter(answers).buffer_unordered(AT_ONCE).collect().await
}

async fn page(cluster: &Cluster, path: &str) -> Result<Page, String> {
    let text = proxied(cluster, path).await?;
    serde_json::from_str(&text).map_err(|error| format!("no status: {error}"))
}

/// What a pod answers to a GET through the API server.
pub(crate) async fn proxied(cluster: &Cluster, path: &str) -> Result<String, String> {
    let request = Request::get(path).body(Vec::new()).map_err(|error| error.to_string())?;
    match tokio::time::timeout(PATIENCE, cluster.client.request_text(request)).await {
        Ok(answer) => answer.map_err(|error| said(&error)),
        Err(_) => Err(format!("no answer in {} s", PATIENCE.as_secs())),
    }
}

fn path(pod: &Pod) -> String {
    let ports = container(pod).and_then(|container| container.ports.as_deref()).unwrap_or_default();
    let named = ports.iter().find(|port| port.name.as_deref() == Some(ADMIN_PORT_NAME));
    let port = named.map_or(ADMIN_PORT, |port| port.container_port);
    let PodKey { namespace, name } = key(pod);
    format!("/api/v1/namespaces/{namespace}/pods/{name}:{port}/proxy/throttle/status")
}
