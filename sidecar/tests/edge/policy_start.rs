use std::fs;
use std::io::Write as _;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;
use tempfile::TempDir;
use tidegate_policy::PolicyDocument;

use crate::engine::Engine;
use crate::sidecar::Sidecar;

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
        let path = |name: &str| self.path(name).display().to_string();
        let operator = ["--operator", "https://127.0.0.1:1", "--operator-token", "/nowhere/token"];
        let rest =
            ["--policy-snapshot", &path("snapshot"), "--policy-store", &path("store"), "--ca", "/nowhere/ca"];
        Sidecar::start(Engine::start().address, &[&operator[..], &rest[..]].concat())
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
