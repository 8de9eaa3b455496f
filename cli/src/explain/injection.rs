//! What the webhook would make of a pod that has no sidecar.

use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::ResourceExt as _;
use tidegate_operator_core::index::Index;
use tidegate_operator_core::inject::{
    Admission, INJECTION_NAMESPACE_LABEL, NamespaceFacts, Outcome, SkipReason, inject,
};

use crate::inject::settings;

/// Whether a pod like this one would get a sidecar now.
pub(crate) fn would_be_injected(pod: &Pod, index: &Index, namespace: &Namespace) -> bool {
    matches!(admitted(pod, index, namespace), Outcome::Injected { .. })
}

/// One sentence, by the webhook's own code.
pub(super) fn verdict(pod: &Pod, index: &Index, namespace: Option<&Namespace>) -> String {
    let Some(namespace) = namespace else {
        return "why is not known: its namespace cannot be read".to_owned();
    };
    match admitted(pod, index, namespace) {
        Outcome::Injected { .. } => {
            "it was created before it could have one, or while the operator was away: \
                                     kubectl tidegate rotate"
                .to_owned()
        }
        Outcome::Skipped { skip, .. } if skip.reason == SkipReason::NotRequested => {
            let name = namespace.name_any();
            format!("{}: kubectl label namespace {name} {INJECTION_NAMESPACE_LABEL}=enabled", skip.detail)
        }
        Outcome::Skipped { skip, .. } => skip.to_string(),
    }
}

fn admitted(pod: &Pod, index: &Index, namespace: &Namespace) -> Outcome {
    let name = namespace.name_any();
    let policy = index.document_for_new_pod(&name, pod);
    // Whatever can be a pod can be written as one.
    let value = serde_json::to_value(pod).unwrap_or_default();
    let labels = namespace.labels().clone();
    let admission = Admission {
        pod: &value,
        namespace: &NamespaceFacts {
            labels,
            annotations: namespace.annotations().clone(),
            ..NamespaceFacts::default()
        },
        ca_bundle: None,
        policy: policy.as_deref(),
        selected: policy.is_some(),
        services: &index.services_of_new_pod(&name, pod),
        sidecar_port_names: true,
        drain_token: "",
    };
    inject(&admission, &settings("tidegate-system"))
}
