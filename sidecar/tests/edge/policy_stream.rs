use std::time::Instant;

use serde_json::json;
use tidegate_policy::PolicyDocument;
use tidegate_policy::stream::PolicyEvent;

use crate::authority::Authority;
use crate::engine::Engine;
use crate::operator::Operator;
use crate::sidecar::{Sidecar, eventually};

fn document(revision: &str) -> PolicyDocument {
    PolicyDocument { revision: revision.to_owned(), ..PolicyDocument::default() }
}

fn start(operator: &Operator, more: &[&str]) -> Sidecar {
    let arguments = operator.arguments();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).chain(more.iter().copied()).collect();
    Sidecar::start(Engine::start().address, &arguments)
}

fn in_force(sidecar: &Sidecar, revision: &str) {
    sidecar.await_status(revision, |status| {
        status["revision"] == revision && status["policySource"] == "stream"
    });
}

#[test]
fn documents_of_the_stream_are_in_force_reported_and_kept() {
    let operator = Operator::start(&Authority::new());
    operator.send_document(&document("one"));
    let store = tempfile::tempdir().unwrap();
    let folder = store.path().display().to_string();
    let sidecar = start(&operator, &["--policy-store", &folder]);
    in_force(&sidecar, "one");
    let began = Instant::now();
    operator.send_document(&document("two"));
    in_force(&sidecar, "two");
    println!("a document of the stream was in force after {:?}", began.elapsed());
    let reported = |revision: &str| operator.last_report().filter(|report| report.revision == revision);
    let report = eventually("a report", || reported("two"));
    assert_eq!((report.refused, report.status.revision), (None, "two".to_owned()));
    assert_eq!(operator.watches(), ["revision=none"]);
    assert_eq!(sidecar.metric("tidegate_operator_connected"), Some(1.0));
    let kept = || PolicyDocument::from_json(&std::fs::read(store.path().join("policy.json")).ok()?).ok();
    eventually("the document in the store", || kept().filter(|kept| kept.revision == "two"));
}

#[test]
fn an_invalid_document_is_refused_and_reported_while_the_stream_goes_on() {
    let operator = Operator::start(&Authority::new());
    operator.send_document(&document("good"));
    let sidecar = start(&operator, &[]);
    in_force(&sidecar, "good");
    let mut bad = serde_json::to_value(document("bad")).unwrap();
    bad["limitz"] = json!([]);
    operator.send(PolicyEvent::Modified { document: bad });
    let report =
        eventually("a report of it", || operator.last_report().filter(|report| report.refused.is_some()));
    assert_eq!(report.revision, "good");
    let refused = report.refused.unwrap();
    assert_eq!(refused.revision, "bad");
    assert!(refused.message.contains("limitz"), "{refused:?}");
    assert_eq!(sidecar.status()["revision"], "good");
    assert_eq!(sidecar.metric("tidegate_policy_refused_total"), Some(1.0));
    operator.send_document(&document("better"));
    in_force(&sidecar, "better");
    let report =
        eventually("a report", || operator.last_report().filter(|report| report.revision == "better"));
    assert_eq!(report.refused, None);
    assert_eq!(operator.watches().len(), 1, "the stream was left for a bad document");
}

#[test]
fn a_rotated_authority_is_trusted_at_the_next_connection_and_the_old_one_is_not() {
    let operator = Operator::start(&Authority::new());
    operator.send_document(&document("one"));
    let sidecar = start(&operator, &[]);
    in_force(&sidecar, "one");
    let next = Authority::new();
    operator.server.use_certificate(next.server(&[b"h2"]));
    operator.server.cut();
    let distrust =
        |line: &serde_json::Value| line["reason"].as_str().is_some_and(|r| r.contains("certificate"));
    sidecar.line("distrust", distrust);
    assert_eq!(sidecar.status()["operatorConnected"], false);
    operator.publish_ca(&next);
    sidecar.await_status("a new connection", |status| status["operatorConnected"] == true);
    assert_eq!(operator.watches(), ["revision=none", "revision=one"]);
}

#[test]
fn a_lost_stream_leaves_the_policy_in_force_and_comes_back() {
    let operator = Operator::start(&Authority::new());
    operator.send_document(&document("one"));
    let sidecar = start(&operator, &[]);
    in_force(&sidecar, "one");
    for connections in 2..4 {
        operator.server.cut();
        eventually("another watch", || (operator.watches().len() == connections).then_some(()));
        assert_eq!(sidecar.status()["revision"], "one");
    }
}

#[test]
fn a_token_that_is_refused_is_named_and_replaced_without_a_restart() {
    let operator = Operator::start(&Authority::new());
    operator.send_document(&document("one"));
    let token = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(token.path(), "expired").unwrap();
    let mut arguments = operator.arguments();
    arguments[3] = token.path().display().to_string();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let sidecar = Sidecar::start(Engine::start().address, &arguments);
    sidecar.line("the refusal", |line| {
        line["reason"].as_str().is_some_and(|r| r.contains("token is not valid"))
    });
    std::fs::write(token.path(), crate::operator::TOKEN).unwrap();
    in_force(&sidecar, "one");
}

#[test]
fn a_worker_that_is_killed_starts_from_the_store_and_the_stream_corrects_it() {
    let operator = Operator::start(&Authority::new());
    operator.send_document(&document("one"));
    let store = tempfile::tempdir().unwrap();
    let folder = store.path().display().to_string();
    let sidecar = start(&operator, &["--policy-store", &folder]);
    in_force(&sidecar, "one");
    eventually("the document in the store", || store.path().join("policy.json").exists().then_some(()));
    crate::crash::kill(sidecar.workers()[0]);
    eventually("a watch from the store", || {
        operator.watches().get(1).cloned().filter(|w| w == "revision=one")
    });
}

#[test]
fn a_bookmark_confirms_a_document_that_came_from_the_store() {
    let operator = Operator::start(&Authority::new());
    let store = tempfile::tempdir().unwrap();
    let kept = serde_json::to_vec(&document("kept")).unwrap();
    std::fs::write(store.path().join("policy.json"), kept).unwrap();
    let folder = store.path().display().to_string();
    let sidecar = start(&operator, &["--policy-store", &folder]);
    sidecar.await_status("a stream", |status| status["operatorConnected"] == true);
    assert_eq!(sidecar.status()["policySource"], "store");
    operator.send(PolicyEvent::Bookmark { revision: "kept".to_owned() });
    in_force(&sidecar, "kept");
}
