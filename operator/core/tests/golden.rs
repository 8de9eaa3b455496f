//! Whole pods before and after injection. `tests/golden/<name>.in.yaml` becomes `<name>.out.yaml`;
//! `TIDEGATE_WRITE_GOLDEN=1` writes the outputs anew, to be read before they are committed.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;
use tidegate_operator_core::inject::{
    Admission, Interception, NamespaceFacts, Outcome, SNAPSHOT_ANNOTATION, SidecarResources, SidecarSettings,
    decode_snapshot, inject,
};
use tidegate_policy::PolicyDocument;

fn settings() -> SidecarSettings {
    SidecarSettings {
        version: "0.1.0".to_owned(),
        image: "tidegate/tidegate-sidecar:0.1.0".to_owned(),
        image_pull_policy: "IfNotPresent".to_owned(),
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

fn namespace() -> NamespaceFacts {
    let labels = BTreeMap::from([("tidegate.dev/injection".to_owned(), "enabled".to_owned())]);
    NamespaceFacts { labels, ..NamespaceFacts::default() }
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn inject_into(pod: &Value) -> Outcome {
    let policy = PolicyDocument { revision: "r1".to_owned(), ..PolicyDocument::default() };
    let admission = Admission {
        pod,
        namespace: &namespace(),
        ca_bundle: Some("-----BEGIN CERTIFICATE-----\n"),
        policy: Some(&policy),
        selected: true,
        services: &[],
        sidecar_port_names: true,
        drain_token: "00112233445566778899aabbccddeeff",
    };
    inject(&admission, &settings())
}

fn injected(input: &Value) -> Value {
    let outcome = inject_into(input);
    let Outcome::Injected { patch, .. } = outcome else { panic!("not injected: {outcome:?}") };
    let mut pod = input.clone();
    json_patch::patch(&mut pod, &patch).unwrap();
    pod
}

/// The compressed form depends on the library's version, what it holds does not.
fn show_snapshot(pod: &mut Value) {
    let snapshot = &mut pod["metadata"]["annotations"][SNAPSHOT_ANNOTATION];
    let json = decode_snapshot(snapshot.as_str().unwrap()).unwrap();
    assert_eq!(PolicyDocument::from_json(&json).unwrap().revision, "r1");
    *snapshot = Value::from("(snapshot of r1)");
}

fn assert_golden(name: &str) {
    let input = std::fs::read_to_string(path(&format!("{name}.in.yaml"))).unwrap();
    let input: Value = serde_saphyr::from_str(&input).unwrap();
    let mut pod = injected(&input);
    show_snapshot(&mut pod);
    let golden = path(&format!("{name}.out.yaml"));
    if std::env::var_os("TIDEGATE_WRITE_GOLDEN").is_some() {
        std::fs::write(&golden, serde_saphyr::to_string(&pod).unwrap()).unwrap();
    }
    let expected: Value = serde_saphyr::from_str(&std::fs::read_to_string(&golden).unwrap()).unwrap();
    assert_eq!(serde_json::to_string_pretty(&pod).unwrap(), serde_json::to_string_pretty(&expected).unwrap());
}

#[test]
fn vllm_pod_gets_redirect_sidecar_volumes_and_pre_stop_and_keeps_unknown_fields() {
    assert_golden("vllm");
}

#[test]
fn guaranteed_pod_stays_guaranteed_and_its_run_as_non_root_is_overridden_for_the_redirect_only() {
    assert_golden("guaranteed");
}

#[test]
fn tcp_and_grpc_probes_of_guarded_ports_ask_the_engine_through_the_admin_port() {
    assert_golden("probes");
}

#[test]
fn by_name_the_port_moves_to_the_sidecar_and_nothing_needs_a_privilege() {
    assert_golden("named-port");
}

#[test]
fn a_second_injection_changes_nothing() {
    for name in ["vllm", "guaranteed", "probes", "named-port"] {
        let input = std::fs::read_to_string(path(&format!("{name}.in.yaml"))).unwrap();
        let pod = injected(&serde_saphyr::from_str(&input).unwrap());
        let outcome = inject_into(&pod);
        let Outcome::Skipped { skip, patch } = outcome else { panic!("{name}: {outcome:?}") };
        assert_eq!((skip.reason.as_str(), patch.0.len()), ("AlreadyInjected", 0), "{name}");
    }
}
