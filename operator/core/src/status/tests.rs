use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::core::DynamicObject;
use serde::de::DeserializeOwned;
use serde_json::json;
use tidegate_crds::{AncestorRef, CircuitBreakerPolicy, LimitStatus, PolicyAncestorStatus, RateLimitPolicy};

use super::*;
use crate::index::Home;
use crate::key::{CustomKind, Unavailable, WorkloadKind};

fn from_yaml<T: DeserializeOwned>(yaml: &str) -> T {
    serde_saphyr::from_str(yaml).unwrap_or_else(|error| panic!("{error}\n{yaml}"))
}

fn rate_limit(name: &str, generation: i64, spec: &str) -> RateLimitPolicy {
    from_yaml(&format!(
        "
apiVersion: tidegate.dev/v1alpha1
kind: RateLimitPolicy
metadata: {{name: {name}, namespace: ns, generation: {generation}, creationTimestamp: '2026-01-01T00:00:00Z'}}
spec: {spec}"
    ))
}

fn pod(name: &str, annotations: &str) -> Pod {
    from_yaml(&format!(
        "
metadata:
  name: {name}
  namespace: ns
  uid: uid-{name}
  labels: {{app: llama, pod-template-hash: abc}}
  annotations: {annotations}
  ownerReferences: [{{apiVersion: apps/v1, kind: ReplicaSet, name: llama-abc, uid: u, controller: true}}]"
    ))
}

const INJECTED: &str = "{tidegate.dev/injected: 0.1.0}";

fn time(second: i64) -> Time {
    Time(k8s_openapi::jiff::Timestamp::from_second(second).unwrap())
}

fn key(name: &str) -> PolicyKey {
    PolicyKey::new(PolicyKind::RateLimitPolicy, "ns", name)
}

fn report(revision: &str, more: &serde_json::Value) -> Report {
    let mut report = json!({
        "version": "0.1.0",
        "revision": revision,
        "status": {"revision": revision, "pressure": 0.0, "inFlight": 0, "tiers": [], "limits": []},
    });
    json_patch::merge(&mut report, more);
    serde_json::from_value(report).unwrap()
}

fn tier(tier: &str, policy: &str, shedding: bool) -> serde_json::Value {
    json!({
        "tier": tier, "policy": policy, "mode": "Enforce", "state": if shedding { "Tripped" } else { "Normal" },
        "shedding": shedding, "unit": "requests/s", "pressure": 0.0, "lastTriggerReason": "412 over 400",
    })
}

fn breaker(policy: &str, state: &str) -> serde_json::Value {
    json!({
        "policy": policy, "mode": "Enforce", "state": state, "consecutiveFailures": 5, "transitions": [],
        "lastTriggerReason": "5 failures in a row",
    })
}

fn reported(index: &Index, pod: &str, more: &serde_json::Value) -> (PodKey, PodReport) {
    let revision = index.document_for("ns", pod).unwrap().revision.clone();
    let report = report(&revision, more);
    (PodKey::new("ns", pod), PodReport { uid: format!("uid-{pod}"), report })
}

fn rate_limit_status(index: &Index, name: &str, reports: &Reports) -> RateLimitPolicyStatus {
    match index.status(&key(name), reports, &time(100)) {
        Some(PolicyStatus::RateLimit(status)) => status,
        other => panic!("{other:?}"),
    }
}

/// `status reason: message` of a condition.
fn condition(status: &RateLimitPolicyStatus, type_: &str) -> String {
    let condition = status.conditions.iter().find(|condition| condition.type_ == type_).unwrap();
    format!("{} {}: {}", condition.status, condition.reason, condition.message)
}

