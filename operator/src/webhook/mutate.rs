//! Pods that are being created.

use k8s_openapi::api::core::v1::Pod;
use kube::core::admission::{AdmissionResponse, Operation};
use rustls::crypto::SecureRandom;
use serde::Deserialize as _;
use serde_json::Value;
use tidegate_operator_core::inject::{
    Admission, INJECT_LABEL, INJECTION_NAMESPACE_LABEL, NamespaceFacts, Outcome, SkipReason, inject,
};
use tidegate_policy::PolicyDocument;

use super::Webhook;
use super::review::Asked;
use crate::metrics::Injection;

impl Webhook {
    /// Injects, or says why not. Nothing is changed outside of the answer, so a dry run needs no care.
    pub(super) async fn mutate(&self, asked: &Asked) -> AdmissionResponse {
        let response = AdmissionResponse::from(&asked.request);
        if asked.request.operation != Operation::Create || asked.request.kind.kind != "Pod" {
            return response;
        }
        let namespace = asked.request.namespace.as_deref().unwrap_or_default();
        let facts = match self.world.namespace(namespace) {
            Some(facts) => facts,
            None => self.fresh.namespace(namespace).await,
        };
        // What is no pod has neither policy nor Services, and is skipped.
        let pod: Option<Pod> = Pod::deserialize(&asked.object).ok();
        let policy = match &pod {
            Some(pod) => self.policy(namespace, &facts, pod).await,
            None => None,
        };
        let services = pod.as_ref().map(|pod| self.world.services_of_new_pod(namespace, pod));
        let Some(drain_token) = drain_token() else {
            tracing::error!("no random number for a drain token: the pod stays as it is");
            return response;
        };
        let trust = self.trust.borrow().clone();
        let sidecar_port_names = self.api_server.finds_sidecar_port_names().await;
        let outcome = inject(
            &Admission {
                pod: &asked.object,
                namespace: &facts,
                ca_bundle: trust.as_ref().map(|trust| &*trust.bundle),
                policy: policy.as_ref(),
                selected: policy.is_some(),
                services: &services.unwrap_or_default(),
                sidecar_port_names,
                drain_token: &drain_token,
            },
            &self.settings,
        );
        self.note(asked, namespace, &outcome);
        respond(response, outcome)
    }

    /// The document of the pod. A pod of a labelled namespace that no known policy selects is looked at twice.
    async fn policy(&self, namespace: &str, facts: &NamespaceFacts, pod: &Pod) -> Option<PolicyDocument> {
        if let Some(document) = self.world.document_for_new_pod(namespace, pod) {
            return Some(document);
        }
        let enabled = |labels: &std::collections::BTreeMap<_, _>, name| {
            labels.get(name).is_some_and(|v| v == "enabled")
        };
        let labels = pod.metadata.labels.clone().unwrap_or_default();
        let own = labels.get(INJECT_LABEL);
        let asks = enabled(&labels, INJECT_LABEL)
            || (own.is_none() && enabled(&facts.labels, INJECTION_NAMESPACE_LABEL));
        if !asks {
            return None;
        }
        self.fresh.look(namespace).await;
        self.world.document_for_new_pod(namespace, pod)
    }

    fn note(&self, asked: &Asked, namespace: &str, outcome: &Outcome) {
        let pod = pod_name(asked);
        let dry_run = asked.request.dry_run;
        let (labels, detail) = match outcome {
            Outcome::Injected { warnings, .. } => {
                (Injection { outcome: "injected", reason: "" }, warnings.join("; "))
            }
            Outcome::Skipped { skip, .. } => {
                (Injection { outcome: "skipped", reason: skip.reason.as_str() }, skip.detail.clone())
            }
        };
        tracing::info!(
            namespace,
            pod,
            dry_run,
            outcome = labels.outcome,
            reason = labels.reason,
            detail,
            "pod reviewed"
        );
        if !dry_run {
            self.metrics.injections.get_or_create(&labels).inc();
        }
    }
}

fn respond(response: AdmissionResponse, outcome: Outcome) -> AdmissionResponse {
    let (patch, warnings) = match outcome {
        Outcome::Injected { patch, warnings } => (patch, warnings),
        Outcome::Skipped { skip, patch } => {
            // Somebody who asked for a sidecar in vain is told; who opted out knows.
            let told = !patch.0.is_empty() && skip.reason != SkipReason::OptedOut;
            (patch, if told { vec![format!("no sidecar: {skip}")] } else { Vec::new() })
        }
    };
    let unpatched = response.clone();
    let mut response = if patch.0.is_empty() {
        response
    } else {
        response.with_patch(patch).unwrap_or_else(|error| {
            tracing::error!(%error, "a patch could not be written: the pod stays as it is");
            unpatched
        })
    };
    if !warnings.is_empty() {
        response.warnings =
            Some(warnings.into_iter().map(|warning| format!("tidegate: {warning}")).collect());
    }
    response
}

fn pod_name(asked: &Asked) -> &str {
    let metadata = |field: &str| asked.object.pointer(&format!("/metadata/{field}")).and_then(Value::as_str);
    metadata("name").or_else(|| metadata("generateName")).unwrap_or_default()
}

/// 128 random bits.
fn drain_token() -> Option<String> {
    let mut bytes = [0_u8; 16];
    let random: &dyn SecureRandom = rustls::crypto::ring::default_provider().secure_random;
    random.fill(&mut bytes).ok()?;
    Some(format!("{:032x}", u128::from_be_bytes(bytes)))
}
