//! Nodes, pods and policies as a large cluster has them, with nobody who runs anything.

use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};

use super::Size;
use crate::cluster::binaries;
use crate::harness::{RELEASE_NAMESPACE, apply};

/// Where pods and policies are.
pub(super) const NAMESPACE: &str = "inference";
/// The policy that selects every pod.
pub(super) const EVERYWHERE: &str = "everywhere";
/// Requests to the API server at the same time.
const AT_ONCE: usize = 24;

/// The installation as `manifests/tidegate.yaml` has it, but for what only a cluster with nodes can obey.
pub(super) async fn install(client: &Client) -> anyhow::Result<()> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    for (name, labels) in
        [(RELEASE_NAMESPACE, json!({})), (NAMESPACE, json!({"tidegate.dev/injection": "enabled"}))]
    {
        let namespace = serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}}))?;
        namespaces.create(&PostParams::default(), &namespace).await?;
    }
    let text = std::fs::read_to_string(binaries::workspace().join("manifests/tidegate.yaml"))?;
    let rights = |part: &&str| {
        let kind = part.lines().find_map(|line| line.strip_prefix("kind: ")).unwrap_or_default();
        ["ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"].contains(&kind)
    };
    let parts: Vec<&str> = text.split("\n---").filter(rights).collect();
    apply(client, None, &parts.join("\n---")).await?;
    // Nobody else makes it here, and no pod is admitted without.
    apply(client, Some(NAMESPACE), "{apiVersion: v1, kind: ServiceAccount, metadata: {name: default}}").await
}

/// The nodes.
pub(super) async fn nodes(client: &Client, size: &Size) -> anyhow::Result<()> {
    let api: Api<Node> = Api::all(client.clone());
    let create = async |n: usize| {
        let node: Node = serde_json::from_value(json!({"metadata": {"name": node(n)}}))?;
        api.create(&PostParams::default(), &node).await.map(drop).map_err(anyhow::Error::from)
    };
    stream::iter(0..size.nodes).map(Ok).try_for_each_concurrent(AT_ONCE, create).await
}

fn node(n: usize) -> String {
    format!("node-{n}")
}

/// Of its Service and of the label of its pods.
fn workload(n: usize) -> String {
    format!("engine-{n}")
}

/// A Service for each workload, and the policies: one for every pod, the others for one workload each, in turn of
/// both kinds and of both ways to attach.
pub(super) async fn policies(client: &Client, size: &Size) -> anyhow::Result<()> {
    let services = (0..size.workloads()).map(|n| {
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": workload(n)},
            "spec": {"selector": {"app": workload(n)}, "ports": [{"port": 80, "targetPort": 8000}]},
        })
    });
    let policies = (1..size.policies).map(|n| policy(n, size));
    let all: Vec<String> =
        services.chain([everywhere(0)]).chain(policies).map(|object| object.to_string()).collect();
    apply(client, Some(NAMESPACE), &all.join("\n---\n")).await
}

fn policy(n: usize, size: &Size) -> Value {
    let app = workload(n % size.workloads());
    let breaker = n > size.workloads();
    let mut spec = if breaker {
        json!({"failureThreshold": 5, "timeoutMs": 3000, "open": {"duration": "30s"}})
    } else {
        json!({
            "tiers": {"qps": {"learned": {}, "max": 400}, "latency": {"learned": {}, "max": "8s"}},
            "limits": [
                {"name": "per-user", "key": [{"header": "x-user"}], "algorithm": "SlidingWindow", "limit": 3000, "window": "60s"},
                {"name": "tokens", "key": [{"header": "x-api-key"}], "algorithm": "TokenBucket", "limit": 100_000, "window": "1m", "cost": "TotalTokens"},
            ],
        })
    };
    if n.is_multiple_of(2) {
        spec["targetRefs"] = json!([{"group": "", "kind": "Service", "name": app}]);
    } else {
        spec["selector"] = json!({"matchLabels": {"app": app}});
    }
    let kind = if breaker { "CircuitBreakerPolicy" } else { "RateLimitPolicy" };
    object(kind, &format!("policy-{n}"), &spec)
}

/// The policy of every pod in a version that its limit tells.
pub(super) fn everywhere(version: u64) -> Value {
    let limit =
        json!({"name": EVERYWHERE, "algorithm": "SlidingWindow", "limit": MARK + version, "window": "1s"});
    object("RateLimitPolicy", EVERYWHERE, &json!({"limits": [limit]}))
}

/// The size of the limit that tells a version, less the version.
pub(super) const MARK: u64 = 1_000_000;

fn object(kind: &str, name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "tidegate.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec})
}