#[test]
fn a_policy_in_force_everywhere_is_accepted_and_programmed() {
    let mut index = Index::new();
    index.apply_pod(&pod("a", INJECTED));
    index.apply_rate_limit_policy(&rate_limit("all", 4, "{tiers: {qps: {max: 1}}}"));
    let tiers =
        json!({"status": {"tiers": [tier("Qps", "ns/all", true), tier("Latency", "ns/other", true)]}});
    let reports = [reported(&index, "a", &tiers)].into();
    let condition = |type_: &str, reason: &str, message: &str| Condition {
        type_: type_.to_owned(),
        status: "True".to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        last_transition_time: time(100),
        observed_generation: Some(4),
    };
    let conditions = vec![
        condition("Accepted", "Accepted", "The policy is valid."),
        condition("Programmed", "Programmed", "1 of 1 pods enforce it."),
    ];
    let namespace = AncestorRef {
        group: String::new(),
        kind: "Namespace".to_owned(),
        namespace: None,
        name: "ns".to_owned(),
    };
    assert_eq!(
        rate_limit_status(&index, "all", &reports),
        RateLimitPolicyStatus {
            observed_generation: Some(4),
            conditions: conditions.clone(),
            ancestors: vec![PolicyAncestorStatus {
                ancestor_ref: namespace,
                controller_name: "tidegate.dev/operator".to_owned(),
                conditions,
            }],
            enforced: Some("1/1".to_owned()),
            limits: vec![],
            pods: PodCounts {
                matched: 1,
                injected: 1,
                programmed: 1,
                out_of_date: 0,
                uninjected: 0,
                old_sidecar: 0
            },
            tiers_tripped: TierCounts { qps: 1, gpu_memory: 0, latency: 0, any: 1 },
            rotate: None,
        }
    );
}

