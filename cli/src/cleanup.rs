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
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tidegate_operator_core::inject::{CA_CONFIG_MAP, INJECTION_NAMESPACE_LABEL};

use crate::cluster::{Cluster, is_missing, namespaces, said};
use crate::command_line::{CleanupArguments, Output};
use crate::refused::Refused;
use crate::rotate::{Manner, Told};
use crate::{print, rotate};

/// Of both webhook configurations.
const NAME: &str = "tidegate";

/// Every step in its order, for programs.
#[derive(Debug, Serialize)]
struct Report {
    steps: Vec<Step>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Step {
    Object(Change),
    /// Of a workload or a pod, as `rotate` tells it.
    Pods(Told),
}

/// What was done to an object.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Change {
    /// `Delete` or `Unlabel`.
    action: &'static str,
    kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    name: String,
    /// Absent in a dry run.
    #[serde(skip_serializing_if = "Option::is_none")]
    done: Option<bool>,
}

impl Change {
    /// For people.
    fn line(&self) -> String {
        let place = self.namespace.as_ref().map_or(String::new(), |namespace| format!("{namespace}/"));
        format!("{:<7} {} {place}{}", self.action.to_lowercase(), self.kind.to_lowercase(), self.name)
    }
}

/// False when pods keep their sidecar that should not.
pub(crate) async fn run(arguments: &CleanupArguments) -> Result<bool, Refused> {
    let cluster = Cluster::connect(&arguments.cluster).await?;
    let (report, done) = clean(&cluster, arguments).await?;
    if arguments.output != Output::Table {
        print::line(&print::form(arguments.output, &report, String::new)?)?;
    }
    Ok(done)
}

async fn clean(cluster: &Cluster, arguments: &CleanupArguments) -> Result<(Report, bool), Refused> {
    let patience = Duration::from_secs(arguments.timeout);
    let manner = Manner { dry_run: arguments.dry_run, patience, output: arguments.output };
    let mut steps = Vec::new();
    let client = &cluster.client;
    delete(&Api::<MutatingWebhookConfiguration>::all(client.clone()), NAME, manner, &mut steps).await?;
    delete(&Api::<ValidatingWebhookConfiguration>::all(client.clone()), NAME, manner, &mut steps).await?;
    let all = namespaces(cluster, None).await.map_err(|error| Refused::of(said(&error)))?;
    let labelled = all.iter().filter(|one| one.labels().contains_key(INJECTION_NAMESPACE_LABEL));
    for namespace in labelled {
        unlabel(cluster, namespace.name_any(), manner, &mut steps).await?;
    }
    let mut done = true;
    if arguments.restart {
        let restarted = rotate::without_sidecars(cluster, manner).await?;
        done = restarted.is_done();
        steps.extend(restarted.steps.into_iter().map(Step::Pods));
    }
    let maps = cluster.list::<ConfigMap>(None).await?;
    for map in maps.iter().filter(|map| map.name_any() == CA_CONFIG_MAP) {
        let namespace = map.namespace().unwrap_or_default();
        let api = Api::<ConfigMap>::namespaced(client.clone(), &namespace);
        delete(&api, CA_CONFIG_MAP, manner, &mut steps).await?;
    }
    if !arguments.restart {
        manner.say("Pods that have a sidecar keep it until they are next created: --restart does that.")?;
    }
    Ok((Report { steps }, done))
}

/// What is gone already is fine.
async fn delete<K>(api: &Api<K>, name: &str, manner: Manner, steps: &mut Vec<Step>) -> Result<(), Refused>
where
    K: kube::Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let kind = K::kind(&()).into_owned();
    let found = match api.get_metadata(name).await {
        Ok(found) => found,
        Err(error) if is_missing(&error) => return Ok(()),
        Err(error) => return Err(Refused::of(format!("{kind} {name}: {}", said(&error)))),
    };
    let (namespace, done) = (found.namespace(), (!manner.dry_run).then_some(true));
    let change = Change { action: "Delete", kind, namespace, name: name.to_owned(), done };
    manner.say(&change.line())?;
    if !manner.dry_run {
        match api.delete(name, &DeleteParams::default()).await {
            Err(error) if !is_missing(&error) => {
                return Err(Refused::of(format!("{}: {}", change.line(), said(&error))));
            }
            _ => {}
        }
    }
    steps.push(Step::Object(change));
    Ok(())
}

async fn unlabel(
    cluster: &Cluster,
    name: String,
    manner: Manner,
    steps: &mut Vec<Step>,
) -> Result<(), Refused> {
    let done = (!manner.dry_run).then_some(true);
    let change = Change { action: "Unlabel", kind: "Namespace".to_owned(), namespace: None, name, done };
    manner.say(&change.line())?;
    if !manner.dry_run {
        let api: Api<Namespace> = Api::all(cluster.client.clone());
        let without = json!({"metadata": {"labels": {INJECTION_NAMESPACE_LABEL: Value::Null}}});
        let patched = api.patch(&change.name, &PatchParams::default(), &Patch::Merge(&without)).await;
        match patched {
            // It was deleted meanwhile.
            Err(error) if !is_missing(&error) => {
                return Err(Refused::of(format!("{}: {}", change.line(), said(&error))));
            }
            _ => {}
        }
    }
    steps.push(Step::Object(change));
    Ok(())
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
        CleanupArguments { cluster, dry_run, restart: true, timeout: 0, output: Output::Json }
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
        let (report, done) = clean(&api.cluster(), &arguments(false)).await.unwrap();
        assert!(done);
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
        let yaml = print::form(Output::Yaml, &report, String::new).unwrap();
        let told: Value = serde_saphyr::from_str(&yaml).unwrap();
        let steps = told["steps"].as_array().unwrap().iter();
        let steps: Vec<_> = steps.map(|step| [&step["action"], &step["kind"], &step["name"]]).collect();
        assert_eq!(
            steps,
            [
                ["Delete", "MutatingWebhookConfiguration", "tidegate"],
                ["Unlabel", "Namespace", "inference"],
                ["Restart", "DaemonSet", "llama"],
                ["Delete", "ConfigMap", "tidegate-ca"],
            ]
        );
        assert!(told["steps"].as_array().unwrap().iter().all(|step| step["done"] == true), "{told}");
    }

    #[tokio::test]
    async fn a_dry_run_changes_nothing() {
        let api = installed();
        let (report, done) = clean(&api.cluster(), &arguments(true)).await.unwrap();
        assert!(done);
        assert_eq!(api.writes(), []);
        let told = serde_json::to_value(&report).unwrap();
        assert!(told["steps"].as_array().unwrap().iter().all(|step| step["done"].is_null()), "{told}");
    }
}
