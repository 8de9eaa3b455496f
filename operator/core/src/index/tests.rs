use k8s_openapi::api::core::v1::{Namespace, Pod, Service};
use serde::de::DeserializeOwned;

use super::*;

fn from_yaml<T: DeserializeOwned>(yaml: &str) -> T {
    serde_saphyr::from_str(yaml).unwrap_or_else(|error| panic!("{error}\n{yaml}"))
}

fn rate_limit(name: &str, created: u8, spec: &str) -> RateLimitPolicy {
    from_yaml(&format!(
        "
apiVersion: tidegate.dev/v1alpha1
kind: RateLimitPolicy
metadata: {{name: {name}, namespace: ns, generation: {created}, creationTimestamp: '2026-01-{created:02}T00:00:00Z'}}
spec: {spec}"
    ))
}

fn breaker(name: &str, spec: &str) -> CircuitBreakerPolicy {
    from_yaml(&format!(
        "
apiVersion: tidegate.dev/v1alpha1
kind: CircuitBreakerPolicy
metadata: {{name: {name}, namespace: ns}}
spec: {spec}"
    ))
}

fn pod(name: &str, uid: &str, labels: &str) -> Pod {
    from_yaml(&format!(
        "
metadata:
  name: {name}
  namespace: ns
  uid: {uid}
  labels: {{pod-template-hash: abc, {labels}}}
  ownerReferences: [{{apiVersion: apps/v1, kind: ReplicaSet, name: llama-abc, uid: u, controller: true}}]"
    ))
}

fn service(name: &str, selector: &str) -> Service {
    from_yaml(&format!("{{metadata: {{name: {name}, namespace: ns}}, spec: {{selector: {selector}}}}}"))
}

fn namespace(labels: &str) -> Namespace {
    from_yaml(&format!("metadata: {{name: ns, labels: {labels}}}"))
}

fn pods(names: &[&str]) -> BTreeSet<PodKey> {
    names.iter().map(|name| PodKey::new("ns", *name)).collect()
}

fn policy(name: &str) -> PolicyKey {
    PolicyKey::new(PolicyKind::RateLimitPolicy, "ns", name)
}

/// The static QPS cap that a pod obeys, to tell policies apart.
fn cap(index: &Index, pod: &str) -> Option<f64> {
    let document = index.document_for("ns", pod)?;
    document.tiers.as_ref()?.qps?.max.map(tidegate_policy::Rate::get)
}

const DEPLOYMENT: &str = "targetRefs: [{group: apps, kind: Deployment, name: llama}]";

#[test]
fn a_pod_that_was_never_seen_has_no_document() {
    let mut index = Index::new();
    index.apply_rate_limit_policy(&rate_limit("all", 1, "{tiers: {qps: {max: 1}}}"));
    assert_eq!(index.document_for("ns", "llama-1"), None);
    assert_eq!(index.uid_of("ns", "llama-1"), None);
}

#[test]
fn a_pod_without_policy_lets_everything_pass() {
    let mut index = Index::new();
    let changes = index.apply_pod(&pod("llama-1", "u1", "app: llama"));
    assert_eq!(changes.pods, pods(&["llama-1"]));
    assert_eq!(index.document_for("ns", "llama-1").as_deref(), Some(&PolicyDocument::default()));
    assert_eq!(index.uid_of("ns", "llama-1"), Some("u1"));
}