#[test]
fn each_target_is_told_of_on_its_own_and_keeps_its_time() {
    let mut index = Index::new();
    index.apply_pod(&pod("a", INJECTED));
    index.apply_workload(WorkloadKind::Deployment, &from_yaml("{name: llama, namespace: ns}"));
    let spec = "{targetRefs: [{group: apps, kind: Deployment, name: llama}, {kind: Service, name: front}], priority: {}}";
    let mut policy = rate_limit("two", 1, spec);
    index.apply_rate_limit_policy(&policy);
    let reports = [reported(&index, "a", &json!({}))].into();
    let status = rate_limit_status(&index, "two", &reports);
    let told: Vec<_> = status
        .ancestors
        .iter()
        .map(|ancestor| {
            let reasons: Vec<_> = ancestor.conditions.iter().map(|one| one.reason.as_str()).collect();
            (ancestor.ancestor_ref.kind.as_str(), ancestor.ancestor_ref.name.as_str(), reasons)
        })
        .collect();
    let expected = [
        ("Deployment", "llama", vec!["Accepted", "Programmed"]),
        ("Service", "front", vec!["TargetNotFound", "TargetNotFound"]),
    ];
    assert_eq!(told, expected);
    assert_eq!(condition(&status, "Accepted"), "True Accepted: not found in the namespace: Service front");
    policy.status = Some(status.clone());
    index.apply_rate_limit_policy(&policy);
    match index.status(&key("two"), &reports, &time(999)) {
        Some(PolicyStatus::RateLimit(later)) => assert_eq!(later, status, "nothing has changed"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn limits_come_to_as_much_as_all_pods_admit_together() {
    let mut index = Index::new();
    for name in ["a", "b", "c"] {
        index.apply_pod(&pod(name, INJECTED));
    }
    index.apply_rate_limit_policy(&rate_limit(
        "user",
        1,
        "{limits: [{name: rate, limit: 100, window: 1m, key: [{header: x}]}, {name: held, limit: 7, algorithm: Concurrency}]}",
    ));
    let reports = ["a", "b"].map(|name| reported(&index, name, &json!({}))).into();
    let status = rate_limit_status(&index, "user", &reports);
    let limit = |name: &str, per_pod, window: Option<&str>| LimitStatus {
        name: name.to_owned(),
        per_pod,
        window: window.map(str::to_owned),
        pods: 2,
        total: per_pod * 2,
    };
    assert_eq!(status.limits, [limit("rate", 100, Some("1m")), limit("held", 7, None)]);
    assert_eq!(status.enforced.as_deref(), Some("2/3"));
}

#[test]
fn a_policy_that_others_decide_in_part_is_programmed_in_part() {
    let mut index = Index::new();
    index.apply_pod(&pod("a", INJECTED));
    index.apply_rate_limit_policy(&rate_limit("all", 1, "{tiers: {qps: {max: 1}}, priority: {}}"));
    index.apply_rate_limit_policy(&rate_limit("pod", 1, "{selector: {}, tiers: {qps: {max: 2}}}"));
    let reports = [reported(&index, "a", &json!({}))].into();
    assert_eq!(
        condition(&rate_limit_status(&index, "all", &reports), "Programmed"),
        "True PartiallyProgrammed: RateLimitPolicy ns/pod goes before it on 1 pod and decides tiers"
    );
    assert_eq!(
        condition(&rate_limit_status(&index, "pod", &reports), "Programmed"),
        "True Programmed: 1 of 1 pods enforce it."
    );
}

#[test]
fn an_unknown_policy_has_no_status() {
    assert_eq!(Index::new().status(&key("all"), &Reports::new(), &time(0)), None);
}

#[test]
fn pods_without_a_sidecar_are_counted_and_the_command_that_helps_is_given() {
    let mut index = Index::new();
    index.apply_pod(&pod("a", INJECTED));
    index.apply_pod(&pod("b", "{}"));
    index.apply_pod(&pod("c", "{tidegate.dev/skipped: HostNetwork}"));
    index.apply_rate_limit_policy(&rate_limit("all", 1, "{priority: {}}"));
    let reports = [reported(&index, "a", &json!({}))].into();
    let status = rate_limit_status(&index, "all", &reports);
    assert_eq!(
        status.pods,
        PodCounts { matched: 3, injected: 1, programmed: 1, out_of_date: 0, uninjected: 2, old_sidecar: 0 }
    );
    let rotate = "kubectl label namespace ns tidegate.dev/injection=enabled && kubectl -n ns rollout restart deployment/llama";
    assert_eq!(status.rotate.as_deref(), Some(rotate));
    assert_eq!(
        condition(&status, "Programmed"),
        format!("True PartiallyProgrammed: 2 of 3 pods have no sidecar; to give them one: {rotate}")
    );
    let namespace: Namespace = from_yaml("metadata: {name: ns, labels: {tidegate.dev/injection: enabled}}");
    index.apply_namespace(&namespace);
    let status = rate_limit_status(&index, "all", &reports);
    assert_eq!(status.rotate.as_deref(), Some("kubectl -n ns rollout restart deployment/llama"));
}

fn home() -> Home {
    Home {
        namespace: "tidegate-system".to_owned(),
        port: 8444,
        sidecar_image: "tidegate-sidecar:2".to_owned(),
    }
}

fn with_sidecar(mut pod: Pod, image: &str) -> Pod {
    pod.spec = from_yaml(&format!(
        "{{containers: [], initContainers: [{{name: tidegate-sidecar, image: 'tidegate-sidecar:{image}'}}]}}"
    ));
    pod
}

#[test]
fn pods_with_an_old_sidecar_are_counted_and_the_command_that_rotates_them_is_given() {
    let mut index = Index::new();
    index.set_home(home());
    index.apply_namespace(&from_yaml("metadata: {name: ns, labels: {tidegate.dev/injection: enabled}}"));
    index.apply_pod(&with_sidecar(pod("a", INJECTED), "2"));
    index.apply_pod(&with_sidecar(pod("b", INJECTED), "1"));
    index.apply_rate_limit_policy(&rate_limit("all", 1, "{priority: {}}"));
    let reports: Reports = ["a", "b"].map(|pod| reported(&index, pod, &json!({}))).into();
    let status = rate_limit_status(&index, "all", &reports);
    assert_eq!((status.pods.programmed, status.pods.old_sidecar), (2, 1));
    let rotate = "kubectl tidegate rotate --namespace ns";
    assert_eq!(status.rotate.as_deref(), Some(rotate));
    let told = format!(
        "True Programmed: 2 of 2 pods enforce it; 1 of 2 pods have an old sidecar; to give them the new one: {rotate}"
    );
    assert_eq!(condition(&status, "Programmed"), told);
    // The same command helps a pod without one.
    index.apply_pod(&pod("c", "{}"));
    let status = rate_limit_status(&index, "all", &reports);
    assert_eq!(status.rotate.as_deref(), Some(rotate));
    assert!(
        condition(&status, "Programmed").starts_with("True PartiallyProgrammed: 1 of 3 pods have no sidecar")
    );
    index.apply_pod(&with_sidecar(pod("b", INJECTED), "2"));
    index.delete_pod("ns", "c");
    let status = rate_limit_status(&index, "all", &reports);
    assert_eq!((status.pods.old_sidecar, status.rotate.as_ref()), (0, None));
    assert_eq!(condition(&status, "Programmed"), "True Programmed: 2 of 2 pods enforce it.");
}

#[test]
fn a_service_that_reaches_a_pod_around_its_sidecar_is_named() {
    let mut index = Index::new();
    index.apply_pod(&pod("a", "{tidegate.dev/injected: 0.1.0, tidegate.dev/guarded-by-name: '8000,8001'}"));
    index.apply_pod(&pod("b", INJECTED));
    index.apply_rate_limit_policy(&rate_limit("all", 1, "{priority: {}}"));
    let reports = [reported(&index, "a", &json!({})), reported(&index, "b", &json!({}))].into();
    let service = |target: &str| {
        from_yaml(&format!(
            "{{metadata: {{name: llama, namespace: ns}}, spec: {{selector: {{app: llama}}, \
             ports: [{{port: 80, targetPort: {target}}}]}}}}"
        ))
    };
    for target in ["http", "9090"] {
        index.apply_service(&service(target));
        let status = rate_limit_status(&index, "all", &reports);
        assert_eq!(condition(&status, "Programmed"), "True Programmed: 2 of 2 pods enforce it.", "{target}");
    }
    index.apply_service(&service("8001"));
    let status = rate_limit_status(&index, "all", &reports);
    let said = condition(&status, "Programmed");
    assert!(said.starts_with("True PartiallyProgrammed: 1 of 2 pods"), "{said}");
    assert!(said.contains("Service llama"), "{said}");
}

#[test]
fn a_sidecar_that_enforces_an_older_document_is_out_of_date() {
    let mut index = Index::new();
    index.apply_pod(&pod("a", INJECTED));
    index.apply_pod(&pod("b", INJECTED));
    index.apply_rate_limit_policy(&rate_limit("all", 1, "{priority: {}}"));
    let stale = PodReport { uid: "uid-a".to_owned(), report: report("older", &json!({})) };
    let reports = [(PodKey::new("ns", "a"), stale), reported(&index, "b", &json!({}))].into();
    let status = rate_limit_status(&index, "all", &reports);
    assert_eq!((status.pods.programmed, status.pods.out_of_date), (1, 1));
    assert_eq!(condition(&status, "Programmed"), "False Reconciling: 1 of 2 sidecars enforce it.");
}

#[test]
fn sidecars_that_say_nothing_are_told_of_with_the_rule_that_may_be_missing() {
    let mut index = Index::new();
    index.set_home(home());
    index.apply_pod(&pod("a", INJECTED));
    index.apply_pod(&pod("b", INJECTED));
    index.apply_rate_limit_policy(&rate_limit("all", 1, "{priority: {}}"));
    let reports = [reported(&index, "b", &json!({}))].into();
    let told = condition(&rate_limit_status(&index, "all", &reports), "Programmed");
    let rule = "egress: [{to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: tidegate-system}}}], \
                ports: [{protocol: TCP, port: 8444}]}]";
    assert!(told.contains("1 have not reported") && told.ends_with(rule), "{told}");
    let reports = [reported(&index, "a", &json!({})), reported(&index, "b", &json!({}))].into();
    let told = condition(&rate_limit_status(&index, "all", &reports), "Programmed");
    assert_eq!(told, "True Programmed: 2 of 2 pods enforce it.");
}

#[test]
fn the_report_of_an_earlier_pod_of_that_name_says_nothing() {
    let mut index = Index::new();
    index.apply_pod(&pod("a", INJECTED));
    index.apply_rate_limit_policy(&rate_limit("all", 1, "{priority: {}}"));
    let (key, mut report) = reported(&index, "a", &json!({}));
    report.uid = "uid-of-another".to_owned();
    let status = rate_limit_status(&index, "all", &[(key, report)].into());
    assert_eq!((status.pods.programmed, status.pods.out_of_date), (0, 1));
}

#[test]
fn a_sidecar_that_refused_its_document_is_named() {
    let mut index = Index::new();
    index.apply_pod(&pod("a", INJECTED));
    index.apply_rate_limit_policy(&rate_limit("all", 1, "{priority: {}}"));
    let wanted = index.document_for("ns", "a").unwrap().revision.clone();
    let refused = json!({"refused": {"revision": wanted, "message": "tiers.qps: no"}});
    let report = PodReport { uid: "uid-a".to_owned(), report: report("older", &refused) };
    let status = rate_limit_status(&index, "all", &[(PodKey::new("ns", "a"), report)].into());
    assert_eq!(
        condition(&status, "Programmed"),
        "False Reconciling: 1 of 1 sidecars refused the policy: tiers.qps: no"
    );
}

#[test]
fn an_invalid_policy_says_why_and_what_stays_in_force() {
    let mut index = Index::new();
    index.apply_rate_limit_policy(&rate_limit("all", 1, "{tiers: {qps: {max: 1}}}"));
    index.apply_rate_limit_policy(&rate_limit("all", 2, "{tiers: {qps: {}}}"));
    let status = rate_limit_status(&index, "all", &Reports::new());
    let accepted = condition(&status, "Accepted");
    assert!(accepted.starts_with("False Invalid: spec.tiers.qps: nothing to trip at: write"), "{accepted}");
    assert!(accepted.ends_with("; generation 1 stays in force"), "{accepted}");
    assert_eq!(status.observed_generation, Some(2));
    index.apply_rate_limit_policy(&rate_limit("new", 1, "{}"));
    let status = rate_limit_status(&index, "new", &Reports::new());
    assert!(condition(&status, "Accepted").ends_with("; nothing of it is in force"));
    assert!(condition(&status, "Programmed").starts_with("False Invalid"));
}

#[test]
fn a_missing_target_is_named_until_it_is_there() {
    let mut index = Index::new();
    index.apply_rate_limit_policy(&rate_limit(
        "llama",
        1,
        "{targetRefs: [{group: apps, kind: Deployment, name: llama}, {kind: Service, name: front}], priority: {}}",
    ));
    let accepted = |index: &Index| condition(&rate_limit_status(index, "llama", &Reports::new()), "Accepted");
    assert_eq!(
        accepted(&index),
        "False TargetNotFound: not found in the namespace: Deployment llama, Service front"
    );
    let metadata = from_yaml("{name: llama, namespace: ns}");
    index.apply_workload(WorkloadKind::Deployment, &metadata);
    assert_eq!(accepted(&index), "True Accepted: not found in the namespace: Service front");
}

#[test]
fn a_target_of_a_kind_that_is_not_installed_names_the_definition_that_is_missing() {
    let mut index = Index::new();
    index.apply_rate_limit_policy(&rate_limit(
        "llama",
        1,
        "{targetRefs: [{group: leaderworkerset.x-k8s.io, kind: LeaderWorkerSet, name: llama}], priority: {}}",
    ));
    let accepted = |index: &Index| condition(&rate_limit_status(index, "llama", &Reports::new()), "Accepted");
    let changes = index.set_unavailable(CustomKind::LeaderWorkerSet, Unavailable::NotInstalled);
    assert_eq!(changes.policies, [key("llama")].into());
    assert_eq!(
        accepted(&index),
        "False TargetNotFound: not found in the namespace: LeaderWorkerSet llama; the CustomResourceDefinition \
         leaderworkersets.leaderworkerset.x-k8s.io is not installed: install it, or name another target"
    );
    index.set_unavailable(CustomKind::LeaderWorkerSet, Unavailable::Forbidden);
    assert!(accepted(&index).contains("the operator may not list leaderworkersets.leaderworkerset.x-k8s.io"));
    let set = "{apiVersion: leaderworkerset.x-k8s.io/v1, kind: LeaderWorkerSet, metadata: {name: llama, namespace: ns}}";
    let changes = index.reset_custom(CustomKind::LeaderWorkerSet, &[from_yaml(set)]);
    assert_eq!(changes.policies, [key("llama")].into());
    assert_eq!(accepted(&index), "True Accepted: The policy is valid.");
}

#[test]
fn an_inference_pool_selects_its_pods_and_is_named_when_it_goes_around_a_sidecar() {
    let mut index = Index::new();
    index.apply_rate_limit_policy(&rate_limit(
        "llama",
        1,
        "{targetRefs: [{group: inference.networking.k8s.io, kind: InferencePool, name: pool}], priority: {default: Low}}",
    ));
    index.apply_pod(&pod("a", "{tidegate.dev/injected: 0.1.0, tidegate.dev/guarded-by-name: '8000'}"));
    let pool: DynamicObject = from_yaml(
        "{apiVersion: inference.networking.k8s.io/v1, kind: InferencePool, metadata: {name: pool, namespace: ns},
          spec: {selector: {matchLabels: {app: llama}}, targetPorts: [{number: 8000}]}}",
    );
    index.apply_custom(CustomKind::InferencePool, &pool);
    let reports = Reports::from([reported(&index, "a", &json!({}))]);
    let status = rate_limit_status(&index, "llama", &reports);
    assert_eq!((status.pods.matched, status.pods.programmed), (1, 1));
    let programmed = condition(&status, "Programmed");
    assert!(
        programmed.contains("around their sidecar, by InferencePool pool: pools reach pods by number"),
        "{programmed}"
    );
    index.delete_custom(CustomKind::InferencePool, "ns", "pool");
    assert_eq!(rate_limit_status(&index, "llama", &reports).pods.matched, 0);
}

#[test]
fn an_engine_on_several_pods_is_rolled_as_a_whole() {
    let mut index = Index::new();
    index.apply_rate_limit_policy(&rate_limit("all", 1, "{priority: {}}"));
    let worker: Pod = from_yaml(
        "metadata:
  name: llama-0-1
  namespace: ns
  uid: u
  labels: {leaderworkerset.sigs.k8s.io/name: llama}
  ownerReferences: [{apiVersion: apps/v1, kind: StatefulSet, name: llama-0, uid: u, controller: true}]",
    );
    index.apply_pod(&worker);
    let rotate = rate_limit_status(&index, "all", &Reports::new()).rotate.unwrap();
    assert!(
        rotate.contains("patch leaderworkersets.leaderworkerset.x-k8s.io llama --type merge"),
        "{rotate}"
    );
    assert!(!rotate.contains("statefulset"), "{rotate}");
}

#[test]
fn the_command_that_rotates_stays_within_the_bound_of_its_field() {
    let mut index = Index::new();
    index.apply_rate_limit_policy(&rate_limit("all", 1, "{priority: {}}"));
    for i in 0..20 {
        let name = format!("{i:0>240}");
        let pod: Pod = from_yaml(&format!(
            "{{metadata: {{name: p{i}, namespace: ns, ownerReferences: [
               {{apiVersion: apps/v1, kind: StatefulSet, name: '{name}', uid: u, controller: true}}]}}}}"
        ));
        index.apply_pod(&pod);
    }
    let rotate = rate_limit_status(&index, "all", &Reports::new()).rotate.unwrap();
    assert!(rotate.len() <= 4096 && rotate.matches("statefulset/").count() > 10, "{}", rotate.len());
}

