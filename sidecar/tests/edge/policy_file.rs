use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;
use tidegate_policy::{Algorithm, Cost, Limit, Mode, PolicyDocument};

use crate::engine::Engine;
use crate::sidecar::{Sidecar, eventually};

pub(crate) struct File {
    folder: TempDir,
}

impl File {
    pub(crate) fn new(content: &str) -> Self {
        let file = Self { folder: tempfile::tempdir().unwrap() };
        file.write(content);
        file
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("written-by-hand.json")
    }

    /// Whoever reads it finds the whole of it, or what it was before.
    pub(crate) fn write(&self, content: &str) {
        let next = self.folder.path().join("next");
        fs::write(&next, content).unwrap();
        fs::rename(next, self.path()).unwrap();
    }

    fn sidecar(&self) -> Sidecar {
        self.sidecar_with(&[])
    }

    pub(crate) fn sidecar_with(&self, more: &[&str]) -> Sidecar {
        let path = self.path().display().to_string();
        Sidecar::start(Engine::start().address, &[&["--policy-file", &path], more].concat())
    }
}

fn document(revision: &str) -> String {
    let document = PolicyDocument { revision: revision.to_owned(), ..PolicyDocument::default() };
    serde_json::to_string(&document).unwrap()
}

/// One request a day, for all together.
pub(crate) fn one_request(revision: &str) -> String {
    let limit = Limit {
        policy: "tests/one".to_owned(),
        name: "one".to_owned(),
        mode: Mode::Enforce,
        key: Vec::new(),
        algorithm: Algorithm::TokenBucket { burst: 1, initial: None },
        limit: 1,
        window_millis: serde_json::from_value(86_400_000.into()).unwrap(),
        cost: Cost::Requests,
        max_keys: None,
        when: Vec::new(),
        on_exhausted: tidegate_policy::OnExhausted::EndStream,
    };
    let document =
        PolicyDocument { revision: revision.to_owned(), limits: vec![limit], ..PolicyDocument::default() };
    serde_json::to_string(&document).unwrap()
}

pub(crate) fn in_force(sidecar: &Sidecar, revision: &str) {
    sidecar.await_status("a change in force", |status| status["revision"] == revision);
}

#[test]
fn a_changed_file_is_in_force_soon_and_named() {
    let file = File::new(&document("one"));
    let sidecar = file.sidecar();
    assert_eq!(sidecar.status()["revision"], "one");
    assert_eq!(sidecar.status()["policySource"], "file");
    // In its place, as an editor may write it. That it takes less than a second is told by the clock of the reader, in its
    // own test: here it would be that of the machine.
    fs::write(file.path(), document("two")).unwrap();
    in_force(&sidecar, "two");
    assert_eq!(sidecar.metric(r#"tidegate_policy_info{revision="two",source="file"}"#), Some(1.0));
}

#[test]
fn a_limit_that_is_written_into_the_file_refuses_and_survives_garbage() {
    let file = File::new(&document("free"));
    let sidecar = file.sidecar();
    assert_eq!(sidecar.request("/", &[]).unwrap().status, 200);
    file.write(&one_request("limited"));
    let refused = || sidecar.request("/", &[]).filter(|answer| answer.status == 429);
    let answer = eventually("a refusal", refused);
    assert!(answer.head.contains("x-tidegate-reason: limit; policy=tests/one; rule=one"), "{}", answer.head);
    file.write("garbage");
    sidecar.await_status("refused", |status| status["refused"].is_object());
    assert_eq!(sidecar.request("/", &[]).unwrap().status, 429);
    file.write(&document("free again"));
    eventually("an admission", || sidecar.request("/", &[]).filter(|answer| answer.status == 200));
}

#[test]
fn a_file_that_is_replaced_by_a_link_is_noticed() {
    let file = File::new(&document("one"));
    let sidecar = file.sidecar();
    let other = file.folder.path().join("other.json");
    fs::write(&other, document("new")).unwrap();
    let link = file.folder.path().join("link");
    std::os::unix::fs::symlink(&other, &link).unwrap();
    fs::rename(&link, file.path()).unwrap();
    in_force(&sidecar, "new");
}

#[test]
fn garbage_keeps_the_last_good_policy_and_says_why_until_it_is_mended() {
    let file = File::new(&document("good"));
    let sidecar = file.sidecar();
    file.write(r#"{"apiVersion":"policy.tidegate.dev/v1","revision":"bad","limits":[{"limit":0}]}"#);
    let status = sidecar.await_status("refused", |status| status["refused"].is_object());
    assert_eq!(status["revision"], "good");
    assert_eq!(status["refused"]["revision"], "bad");
    assert!(status["refused"]["message"].as_str().unwrap().starts_with("limits[0]"), "{status}");
    assert_eq!(sidecar.metric("tidegate_policy_refused_total"), Some(1.0));
    let line = sidecar.line("the reason", |line| line["message"] == "policy refused");
    assert!(line["reason"].as_str().unwrap().starts_with("limits[0]"), "{line}");
    file.write("no JSON at all");
    sidecar.await_status("refused again", |status| status["refused"]["revision"] == "");
    file.write(&document("mended"));
    let status = sidecar.await_status("mended", |status| status["revision"] == "mended");
    assert!(status["refused"].is_null(), "{status}");
}

#[test]
fn a_file_that_vanishes_keeps_the_last_good_policy() {
    let file = File::new(&document("good"));
    let sidecar = file.sidecar();
    fs::remove_file(file.path()).unwrap();
    let status = sidecar.await_status("refused", |status| status["refused"].is_object());
    assert_eq!(status["revision"], "good");
    assert!(status["refused"]["message"].as_str().unwrap().contains("can't read"), "{status}");
}

#[test]
fn a_crash_while_the_file_is_garbage_goes_on_with_the_stored_policy() {
    let file = File::new(&document("good"));
    let (path, folder) = (file.path().display().to_string(), file.folder.path().display().to_string());
    let sidecar =
        Sidecar::start(Engine::start().address, &["--policy-file", &path, "--policy-store", &folder]);
    assert_eq!(sidecar.status()["policySource"], "file");
    fs::write(file.path(), "garbage").unwrap();
    sidecar.await_status("refused", |status| status["refused"].is_object());
    let before = sidecar.workers()[0];
    crate::crash::kill(before);
    let status = eventually("a status of the next worker", || {
        (sidecar.workers() != [before]).then(|| sidecar.admin("/throttle/status")).flatten()
    });
    assert!(status.body.contains(r#""policySource": "store""#), "{}", status.body);
    assert!(status.body.contains(r#""revision": "good""#), "{}", status.body);
}

#[test]
fn garbage_at_the_start_lets_everything_pass_with_a_word_and_one_line() {
    let file = File::new("garbage");
    let sidecar = file.sidecar();
    let status = sidecar.status();
    assert_eq!(status["policySource"], "default");
    assert!(status["refused"].is_object(), "{status}");
    file.write(&document("good"));
    in_force(&sidecar, "good");
    sidecar.line("the reason", |line| line["message"] == "policy refused");
    let told = sidecar.lines().iter().filter(|line| line["message"] == "policy refused").count();
    assert_eq!(told, 1);
}