#[test]
fn a_policy_reaches_the_pods_of_its_target_and_no_others() {
    let mut index = Index::new();
    index.apply_pod(&pod("llama-1", "u1", "app: llama"));
    let other: Pod = from_yaml("metadata: {name: other, namespace: ns, labels: {app: other}}");
    index.apply_pod(&other);
    let foreign: Pod = from_yaml("metadata: {name: foreign, namespace: elsewhere, labels: {app: llama}}");
    index.apply_pod(&foreign);
    for (max, target) in [(1, DEPLOYMENT), (2, "selector: {matchLabels: {app: llama}}")] {
        let changes = index.apply_rate_limit_policy(&rate_limit(
            "llama",
            1,
            &format!("{{{target}, tiers: {{qps: {{max: {max}}}}}}}"),
        ));
        assert_eq!(changes, Changes { pods: pods(&["llama-1"]), policies: [policy("llama")].into() });
        assert_eq!(cap(&index, "llama-1"), Some(f64::from(max)));
        assert_eq!(cap(&index, "other"), None);
    }
    let untouched = index.document_for("elsewhere", "foreign");
    assert_eq!(untouched.as_deref(), Some(&PolicyDocument::default()));
}

#[test]
fn a_service_target_follows_the_selector_of_the_service() {
    let mut index = Index::new();
    index.apply_pod(&pod("llama-1", "u1", "app: llama"));
    index.apply_circuit_breaker_policy(&breaker("b", "{targetService: front, failureThreshold: 5}"));
    let has_breaker = |index: &Index| index.document_for("ns", "llama-1").unwrap().breaker.is_some();
    assert!(!has_breaker(&index));
    let changes = index.apply_service(&service("front", "{app: llama}"));
    assert_eq!(changes.pods, pods(&["llama-1"]));
    assert!(has_breaker(&index));
    index.apply_service(&service("front", "{app: other}"));
    assert!(!has_breaker(&index));
    index.apply_service(&service("front", "{app: llama}"));
    index.delete_service("ns", "front");
    assert!(!has_breaker(&index));
}

#[test]
fn an_external_name_service_selects_no_pod() {
    let mut index = Index::new();
    index.apply_pod(&pod("llama-1", "u1", "app: llama"));
    index.apply_circuit_breaker_policy(&breaker("b", "{targetService: front, failureThreshold: 5}"));
    let external: Service = from_yaml(
        "{metadata: {name: front, namespace: ns}, spec: {type: ExternalName, selector: {app: llama}}}",
    );
    index.apply_service(&external);
    assert_eq!(index.document_for("ns", "llama-1").unwrap().breaker, None);
}

#[test]
fn deleting_the_policy_frees_the_pod() {
    let mut index = Index::new();
    index.apply_pod(&pod("llama-1", "u1", "app: llama"));
    index.apply_rate_limit_policy(&rate_limit("all", 1, "{tiers: {qps: {max: 1}}}"));
    let changes = index.delete_rate_limit_policy("ns", "all");
    assert_eq!(changes, Changes { pods: pods(&["llama-1"]), policies: [policy("all")].into() });
    assert_eq!(index.document_for("ns", "llama-1").as_deref(), Some(&PolicyDocument::default()));
}

#[test]
fn an_invalid_policy_keeps_its_last_good_version_in_force() {
    let mut index = Index::new();
    index.apply_pod(&pod("llama-1", "u1", "app: llama"));
    index.apply_rate_limit_policy(&rate_limit("all", 1, "{tiers: {qps: {max: 1}}}"));
    let changes = index.apply_rate_limit_policy(&rate_limit("all", 1, "{tiers: {qps: {max: oops}}}"));
    assert_eq!(changes.pods, pods(&[]));
    assert_eq!(changes.policies, [policy("all")].into());
    assert_eq!(cap(&index, "llama-1"), Some(1.0));
    index.reset_rate_limit_policies(&[rate_limit("all", 1, "{tiers: {qps: {max: oops}}}")]);
    assert_eq!(cap(&index, "llama-1"), Some(1.0));
    index.apply_rate_limit_policy(&rate_limit("all", 1, "{tiers: {qps: {max: 2}}}"));
    assert_eq!(cap(&index, "llama-1"), Some(2.0));
}