#[test]
fn a_policy_that_loses_all_of_several_parts_is_in_conflict() {
    let mut index = Index::new();
    index.apply_pod(&pod("a", INJECTED));
    let spec = "identity: {jwt: [{issuer: a, jwks: {uri: 'https://a/b'}}]}, rateLimitHeaders: Always";
    index.apply_rate_limit_policy(&rate_limit("all", 1, &format!("{{{spec}}}")));
    let status = rate_limit_status(&index, "all", &Reports::new());
    assert_eq!(condition(&status, "Accepted"), "True Accepted: The policy is valid.");
    index.apply_rate_limit_policy(&rate_limit("pod", 1, &format!("{{selector: {{}}, {spec}}}")));
    let status = rate_limit_status(&index, "all", &Reports::new());
    assert_eq!(
        condition(&status, "Accepted"),
        "False Conflicted: RateLimitPolicy ns/pod goes before it on 1 pod and decides identity and rateLimitHeaders"
    );
}

#[test]
fn a_policy_that_lost_everywhere_says_to_whom() {
    let mut index = Index::new();
    index.apply_pod(&pod("a", INJECTED));
    index.apply_pod(&pod("b", INJECTED));
    index.apply_rate_limit_policy(&rate_limit("all", 1, "{tiers: {qps: {max: 1}}, priority: {}}"));
    index.apply_rate_limit_policy(&rate_limit(
        "llama",
        1,
        "{selector: {matchLabels: {app: llama}}, tiers: {qps: {max: 2}}}",
    ));
    let status = rate_limit_status(&index, "all", &Reports::new());
    assert_eq!(
        condition(&status, "Accepted"),
        "True Accepted: RateLimitPolicy ns/llama goes before it on 2 pods and decides tiers"
    );
    index.apply_rate_limit_policy(&rate_limit("all", 2, "{tiers: {qps: {max: 1}}}"));
    let status = rate_limit_status(&index, "all", &Reports::new());
    assert_eq!(
        condition(&status, "Accepted"),
        "False Conflicted: RateLimitPolicy ns/llama goes before it on 2 pods and decides tiers"
    );
    assert!(condition(&status, "Programmed").starts_with("False Overridden"));
}

