//! The index at the size that is promised: a policy change is at its pods in well under a second.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use tidegate_crds::RateLimitPolicy;
use tidegate_operator_core::index::Index;

const SHARDS: usize = 100;

#[allow(clippy::expect_used)] // a fixture of the test below
fn pod(i: usize) -> Pod {
    let shard = i % SHARDS;
    serde_saphyr::from_str(&format!(
        "metadata: {{name: p{i}, namespace: ns, uid: u{i}, labels: {{app: llama, shard: s{shard}}}}}"
    ))
    .expect("the fixture is valid")
}

#[allow(clippy::expect_used)] // a fixture of the test below
fn policy(i: usize, max: usize) -> RateLimitPolicy {
    let shard = i % SHARDS;
    serde_saphyr::from_str(&format!(
        "
apiVersion: tidegate.dev/v1alpha1
kind: RateLimitPolicy
metadata: {{name: r{i:03}, namespace: ns}}
spec: {{selector: {{matchLabels: {{shard: s{shard}}}}}, tiers: {{qps: {{max: {max}}}}}}}"
    ))
    .expect("the fixture is valid")
}

/// The bound is some hundred times what an unoptimised build takes on an idle machine, so that only a change of
/// complexity breaks it.
#[test]
fn a_thousand_pods_under_two_hundred_policies_are_reindexed_in_well_under_a_second() {
    let mut index = Index::new();
    index.reset_pods(&(0..1000).map(pod).collect::<Vec<_>>());
    index.reset_rate_limit_policies(&(0..200).map(|i| policy(i, i + 1)).collect::<Vec<_>>());
    // A machine that does something else for a second says nothing about the index: one of several times is enough.
    let soon = (0..5).find_map(|number| {
        let tightened = policy(7, 1000 + number);
        let started = Instant::now();
        let changes = index.apply_rate_limit_policy(&tightened);
        let took = started.elapsed();
        assert_eq!(changes.pods.len(), 1000 / SHARDS, "only the pods of the policy's shard");
        println!("reindexed in {took:?}");
        (took < Duration::from_secs(1)).then_some(())
    });
    assert!(soon.is_some(), "never within a second");
}