#[test]
fn a_policy_that_was_never_valid_does_nothing() {
    let mut index = Index::new();
    index.apply_pod(&pod("llama-1", "u1", "app: llama"));
    let changes = index.apply_rate_limit_policy(&rate_limit("all", 1, "{}"));
    assert_eq!(changes.pods, pods(&[]));
    assert_eq!(index.document_for("ns", "llama-1").as_deref(), Some(&PolicyDocument::default()));
}

#[test]
fn an_event_that_changes_nothing_changes_nothing() {
    let mut index = Index::new();
    let (pod, service) = (pod("llama-1", "u1", "app: llama"), service("front", "{app: llama}"));
    let (policy, namespace) = (rate_limit("all", 1, "{priority: {}}"), namespace("{a: b}"));
    index.apply_pod(&pod);
    index.apply_service(&service);
    index.apply_rate_limit_policy(&policy);
    index.apply_namespace(&namespace);
    index.apply_workload(WorkloadKind::Deployment, &pod.metadata);
    assert!(index.apply_pod(&pod).is_empty());
    assert!(index.apply_service(&service).is_empty());
    assert!(index.apply_rate_limit_policy(&policy).is_empty());
    assert!(index.apply_namespace(&namespace).is_empty());
    assert!(index.apply_workload(WorkloadKind::Deployment, &pod.metadata).is_empty());
    assert!(index.delete_pod("ns", "unknown").is_empty());
    assert!(index.delete_pod("unknown", "unknown").is_empty());
    assert!(index.delete_rate_limit_policy("ns", "unknown").is_empty());
}

#[test]
fn the_write_of_a_status_concerns_its_policy_alone() {
    let mut index = Index::new();
    index.apply_pod(&pod("llama-1", "u1", "app: llama"));
    index.apply_rate_limit_policy(&rate_limit("other", 1, "{priority: {}}"));
    let mut written = rate_limit("all", 2, "{priority: {}}");
    index.apply_rate_limit_policy(&written);
    let condition = "{type: Accepted, status: 'True', reason: Accepted, message: '', lastTransitionTime: '2026-01-01T00:00:00Z'}";
    written.status = Some(from_yaml(&format!("{{conditions: [{condition}]}}")));
    let changes = index.apply_rate_limit_policy(&written);
    assert_eq!((changes.pods, changes.policies), (BTreeSet::new(), BTreeSet::from([policy("all")])));
    assert_eq!(index.policies_of("ns", "llama-1").count(), 2);
}

#[test]
fn a_pod_with_the_name_of_an_older_one_is_another_pod() {
    let mut index = Index::new();
    index.apply_pod(&pod("llama-1", "u1", "app: llama"));
    let changes = index.apply_pod(&pod("llama-1", "u2", "app: llama"));
    assert_eq!(changes.pods, pods(&["llama-1"]));
    assert_eq!(index.uid_of("ns", "llama-1"), Some("u2"));
    let changes = index.delete_pod("ns", "llama-1");
    assert_eq!(changes.pods, pods(&["llama-1"]));
    assert_eq!(index.document_for("ns", "llama-1"), None);
}

#[test]
fn a_new_label_moves_a_pod_to_another_policy() {
    let mut index = Index::new();
    index.apply_rate_limit_policy(&rate_limit("all", 1, "{tiers: {qps: {max: 1}}}"));
    index.apply_rate_limit_policy(&rate_limit(
        "canary",
        2,
        "{selector: {matchLabels: {canary: 'yes'}}, tiers: {qps: {max: 2}}}",
    ));
    index.apply_pod(&pod("llama-1", "u1", "app: llama"));
    assert_eq!(cap(&index, "llama-1"), Some(1.0));
    let changes = index.apply_pod(&pod("llama-1", "u1", "canary: 'yes'"));
    assert_eq!(cap(&index, "llama-1"), Some(2.0));
    assert_eq!(changes.policies, [policy("all"), policy("canary")].into());
}