#[test]
fn finished_pods_are_not_counted() {
    let mut index = Index::new();
    let mut finished = pod("a", INJECTED);
    finished.status = Some(from_yaml("phase: Succeeded"));
    index.apply_pod(&finished);
    index.apply_rate_limit_policy(&rate_limit("all", 1, "{priority: {}}"));
    let status = rate_limit_status(&index, "all", &Reports::new());
    assert_eq!(status.pods, PodCounts::default());
    assert_eq!(condition(&status, "Programmed"), "True Programmed: It selects no pod now.");
}

#[test]
fn a_condition_keeps_its_time_while_its_status_stays() {
    let mut index = Index::new();
    let mut policy = rate_limit("all", 1, "{priority: {}}");
    index.apply_rate_limit_policy(&policy);
    let mut written = rate_limit_status(&index, "all", &Reports::new());
    for condition in &mut written.conditions {
        condition.last_transition_time = time(7);
    }
    policy.status = Some(written);
    index.apply_rate_limit_policy(&policy);
    index.apply_pod(&pod("a", INJECTED));
    let times: Vec<_> = rate_limit_status(&index, "all", &Reports::new())
        .conditions
        .into_iter()
        .map(|condition| (condition.type_, condition.status, condition.last_transition_time))
        .collect();
    assert_eq!(
        times,
        [
            ("Accepted".to_owned(), "True".to_owned(), time(7)),
            ("Programmed".to_owned(), "False".to_owned(), time(100)),
        ]
    );
}

