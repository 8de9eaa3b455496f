//! Does the API server reach the webhooks? It is asked to create what they would change or refuse, as a dry run: that
//! is the very way that a pod takes, certificates and network included.

use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{ListParams, PostParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;
use tidegate_crds::RateLimitPolicy;
use tidegate_operator_core::inject::{INJECTED_ANNOTATION, INJECTION_NAMESPACE_LABEL, SKIPPED_ANNOTATION};

use super::Finding;
use crate::cluster::{Cluster, is_forbidden, said};
use crate::sidecars::container;

const PART: &str = "webhooks";
const HINT: &str = "the operator's log, its Service's endpoints, and NetworkPolicies between the API server and its port 8443";

pub(super) async fn check(cluster: &Cluster) -> Vec<Finding> {
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    let selector = ListParams::default().labels(&format!("{INJECTION_NAMESPACE_LABEL}=enabled"));
    let mut injected = namespaces.list(&selector).await.map(|list| list.items).unwrap_or_default();
    // Nothing can be tried in one that is being deleted.
    injected.retain(|namespace| namespace.metadata.deletion_timestamp.is_none());
    let mut findings = Vec::new();
    if injected.is_empty() {
        findings.push(Finding::warn(
            PART,
            "no namespace is labelled for injection",
            format!("kubectl label namespace NAME {INJECTION_NAMESPACE_LABEL}=enabled"),
        ));
    }
    let namespace = injected.first().map_or_else(|| cluster.namespace.clone(), kube::ResourceExt::name_any);
    findings.push(injection(cluster, &namespace).await);
    findings.push(validation(cluster, &namespace).await);
    findings
}

fn dry_run() -> PostParams {
    PostParams { dry_run: true, ..PostParams::default() }
}

async fn injection(cluster: &Cluster, namespace: &str) -> Finding {
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), namespace);
    let Ok(pod) = serde_json::from_value(trial_pod()) else {
        return Finding::unread(PART, "the trial pod", "it is none");
    };
    match pods.create(&dry_run(), &pod).await {
        Ok(pod) if container(&pod).is_some() => {
            let version = pod.annotations().get(INJECTED_ANNOTATION).cloned().unwrap_or_default();
            Finding::ok(PART, format!("a pod of {namespace} gets a sidecar of version {version}"))
        }
        Ok(pod) => match pod.annotations().get(SKIPPED_ANNOTATION) {
            Some(reason) => Finding::warn(
                PART,
                format!("a pod of {namespace} gets no sidecar: {reason}"),
                "docs/troubleshooting.md lists the reasons",
            ),
            None => {
                Finding::fail(PART, format!("a pod of {namespace} gets no sidecar: nobody answered"), HINT)
            }
        },
        Err(error) if said(&error).contains("failed calling webhook") => {
            Finding::fail(PART, format!("a pod of {namespace} is refused: {}", said(&error)), HINT)
        }
        Err(error) => Finding::unread(PART, "what happens to a new pod (create, dry run)", &said(&error)),
    }
}

/// Whatever the namespace enforces, this pod fits; and it asks for a sidecar although no policy selects it.
fn trial_pod() -> serde_json::Value {
    let resources = json!({"cpu": "1m", "memory": "1Mi"});
    json!({
        "metadata": {"name": "tidegate-check", "labels": {"tidegate.dev/inject": "enabled"}},
        "spec": {
            "automountServiceAccountToken": false,
            "securityContext": {"runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": "engine",
                "image": "tidegate.invalid/check:1",
                "ports": [{"name": "http", "containerPort": 8000}],
                "resources": {"requests": resources, "limits": resources},
                "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
            }],
        },
    })
}

/// A policy that the schema lets pass and the operator refuses.
async fn validation(cluster: &Cluster, namespace: &str) -> Finding {
    let policies: Api<RateLimitPolicy> = Api::namespaced(cluster.client.clone(), namespace);
    let policy = serde_json::from_value(trial_policy());
    let Ok(policy) = policy else { return Finding::unread(PART, "the trial policy", "it is none") };
    match policies.create(&dry_run(), &policy).await {
        Ok(_) => Finding::warn(PART, "an invalid policy is not refused: nobody answered", HINT),
        Err(error) if said(&error).contains("denied the request") => {
            Finding::ok(PART, "an invalid policy is refused with what to write instead")
        }
        Err(error) if is_forbidden(&error) => {
            Finding::unread(PART, "what happens to an invalid policy (create, dry run)", &said(&error))
        }
        Err(error) => {
            Finding::warn(PART, format!("an invalid policy is answered by: {}", said(&error)), HINT)
        }
    }
}

/// No window is that long.
pub(super) fn trial_policy() -> serde_json::Value {
    json!({
        "apiVersion": "tidegate.dev/v1alpha1",
        "kind": "RateLimitPolicy",
        "metadata": {"name": "tidegate-check"},
        "spec": {
            "selector": {"matchLabels": {"tidegate.dev/check": "none"}},
            "tiers": {"latency": {"max": "99999h"}},
        },
    })
}
