use std::fs;
use std::io::Write as _;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;
use tempfile::TempDir;
use tidegate_policy::PolicyDocument;

use crate::authority::Authority;
use crate::engine::Engine;
use crate::operator::Operator;
use crate::sidecar::{Sidecar, eventually};

/// What a pod has on its disk, with an operator that is not there.
struct Pod {
    folder: TempDir,
}

impl Pod {
    fn new() -> Self {
        let pod = Self { folder: tempfile::tempdir().unwrap() };
        fs::create_dir(pod.path("store")).unwrap();
        pod
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn snapshot(&self, json: &str) {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(json.as_bytes()).unwrap();
        fs::write(self.path("snapshot"), STANDARD.encode(encoder.finish().unwrap())).unwrap();
    }

    fn store(&self, json: &str) {
        fs::write(self.path("store/policy.json"), json).unwrap();
    }

    fn sidecar(&self) -> Sidecar {
        let nobody = ["--operator", "https://127.0.0.1:1", "--operator-token", "/nowhere/token"];
        self.sidecar_of(&[&nobody[..], &["--ca", "/nowhere/ca"]].concat())
    }

    fn sidecar_of(&self, operator: &[&str]) -> Sidecar {
        let path = |name: &str| self.path(name).display().to_string();
        let (snapshot, store) = (path("snapshot"), path("store"));
        let files = ["--policy-snapshot", &snapshot, "--policy-store", &store];
        Sidecar::start(Engine::start().address, &[operator, &files].concat())
    }
}

fn document(revision: &str) -> String {
    let document = PolicyDocument { revision: revision.to_owned(), ..PolicyDocument::default() };
    serde_json::to_string(&document).unwrap()
}

fn in_force(pod: &Pod) -> (String, String) {
    let sidecar = pod.sidecar();
    let status = sidecar.status();
    assert_eq!(status["operatorConnected"], false);
    assert_eq!(sidecar.admin("/ready").unwrap().status, 200);
    let text = |name: &str| status[name].as_str().unwrap().to_owned();
    (text("revision"), text("policySource"))
}

fn pair(revision: &str, source: &str) -> (String, String) {
    (revision.to_owned(), source.to_owned())
}

#[test]
fn without_an_operator_the_store_wins_over_the_snapshot() {
    let pod = Pod::new();
    assert_eq!(in_force(&pod), pair("none", "default"));
    fs::write(pod.path("snapshot"), "").unwrap();
    assert_eq!(in_force(&pod), pair("none", "default"));
    pod.snapshot(&document("admission"));
    assert_eq!(in_force(&pod), pair("admission", "snapshot"));
    pod.store(&document("newer"));
    assert_eq!(in_force(&pod), pair("newer", "store"));
}

#[test]
fn a_broken_store_gives_way_to_the_snapshot_with_a_word() {
    let pod = Pod::new();
    pod.snapshot(&document("admission"));
    pod.store("{\"revision\":\"half");
    let sidecar = pod.sidecar();
    let status = sidecar.status();
    assert_eq!(
        (status["revision"].as_str(), status["policySource"].as_str()),
        (Some("admission"), Some("snapshot"))
    );
    assert!(status["refused"].is_object(), "{status}");
    assert_eq!(sidecar.metric("tidegate_policy_refused_total"), Some(1.0));
}

#[test]
fn an_operator_out_of_reach_is_told_in_one_line_that_names_what_is_missing() {
    let pod = Pod::new();
    let sidecar = pod.sidecar();
    let line = sidecar.line("the reason", |line| line["operator"].is_string());
    assert_eq!(line["operator"], "https://127.0.0.1:1");
    assert!(line["reason"].as_str().unwrap().contains("/nowhere/ca"), "{line}");
    assert_eq!(sidecar.metric("tidegate_operator_connected"), Some(0.0));
}

#[test]
fn a_new_pod_has_its_siblings_ceiling_from_its_first_request_on_and_keeps_it() {
    let tiers = |seed: Option<f64>| {
        let mut learned = json!({"sigma": 2.0, "factor": 1.5, "floor": 1.0, "minimumSamples": 60});
        if let Some(seed) = seed {
            learned["seed"] = json!(seed);
        }
        let qps = json!({"sampleIntervalMillis": 1000, "windowMillis": 300_000, "learned": learned});
        let recovery = json!({"belowRatio": 0.9, "holdMillis": 1000});
        let tiers = json!({"policy": "shop/llama", "mode": "Enforce", "qps": qps, "recovery": recovery});
        let mut document = serde_json::to_value(PolicyDocument::default()).unwrap();
        (document["revision"], document["tiers"]) = (json!("admission"), tiers);
        document
    };
    let pod = Pod::new();
    pod.snapshot(&tiers(Some(100.0)).to_string());
    let operator = Operator::start(&Authority::new());
    let arguments = operator.arguments();
    let sidecar = pod.sidecar_of(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    let threshold = |sidecar: &Sidecar| sidecar.status()["tiers"][0]["threshold"].as_f64();
    // 1.5 times the average and two deviations of independent arrivals.
    assert_eq!(threshold(&sidecar), Some(180.0));
    eventually("the stream", || (operator.watches().first()? == "revision=admission").then_some(()));
    let mut next = tiers(None);
    next["revision"] = json!("next");
    operator.send_document(&PolicyDocument::from_json(next.to_string().as_bytes()).unwrap());
    eventually("the next document", || (sidecar.status()["revision"] == "next").then_some(()));
    assert_eq!(threshold(&sidecar), Some(180.0));
}