#[test]
fn only_another_condition_is_urgent() {
    let mut index = Index::new();
    index.apply_rate_limit_policy(&rate_limit("all", 1, "{priority: {}}"));
    let status = |index: &Index| index.status(&key("all"), &Reports::new(), &time(1)).unwrap();
    let first = status(&index);
    assert!(first.is_urgent_after(None));
    assert!(!first.is_urgent_after(Some(&first)));
    index.apply_pod(&pod("a", INJECTED));
    let second = status(&index);
    assert!(second.is_urgent_after(Some(&first)), "it is reconciling now");
    index.apply_pod(&pod("b", INJECTED));
    let third = status(&index);
    assert_ne!(third, second);
    assert!(!third.is_urgent_after(Some(&second)), "only counts changed");
}

#[test]
fn a_report_that_differs_in_what_is_counted_tells_so() {
    let before = report("a", &json!({"status": {"tiers": [tier("Qps", "ns/all", false)]}}));
    let lives = report(
        "a",
        &json!({"status": {"inFlight": 7, "pressure": 0.5, "tiers": [tier("Qps", "ns/all", false)]}}),
    );
    assert!(counts_the_same(&before, &lives));
    let refused = json!({"revision": "b", "message": "no"});
    for after in [
        report("b", &json!({"status": {"tiers": [tier("Qps", "ns/all", false)]}})),
        report("a", &json!({"status": {"tiers": [tier("Qps", "ns/all", true)]}})),
        report("a", &json!({"status": {"breaker": breaker("ns/b", "Open")}})),
        report("a", &json!({"refused": refused})),
    ] {
        assert!(!counts_the_same(&before, &after), "{after:?}");
    }
}