/// The nth pod, as its workload would create it.
pub(super) fn pod(n: usize, size: &Size) -> Value {
    let workload = workload(n % size.workloads());
    let image = "registry.example.com/vllm/vllm-openai:v0.11.0";
    let arguments: Vec<String> =
        (0..12).map(|n| format!("--argument-of-an-engine-{n}=some-value-{n}")).collect();
    let environment: Vec<Value> = (0..12)
        .map(|n| json!({"name": format!("VARIABLE_{n}"), "value": "/some/value/of/an/engine"}))
        .collect();
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": format!("{workload}-5d8f9c7b6-{n}"), "namespace": NAMESPACE,
            "labels": {"app": workload, "pod-template-hash": "5d8f9c7b6"},
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("{workload}-5d8f9c7b6"),
                "uid": "5e2b6a60-0000-4000-8000-000000000000", "controller": true, "blockOwnerDeletion": true,
            }],
        },
        "spec": {
            "nodeName": node(n % size.nodes),
            "containers": [{
                "name": "engine", "image": image, "args": arguments, "env": environment,
                "ports": [{"name": "http", "containerPort": 8000}],
                "readinessProbe": {"httpGet": {"path": "/health", "port": "http"}},
                "resources": {"requests": {"cpu": "4", "memory": "32Gi"}, "limits": {"nvidia.com/gpu": "1"}},
            }],
        },
    })
}

/// Creates these pods, which the webhook has injected already, and lets them run. Returns for each the token that the
/// kubelet would project into it.
pub(super) async fn run(client: &Client, size: &Size, pods: Vec<Pod>) -> anyhow::Result<Vec<String>> {
    let made = stream::iter(pods.into_iter().enumerate())
        .map(|(n, pod)| start(client, n, pod))
        .buffered(AT_ONCE)
        .try_collect::<Vec<_>>();
    let made = made.await?;
    slices(client, size, &made).await?;
    Ok(made.into_iter().map(|(_, token)| token).collect())
}

async fn start(client: &Client, n: usize, pod: Pod) -> anyhow::Result<(String, String)> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    let pod = pods.create(&PostParams::default(), &pod).await?;
    let conditions: Vec<Value> = ["PodScheduled", "Initialized", "ContainersReady", "Ready"]
        .map(|name| json!({"type": name, "status": "True"}))
        .into();
    let running = json!({"status": {"phase": "Running", "podIP": address(n), "conditions": conditions}});
    pods.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Merge(running)).await?;
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), NAMESPACE);
    let bound = json!({"kind": "Pod", "apiVersion": "v1", "name": pod.name_any(), "uid": pod.metadata.uid});
    let spec = json!({"audiences": ["tidegate"], "expirationSeconds": 3600, "boundObjectRef": bound});
    let token = token(&accounts, "default", &spec).await?;
    Ok((pod.name_any(), token))
}

/// A token of a `ServiceAccount`.
pub(super) async fn token(
    accounts: &Api<ServiceAccount>,
    name: &str,
    spec: &Value,
) -> anyhow::Result<String> {
    let request: TokenRequest = serde_json::from_value(json!({"metadata": {}, "spec": spec}))?;
    let answer = accounts.create_token_request(name, &PostParams::default(), &request).await?;
    Ok(answer.status.map(|status| status.token).unwrap_or_default())
}

fn address(n: usize) -> String {
    format!("10.{}.{}.{}", 64 + n / 62_500, n / 250 % 250, n % 250 + 1)
}

/// What the endpoint slice controller would write.
async fn slices(client: &Client, size: &Size, pods: &[(String, String)]) -> anyhow::Result<()> {
    let api: Api<EndpointSlice> = Api::namespaced(client.clone(), NAMESPACE);
    let create = async |n: usize| {
        let of_workload = pods.iter().enumerate().skip(n).step_by(size.workloads());
        let endpoints: Vec<Value> = of_workload
            .map(|(n, (name, _))| {
                json!({
                    "addresses": [address(n)], "conditions": {"ready": true},
                    "targetRef": {"kind": "Pod", "namespace": NAMESPACE, "name": name},
                })
            })
            .collect();
        let slice: EndpointSlice = serde_json::from_value(json!({
            "metadata": {"name": format!("{}-1", workload(n)), "labels": {"kubernetes.io/service-name": workload(n)}},
            "addressType": "IPv4", "endpoints": endpoints, "ports": [{"name": "", "port": 8000}],
        }))?;
        api.create(&PostParams::default(), &slice).await.map(drop).map_err(anyhow::Error::from)
    };
    stream::iter(0..size.workloads()).map(Ok).try_for_each_concurrent(AT_ONCE, create).await
}
