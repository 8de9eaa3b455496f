//! kubeconform in strict mode, with the schemas of the very version of Kubernetes that the tests run.
//!
//! Its own schemas lie at an address that not every machine reaches. Those here are made from what the Go modules of
//! Kubernetes and of the Prometheus Operator (both Apache-2.0) bring, fetched by Go and checked by its checksums.

use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;
use tidegate_e2e::cluster::{binaries, process, progress::Progress};
use tidegate_e2e::harness::release;

use super::{EVERYTHING, set, workspace};

const PROMETHEUS_OPERATOR: (&str, &str) = ("github.com/prometheus-operator/prometheus-operator", "v0.85.0");
const CERT_MANAGER: (&str, &str) = ("github.com/cert-manager/cert-manager", "v1.18.2");

/// Forbids what a schema does not name, and lets in what Kubernetes reads in two forms.
fn strict(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            if members.get("format") == Some(&json!("int-or-string"))
                || members.contains_key("x-kubernetes-int-or-string")
            {
                members.insert("type".to_owned(), json!(["string", "integer"]));
                members.remove("format");
            }
            let open = members.contains_key("additionalProperties")
                || members.contains_key("x-kubernetes-preserve-unknown-fields");
            if members.get("properties").is_some_and(Value::is_object) && !open {
                members.insert("additionalProperties".to_owned(), json!(false));
            }
            members.values_mut().for_each(strict);
        }
        Value::Array(items) => items.iter_mut().for_each(strict),
        _ => {}
    }
}

/// One file for each kind: `deployment-apps-v1.json`.
fn write(folder: &Path, kind: &str, group: &str, version: &str, schema: &Value) {
    let group = group.split('.').next().unwrap_or_default();
    let parts = [kind, group, version].map(str::to_lowercase);
    let name = parts.iter().filter(|part| !part.is_empty()).cloned().collect::<Vec<_>>().join("-");
    std::fs::write(folder.join(format!("{name}.json")), schema.to_string()).unwrap();
}

fn text<'a>(value: &'a Value, member: &str) -> &'a str {
    value[member].as_str().unwrap_or_default()
}

async fn of_kubernetes(folder: &Path) {
    let module =
        binaries::module_files("k8s.io/kubernetes", binaries::KUBERNETES, &Progress::start()).await.unwrap();
    let swagger = std::fs::read_to_string(module.join("api/openapi-spec/swagger.json")).unwrap();
    let mut swagger: Value = serde_json::from_str(&swagger).unwrap();
    let mut definitions = swagger["definitions"].take();
    strict(&mut definitions);
    definitions["io.k8s.apimachinery.pkg.api.resource.Quantity"]["type"] = json!(["string", "number"]);
    // Any JSON, which a schema of a schema is full of.
    for open in [
        "JSONSchemaProps",
        "JSON",
        "JSONSchemaPropsOrArray",
        "JSONSchemaPropsOrBool",
        "JSONSchemaPropsOrStringArray",
    ] {
        let name = format!("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.{open}");
        definitions[name.as_str()] = json!({});
    }
    let kinds: Vec<_> = definitions
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(name, definition)| {
            let kinds = definition["x-kubernetes-group-version-kind"].as_array().cloned().unwrap_or_default();
            kinds.into_iter().map(move |kind| (name.clone(), kind))
        })
        .collect();
    let all = json!({"definitions": definitions});
    std::fs::write(folder.join("definitions.json"), all.to_string()).unwrap();
    for (name, kind) in kinds {
        let schema = json!({"$ref": format!("definitions.json#/definitions/{name}")});
        write(folder, text(&kind, "kind"), text(&kind, "group"), text(&kind, "version"), &schema);
    }
}

/// Of the custom resources whose definitions lie in these files of a module.
async fn of_module((path, version): (&str, &str), files: &[&str], folder: &Path) {
    let module = binaries::module_files(path, version, &Progress::start()).await.unwrap();
    for file in files {
        let yaml = std::fs::read_to_string(module.join(file)).unwrap();
        let definition: Value = serde_saphyr::from_str(&yaml).unwrap();
        let (spec, version) = (&definition["spec"], &definition["spec"]["versions"][0]);
        let mut schema = version["schema"]["openAPIV3Schema"].clone();
        strict(&mut schema);
        schema["properties"]["metadata"] = json!({"type": "object"});
        write(folder, text(&spec["names"], "kind"), text(spec, "group"), text(version, "name"), &schema);
    }
}

async fn schemas() -> TempDir {
    let folder = TempDir::new().unwrap();
    of_kubernetes(folder.path()).await;
    let monitoring = ["podmonitors", "prometheusrules"]
        .map(|one| format!("example/prometheus-operator-crd/monitoring.coreos.com_{one}.yaml"));
    of_module(PROMETHEUS_OPERATOR, &monitoring.each_ref().map(String::as_str), folder.path()).await;
    let certificates = ["deploy/crds/crd-certificates.yaml", "deploy/crds/crd-issuers.yaml"];
    of_module(CERT_MANAGER, &certificates, folder.path()).await;
    folder
}

/// What kubeconform says of a YAML; an error when it finds something wrong.
async fn judge(schemas: &Path, yaml: &str) -> anyhow::Result<String> {
    let file = schemas.join("objects.yaml");
    std::fs::write(&file, yaml)?;
    let program = binaries::kubeconform(&Progress::start()).await?;
    let mut command = process::command(program);
    command.args(["-strict", "-summary", "-schema-location"]);
    command.arg(format!("{}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json", schemas.display())).arg(file);
    process::output(&mut command).await
}

#[tokio::test]
async fn every_object_is_valid_by_kubernetes_own_schemas() {
    let schemas = schemas().await;
    let plain = std::fs::read_to_string(workspace().join("manifests/tidegate.yaml")).unwrap();
    let everything = release::template(&set(EVERYTHING)).await.unwrap();
    for yaml in [&plain, &everything] {
        let said = judge(schemas.path(), yaml).await.unwrap();
        assert!(said.contains("Invalid: 0, Errors: 0, Skipped: 0"), "{said}");
    }
    // It finds what is wrong, of Kubernetes' kinds and of others.
    let wrong = [
        ("replicas: 3", "replicos: 3"),
        ("maxSkew: 1", "maxSkew: one"),
        ("podMetricsEndpoints:", "podMetricEndpoints:"),
        ("failurePolicy: Fail", "failurePolicies: Fail"),
        ("renewBefore: 2920h", "renewalBefore: 2920h"),
    ];
    for (right, wrong) in wrong {
        let yaml = everything.replacen(right, wrong, 1);
        assert_ne!(yaml, everything, "{right} is nowhere");
        assert!(judge(schemas.path(), &yaml).await.is_err(), "{wrong} passes");
    }
}