#[test]
fn open_breakers_are_counted_by_policy() {
    let mut index = Index::new();
    index.apply_pod(&pod("a", INJECTED));
    index.apply_pod(&pod("b", INJECTED));
    let policy: CircuitBreakerPolicy = from_yaml(
        "
apiVersion: tidegate.dev/v1alpha1
kind: CircuitBreakerPolicy
metadata: {name: b, namespace: ns}
spec: {failureThreshold: 5}",
    );
    index.apply_circuit_breaker_policy(&policy);
    let reports = [
        reported(&index, "a", &json!({"status": {"breaker": breaker("ns/b", "Open")}})),
        reported(&index, "b", &json!({"status": {"breaker": breaker("ns/b", "Closed")}})),
    ]
    .into();
    let key = PolicyKey::new(PolicyKind::CircuitBreakerPolicy, "ns", "b");
    let Some(PolicyStatus::CircuitBreaker(status)) = index.status(&key, &reports, &time(1)) else {
        panic!("no status")
    };
    assert_eq!((status.breakers_open, status.pods.programmed), (1, 2));
}

#[test]
fn the_api_server_gets_the_status_without_a_wrapper() {
    let status = PolicyStatus::RateLimit(RateLimitPolicyStatus::default());
    assert_eq!(
        serde_json::to_value(status).unwrap(),
        json!({
            "pods": {"matched": 0, "injected": 0, "programmed": 0, "outOfDate": 0, "uninjected": 0, "oldSidecar": 0},
            "tiersTripped": {"qps": 0, "gpuMemory": 0, "latency": 0, "any": 0},
        })
    );
}

