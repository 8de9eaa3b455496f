//! Are the resources served, and are they those that this program knows?

use std::collections::BTreeSet;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Api, ResourceExt as _};
use serde_json::Value;
use tidegate_crds::{VERSION, definitions};

use super::Finding;
use crate::cluster::{Cluster, is_missing, said};

const PART: &str = "crds";

pub(super) async fn check(cluster: &Cluster) -> Vec<Finding> {
    let api: Api<CustomResourceDefinition> = Api::all(cluster.client.clone());
    let mut findings = Vec::new();
    for known in definitions() {
        let name = known.name_any();
        findings.push(match api.get(&name).await {
            Ok(served) => judge(&name, &known, &served),
            Err(error) if is_missing(&error) => Finding::fail(
                PART,
                format!("{name} is not installed"),
                "install the chart with crds.install=true, or kubectl apply -f manifests/crds",
            ),
            Err(error) => Finding::unread(PART, &name, &said(&error)),
        });
    }
    findings
}

fn judge(name: &str, known: &CustomResourceDefinition, served: &CustomResourceDefinition) -> Finding {
    let conditions =
        served.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    if let Some(condition) = conditions.iter().find(|one| one.type_ == "Established" && one.status != "True")
    {
        let why = condition.message.as_deref().unwrap_or_default();
        return Finding::fail(PART, format!("{name} is not established: {why}"), "kubectl describe crd it");
    }
    if !served.spec.versions.iter().any(|version| version.name == VERSION && version.served) {
        let upgrade = "helm upgrade the chart with crds.install=true";
        return Finding::fail(PART, format!("{name} does not serve {VERSION}"), upgrade);
    }
    let stored = served.status.as_ref().and_then(|status| status.stored_versions.clone()).unwrap_or_default();
    if let Some(old) =
        stored.iter().find(|stored| !served.spec.versions.iter().any(|one| one.name == **stored))
    {
        let migrate = "docs/upgrade.md tells how to migrate stored objects";
        return Finding::fail(
            PART,
            format!("{name} has objects stored as {old}, which it does not serve"),
            migrate,
        );
    }
    let (ours, theirs) = (fields(known), fields(served));
    let here: Vec<_> = ours.difference(&theirs).take(3).map(String::as_str).collect();
    if !here.is_empty() {
        let message = format!("{name} is older than this kubectl-tidegate: it lacks {}", here.join(", "));
        return Finding::warn(PART, message, "helm upgrade the chart with crds.install=true");
    }
    let there: Vec<_> = theirs.difference(&ours).take(3).map(String::as_str).collect();
    if !there.is_empty() {
        let message = format!("{name} is newer than this kubectl-tidegate: it has {}", there.join(", "));
        return Finding::warn(PART, message, "upgrade kubectl-tidegate");
    }
    Finding::ok(PART, format!("{name} serves {VERSION}"))
}

/// Paths of all fields of the spec.
fn fields(definition: &CustomResourceDefinition) -> BTreeSet<String> {
    let mut fields = BTreeSet::new();
    for version in definition.spec.versions.iter().filter(|version| version.name == VERSION) {
        // What was read as JSON can be written as such.
        let schema = serde_json::to_value(&version.schema).unwrap_or_default();
        collect(&schema["openAPIV3Schema"]["properties"]["spec"], "spec", &mut fields);
    }
    fields
}

fn collect(schema: &Value, path: &str, fields: &mut BTreeSet<String>) {
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        collect(property, &path, fields);
        fields.insert(path);
    }
    if schema["items"].is_object() {
        collect(&schema["items"], &format!("{path}[]"), fields);
    }
}
