//! Whole pods before and after injection: `tests/golden/<name>.in.yaml` becomes `<name>.out.yaml`, to the byte.
//!
//! An input is the pod as its controller writes it, then what is around it: its Namespace, Services, pools, and settings
//! of the installation where they are not the usual ones. `make golden` writes the outputs anew, to be read before they
//! are committed; `make apiserver` shows each to a real API server.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::path::PathBuf;

use k8s_openapi::api::core::v1::LimitRange;
use serde_json::Value;
use tidegate_operator_core::inject::{
    Admission, ContainerBounds, Interception, NamespaceFacts, Outcome, SNAPSHOT_ANNOTATION, SidecarResources,
    SidecarSettings, decode_snapshot, inject,
};
use tidegate_operator_core::key::FrontKind;
use tidegate_operator_core::service::ServiceFacts;
use tidegate_policy::PolicyDocument;

/// A pod and what is around it.
struct Case {
    name: String,
    pod: Value,
    namespace: NamespaceFacts,
    services: Vec<ServiceFacts>,
    settings: SidecarSettings,
    sidecar_port_names: bool,
}

impl Case {
    fn read(name: &str) -> Self {
        let text = std::fs::read_to_string(path(&format!("{name}.in.yaml"))).unwrap();
        let mut objects =
            text.split("\n---\n").map(|object| serde_saphyr::from_str::<Value>(object).unwrap());
        let labels = BTreeMap::from([("tidegate.dev/injection".to_owned(), "enabled".to_owned())]);
        let mut case = Self {
            name: name.to_owned(),
            pod: objects.next().unwrap(),
            namespace: NamespaceFacts { labels, ..NamespaceFacts::default() },
            services: Vec::new(),
            settings: settings(),
            sidecar_port_names: true,
        };
        assert_eq!(case.pod["kind"], "Pod", "{name}: the pod comes first");
        objects.for_each(|object| case.surround(&object));
        case
    }

    fn surround(&mut self, object: &Value) {
        match object["kind"].as_str().unwrap() {
            "Namespace" => {
                self.namespace.labels.extend(texts(&object["metadata"]["labels"]));
                self.namespace.annotations = texts(&object["metadata"]["annotations"]);
            }
            "Service" => {
                self.services.push(ServiceFacts::of(&serde_json::from_value(object.clone()).unwrap()));
            }
            "InferencePool" => {
                let name = object["metadata"]["name"].as_str().unwrap().to_owned();
                self.services.push(ServiceFacts::of_pool(FrontKind::InferencePool, name, &object["spec"]));
            }
            "LimitRange" => {
                let range: LimitRange = serde_json::from_value(object.clone()).unwrap();
                self.namespace.bounds = ContainerBounds::of([&range]);
            }
            // The API server alone asks them.
            "ResourceQuota" => {}
            "Settings" => {
                let secrets = object["pullSecrets"].as_array().into_iter().flatten();
                self.settings.pull_secrets = secrets.map(|name| name.as_str().unwrap().to_owned()).collect();
                self.sidecar_port_names = object["kubernetesMinor"].as_u64().is_none_or(|minor| minor >= 32);
            }
            other => panic!("{}: what is a {other}?", self.name),
        }
    }

    fn outcome(&self, pod: &Value) -> Outcome {
        let policy = PolicyDocument { revision: "r1".to_owned(), ..PolicyDocument::default() };
        let labels = texts(&self.pod["metadata"]["labels"]);
        let services: Vec<_> =
            self.services.iter().filter(|service| service.selects(&labels)).cloned().collect();
        let admission = Admission {
            pod,
            namespace: &self.namespace,
            ca_bundle: Some("-----BEGIN CERTIFICATE-----\n"),
            policy: Some(&policy),
            selected: true,
            services: &services,
            sidecar_port_names: self.sidecar_port_names,
            drain_token: "00112233445566778899aabbccddeeff",
        };
        inject(&admission, &self.settings)
    }