fn notes(notices: &[Notice]) -> Vec<String> {
    notices.iter().map(|n| format!("{:?} {} {}: {}", n.type_, n.reason, n.policy, n.note)).collect()
}

#[test]
fn tiers_and_breakers_give_notice_when_they_trip_and_when_they_recover() {
    let pod = PodKey::new("ns", "a");
    let calm = report(
        "r",
        &json!({"status": {
        "tiers": [tier("Qps", "ns/all", false)], "breaker": breaker("ns/b", "Closed")}}),
    );
    let bad = report(
        "r",
        &json!({"status": {
        "tiers": [tier("Qps", "ns/all", true)], "breaker": breaker("ns/b", "Open")}}),
    );
    let probing = report(
        "r",
        &json!({"status": {
        "tiers": [tier("Qps", "ns/all", true)], "breaker": breaker("ns/b", "HalfOpen")}}),
    );
    let tripped = [
        "Warning TierTripped ns/all: qps tier of pod a tripped: 412 over 400",
        "Warning BreakerOpened ns/b: breaker of pod a opened: 5 failures in a row",
    ];
    assert_eq!(notes(&after_report(&pod, Some(&calm), &bad)), tripped);
    assert_eq!(notes(&after_report(&pod, None, &bad)), tripped);
    assert_eq!(notes(&after_report(&pod, Some(&bad), &probing)), Vec::<String>::new());
    assert_eq!(notes(&after_report(&pod, None, &calm)), Vec::<String>::new());
    assert_eq!(
        notes(&after_report(&pod, Some(&probing), &calm)),
        [
            "Normal TierRecovered ns/all: qps tier of pod a recovered",
            "Normal BreakerClosed ns/b: breaker of pod a closed",
        ]
    );
}

#[test]
fn a_refused_policy_gives_notice_once() {
    let mut index = Index::new();
    let status = |index: &Index| index.status(&key("all"), &Reports::new(), &time(1)).unwrap();
    index.apply_rate_limit_policy(&rate_limit("all", 1, "{priority: {}}"));
    let good = status(&index);
    assert_eq!(after_status(&key("all"), None, &good), None);
    index.apply_rate_limit_policy(&rate_limit("all", 2, "{}"));
    let bad = status(&index);
    let notice = after_status(&key("all"), Some(&good), &bad).unwrap();
    assert_eq!((notice.type_, notice.reason), (NoticeType::Warning, "PolicyRefused"));
    assert!(notice.note.starts_with("spec: the policy limits nothing"), "{}", notice.note);
    assert_eq!(after_status(&key("all"), Some(&bad), &bad), None);
    let recovered = after_status(&key("all"), Some(&bad), &good).unwrap();
    assert_eq!((recovered.type_, recovered.reason), (NoticeType::Normal, "PolicyAccepted"));
}
