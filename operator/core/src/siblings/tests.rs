use serde_json::json;
use tidegate_crds::RateLimitPolicy;

use super::*;
use crate::status::PodReport;

const LEARNED: &str = "{learned: {}}";

fn policy(name: &str, qps: &str) -> RateLimitPolicy {
    serde_saphyr::from_str(&format!(
        "
apiVersion: tidegate.dev/v1alpha1
kind: RateLimitPolicy
metadata: {{name: {name}, namespace: ns}}
spec: {{tiers: {{qps: {qps}}}}}"
    ))
    .unwrap()
}

/// A pod of a `ReplicaSet` of a Deployment.
fn pod(name: &str, deployment: &str, hash: &str) -> Pod {
    serde_saphyr::from_str(&format!(
        "
metadata:
  name: {name}
  namespace: ns
  uid: uid-{name}
  labels: {{pod-template-hash: {hash}}}
  ownerReferences:
  - {{apiVersion: apps/v1, kind: ReplicaSet, name: {deployment}-{hash}, uid: u, controller: true}}"
    ))
    .unwrap()
}

fn report(pod: &str, policy: &str, baseline: Option<f64>) -> (PodKey, PodReport) {
    let tier = json!({
        "tier": "Qps", "policy": policy, "mode": "Enforce", "state": "Normal", "shedding": false,
        "unit": "requests/s", "pressure": 0.0, "baseline": baseline,
    });
    let report = json!({
        "version": "0.1.0", "revision": "r",
        "status": {"revision": "r", "pressure": 0.0, "inFlight": 0, "tiers": [tier], "limits": []},
    });
    let report = PodReport { uid: format!("uid-{pod}"), report: serde_json::from_value(report).unwrap() };
    (PodKey::new("ns", pod), report)
}

/// The seed of a new pod of the Deployment llama.
fn seed(index: &Index, reports: &Reports) -> Option<f64> {
    let new = pod("new", "llama", "hash-of-tomorrow");
    let mut document = PolicyDocument::clone(&index.document_for_new_pod("ns", &new).unwrap());
    let revision = document.revision.clone();
    index.seed("ns", &new, reports, &mut document);
    document.validate().unwrap();
    assert_eq!(document.revision, revision);
    document.tiers?.qps?.learned?.seed.map(Rate::get)
}

fn index(policy: &RateLimitPolicy) -> Index {
    let mut index = Index::new();
    index.apply_rate_limit_policy(policy);
    for (name, hash) in [("a", "old"), ("b", "old"), ("c", "new"), ("d", "new")] {
        index.apply_pod(&pod(name, "llama", hash));
    }
    index.apply_pod(&pod("other", "mistral", "old"));
    index
}

#[test]
fn a_new_pod_is_given_the_median_of_what_its_siblings_have_learned() {
    let index = index(&policy("all", LEARNED));
    let theirs = |pod, baseline| report(pod, "ns/all", Some(baseline));
    // Of either ReplicaSet; one pod that serves a storm is not what is normal.
    let reports = [theirs("a", 40.0), theirs("b", 44.0), theirs("c", 900.0), report("d", "ns/all", None)];
    assert_eq!(seed(&index, &reports.into()), Some(44.0));
    assert_eq!(seed(&index, &[theirs("a", 40.0), theirs("b", 44.0)].into()), Some(40.0));
}

#[test]
fn nobody_else_s_average_is_a_seed() {
    let learned = index(&policy("all", LEARNED));
    let other_workload = report("other", "ns/all", Some(40.0));
    let other_policy = report("a", "ns/before", Some(40.0));
    let (key, earlier) = report("b", "ns/all", Some(40.0));
    let earlier = PodReport { uid: "uid-of-another".to_owned(), ..earlier };
    let idle = report("c", "ns/all", Some(0.0));
    for reports in [[other_workload].into(), [other_policy].into(), [(key, earlier)].into(), [idle].into()] {
        assert_eq!(seed(&learned, &reports), None, "{reports:?}");
    }
    let given = index(&policy("all", "{max: 30}"));
    assert_eq!(seed(&given, &[report("a", "ns/all", Some(40.0))].into()), None);
}