#[test]
fn pods_under_the_same_policies_share_one_document() {
    let mut index = Index::new();
    index.reset_pods(&[pod("llama-1", "u1", ""), pod("llama-2", "u2", "")]);
    index.apply_rate_limit_policy(&rate_limit("all", 1, "{tiers: {qps: {max: 1}}}"));
    let documents = ["llama-1", "llama-2"].map(|pod| index.document_for("ns", pod).unwrap());
    assert!(Arc::ptr_eq(&documents[0], &documents[1]));
}

#[test]
fn a_pod_being_created_gets_the_document_that_it_will_have() {
    let mut index = Index::new();
    index.apply_service(&service("front", "{app: llama}"));
    let mut unnamed = pod("llama-1", "u1", "app: llama");
    (unnamed.metadata.name, unnamed.metadata.uid, unnamed.metadata.namespace) = (None, None, None);
    assert_eq!(index.document_for_new_pod("ns", &unnamed), None);
    index.apply_rate_limit_policy(&rate_limit("llama", 1, &format!("{{{DEPLOYMENT}, priority: {{}}}}")));
    index.apply_circuit_breaker_policy(&breaker("b", "{targetService: front, failureThreshold: 5}"));
    let expected = index.document_for_new_pod("ns", &unnamed);
    assert!(expected.is_some());
    index.apply_pod(&pod("llama-1", "u1", "app: llama"));
    assert_eq!(index.document_for("ns", "llama-1"), expected);
    assert_eq!(index.document_for_new_pod("elsewhere", &unnamed), None);
}

#[test]
fn the_label_of_a_namespace_turns_injection_on() {
    let mut index = Index::new();
    for (labels, injected) in [
        ("{}", false),
        ("{tidegate.dev/injection: disabled}", false),
        ("{tidegate.dev/injection: enabled}", true),
    ] {
        index.apply_namespace(&namespace(labels));
        assert_eq!(index.namespace_is_injected("ns"), injected, "{labels}");
    }
    assert_eq!(index.injected_namespaces().collect::<Vec<_>>(), ["ns"]);
    index.delete_namespace("ns");
    assert!(!index.namespace_is_injected("ns"));
    assert_eq!(index.namespace_labels("ns"), None);
}

#[test]
fn a_reset_forgets_what_it_does_not_mention() {
    let mut index = Index::new();
    index.apply_pod(&pod("llama-1", "u1", "app: llama"));
    index.apply_pod(&pod("llama-2", "u2", "app: llama"));
    index.apply_rate_limit_policy(&rate_limit("all", 1, "{tiers: {qps: {max: 1}}}"));
    let changes = index.reset_pods(&[pod("llama-2", "u2", "app: llama"), pod("llama-3", "u3", "")]);
    assert_eq!(changes.pods, pods(&["llama-1", "llama-3"]));
    assert_eq!(index.document_for("ns", "llama-1"), None);
    let changes = index.reset_rate_limit_policies(&[]);
    assert_eq!(changes.pods, pods(&["llama-2", "llama-3"]));
    index.reset_pods(&[]);
    assert!(index.namespaces.is_empty(), "nothing is left of an empty namespace");
}

#[test]
fn a_reset_of_one_workload_kind_leaves_the_others() {
    let mut index = Index::new();
    let metadata = pod("llama", "u", "").metadata;
    index.apply_rate_limit_policy(&rate_limit("all", 1, "{priority: {}}"));
    index.apply_workload(WorkloadKind::Deployment, &metadata);
    index.apply_workload(WorkloadKind::Job, &metadata);
    index.reset_workloads(WorkloadKind::Job, &[]);
    assert!(index.apply_workload(WorkloadKind::Deployment, &metadata).is_empty(), "it is still there");
    let changes = index.apply_workload(WorkloadKind::Job, &metadata);
    assert_eq!(changes, Changes { pods: pods(&[]), policies: [policy("all")].into() });
    assert!(!index.delete_workload(WorkloadKind::Job, "ns", "llama").is_empty());
}
