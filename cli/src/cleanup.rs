//! `cleanup`: takes injection out of the cluster, so that pods start without a sidecar.
//!
//! In this order: no webhook, so that whatever starts from here on is as its owner wrote it; no label that asks for
//! injection; then, when that is wanted, new pods for those with a sidecar; last the CA bundles that sidecars read.
//! Policies and their definitions stay.

use std::fmt::Debug;
use std::time::Duration;

use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tidegate_operator_core::inject::{CA_CONFIG_MAP, INJECTION_NAMESPACE_LABEL};

use crate::cluster::{Cluster, is_missing, namespaces, said};
use crate::command_line::CleanupArguments;
use crate::refused::Refused;
use crate::{print, rotate};

/// Of both webhook configurations.
const NAME: &str = "tidegate";

/// False when pods keep their sidecar that should not.
pub(crate) async fn run(arguments: &CleanupArguments) -> Result<bool, Refused> {
    let cluster = Cluster::connect(&arguments.cluster).await?;
    clean(&cluster, arguments).await
}

async fn clean(cluster: &Cluster, arguments: &CleanupArguments) -> Result<bool, Refused> {
    let dry_run = arguments.dry_run;
    let client = &cluster.client;
    delete(&Api::<MutatingWebhookConfiguration>::all(client.clone()), NAME, dry_run).await?;
    delete(&Api::<ValidatingWebhookConfiguration>::all(client.clone()), NAME, dry_run).await?;
    let all = namespaces(cluster, None).await.map_err(|error| Refused::of(said(&error)))?;
    let labelled = all.iter().filter(|one| one.labels().contains_key(INJECTION_NAMESPACE_LABEL));
    for namespace in labelled {
        unlabel(cluster, &namespace.name_any(), dry_run).await?;
    }
    let done = if arguments.restart {
        rotate::without_sidecars(cluster, dry_run, Duration::from_secs(arguments.timeout)).await?
    } else {
        true
    };
    let maps = cluster.list::<ConfigMap>(None).await?;
    for map in maps.iter().filter(|map| map.name_any() == CA_CONFIG_MAP) {
        let namespace = map.namespace().unwrap_or_default();
        delete(&Api::<ConfigMap>::namespaced(client.clone(), &namespace), CA_CONFIG_MAP, dry_run).await?;
    }
    if !arguments.restart {
        print::line("Pods that have a sidecar keep it until they are next created: --restart does that.")?;
    }
    Ok(done)
}

/// What is gone already is fine.
async fn delete<K>(api: &Api<K>, name: &str, dry_run: bool) -> Result<(), Refused>
where
    K: kube::Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let kind = K::kind(&());
    let found = match api.get_metadata(name).await {
        Ok(found) => found,
        Err(error) if is_missing(&error) => return Ok(()),
        Err(error) => return Err(Refused::of(format!("{kind} {name}: {}", said(&error)))),
    };
    let place = found.namespace().map_or(String::new(), |namespace| format!("{namespace}/"));
    print::line(&format!("delete  {} {place}{name}", kind.to_lowercase()))?;
    if dry_run {
        return Ok(());
    }
    match api.delete(name, &DeleteParams::default()).await {
        Err(error) if !is_missing(&error) => {
            Err(Refused::of(format!("{kind} {place}{name}: {}", said(&error))))
        }
        _ => Ok(()),
    }
}

async fn unlabel(cluster: &Cluster, name: &str, dry_run: bool) -> Result<(), Refused> {
    print::line(&format!("unlabel namespace {name}"))?;
    if dry_run {
        return Ok(());
    }
    let api: Api<Namespace> = Api::all(cluster.client.clone());
    let without = json!({"metadata": {"labels": {INJECTION_NAMESPACE_LABEL: Value::Null}}});
    let patched = api.patch(name, &PatchParams::default(), &Patch::Merge(&without)).await;
    patched.map(drop).map_err(|error| Refused::of(format!("namespace {name}: {}", said(&error))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command_line::ClusterArguments;
    use crate::fake_api::FakeApi;

    fn arguments(dry_run: bool) -> CleanupArguments {
        let cluster = ClusterArguments {
            kubeconfig: None,
            context: None,
            namespace: None,
            install_namespace: "tidegate-system".to_owned(),
        };
        CleanupArguments { cluster, dry_run, restart: true, timeout: 0 }
    }

    fn installed() -> FakeApi {
        let api = FakeApi::default();
        let configurations = "/apis/admissionregistration.k8s.io/v1";
        api.put(&format!("{configurations}/mutatingwebhookconfigurations"), "metadata: {name: tidegate}");
        api.put(
            "/api/v1/namespaces",
            "metadata: {name: inference, labels: {tidegate.dev/injection: enabled}}",
        );
        api.put("/api/v1/namespaces", "metadata: {name: other}");
        for name in ["tidegate-ca", "kube-root-ca.crt"] {
            let path = "/api/v1/namespaces/inference/configmaps";
            api.put(path, &format!("metadata: {{name: {name}}}"));
        }
        api.put(
            "/apis/apps/v1/namespaces/inference/daemonsets",
            "{metadata: {name: llama}, spec: {selector: {}, template: {}}}",
        );
        api.put(
            "/api/v1/namespaces/inference/pods",
            "{metadata: {name: llama-0, ownerReferences: [{apiVersion: apps/v1, kind: DaemonSet, name: llama, uid: u, controller: true}]}, spec: {initContainers: [{name: tidegate-sidecar}], containers: []}}",
        );
        api
    }

    #[tokio::test]
    async fn webhooks_go_first_then_labels_then_sidecars_then_what_sidecars_read() {
        let api = installed();
        assert!(clean(&api.cluster(), &arguments(false)).await.unwrap());
        let writes = api.writes();
        let calls: Vec<_> = writes.iter().map(|(call, _)| call.trim_end_matches('?')).collect();
        assert_eq!(
            calls,
            [
                "DELETE /apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/tidegate",
                "PATCH /api/v1/namespaces/inference",
                "PATCH /apis/apps/v1/namespaces/inference/daemonsets/llama",
                "DELETE /api/v1/namespaces/inference/configmaps/tidegate-ca",
            ]
        );
        assert_eq!(writes[1].1, json!({"metadata": {"labels": {"tidegate.dev/injection": null}}}));
    }

    #[tokio::test]
    async fn a_dry_run_changes_nothing() {
        let api = installed();
        assert!(clean(&api.cluster(), &arguments(true)).await.unwrap());
        assert_eq!(api.writes(), []);
    }
}