    /// The pod as the webhook makes it, under what the webhook says about it.
    fn written(&self) -> String {
        let (said, patch) = match self.outcome(&self.pod) {
            Outcome::Injected { patch, .. } => ("injected".to_owned(), patch),
            Outcome::Skipped { skip, patch } => (format!("skipped: {skip}"), patch),
        };
        let mut pod = self.pod.clone();
        json_patch::patch(&mut pod, &patch).unwrap();
        show_snapshot(&mut pod);
        format!("# {said}\n{}", serde_saphyr::to_string(&pod).unwrap())
    }
}

fn settings() -> SidecarSettings {
    SidecarSettings {
        version: "0.1.0".to_owned(),
        image: "tidegate/tidegate-sidecar:0.1.0".to_owned(),
        image_pull_policy: "IfNotPresent".to_owned(),
        pull_secrets: Vec::new(),
        operator_url: "https://tidegate-operator.tidegate-system.svc:8444".to_owned(),
        agent_url: Some("https://tidegate-agent.tidegate-system.svc:8445".to_owned()),
        log_level: "info".to_owned(),
        proxy_port: 15120,
        admin_port: 15121,
        interception: Interception::Auto,
        tracing: None,
        resources: SidecarResources::default(),
    }
}

fn texts(map: &Value) -> BTreeMap<String, String> {
    serde_json::from_value::<Option<_>>(map.clone()).unwrap().unwrap_or_default()
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn cases() -> Vec<Case> {
    let files = std::fs::read_dir(path("")).unwrap().map(|entry| entry.unwrap().file_name());
    let names = files.filter_map(|name| Some(name.to_str()?.strip_suffix(".in.yaml")?.to_owned()));
    let mut cases: Vec<_> = names.map(|name| Case::read(&name)).collect();
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    assert!(cases.len() > 40, "{} cases", cases.len());
    cases
}

/// The compressed form depends on the library's version, what it holds does not.
fn show_snapshot(pod: &mut Value) {
    let Some(snapshot) = pod["metadata"]["annotations"].get_mut(SNAPSHOT_ANNOTATION) else { return };
    let json = decode_snapshot(snapshot.as_str().unwrap()).unwrap();
    assert_eq!(PolicyDocument::from_json(&json).unwrap().revision, "r1");
    *snapshot = Value::from("(snapshot of r1)");
}

#[test]
fn each_kind_of_pod_becomes_what_its_golden_file_says() {
    let mut different = Vec::new();
    for case in cases() {
        let golden = path(&format!("{}.out.yaml", case.name));
        let written = case.written();
        if std::env::var_os("TIDEGATE_WRITE_GOLDEN").is_some() {
            std::fs::write(&golden, &written).unwrap();
        }
        let expected = std::fs::read_to_string(&golden).unwrap_or_default();
        if written != expected {
            let line = written.lines().zip(expected.lines().chain([""])).find(|(is, was)| is != was);
            different.push(format!("{}: {line:?}", case.name));
        }
    }
    assert!(different.is_empty(), "read what `make golden` changes: {different:#?}");
}

#[test]
fn every_golden_file_has_its_input() {
    let inputs: Vec<_> = cases().into_iter().map(|case| format!("{}.out.yaml", case.name)).collect();
    for entry in std::fs::read_dir(path("")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(name.ends_with(".in.yaml") || inputs.contains(&name), "{name} is nobody's output");
    }
}

#[test]
fn a_second_injection_changes_nothing() {
    for case in cases() {
        let Outcome::Injected { patch, .. } = case.outcome(&case.pod) else { continue };
        let mut pod = case.pod.clone();
        json_patch::patch(&mut pod, &patch).unwrap();
        let outcome = case.outcome(&pod);
        let Outcome::Skipped { skip, patch } = outcome else { panic!("{}: {outcome:?}", case.name) };
        assert_eq!((skip.reason.as_str(), patch.0.len()), ("AlreadyInjected", 0), "{}", case.name);
    }
}
