use serde::de::DeserializeOwned;
use tidegate_policy::Limit;

use super::*;
use crate::compile;
use crate::key::PolicyKind;

fn parse<T: DeserializeOwned>(kind: &str, name: &str, spec: &str) -> T {
    let yaml = format!(
        "apiVersion: tidegate.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}, namespace: ns}}\nspec: {spec}"
    );
    serde_saphyr::from_str(&yaml).unwrap()
}

fn rate_limit(name: &str, spec: &str) -> CompiledPolicy {
    compile::rate_limit(&parse("RateLimitPolicy", name, spec)).unwrap()
}

fn breaker(name: &str, spec: &str) -> CompiledPolicy {
    compile::circuit_breaker(&parse("CircuitBreakerPolicy", name, spec)).unwrap()
}

fn candidate(policy: &CompiledPolicy, specificity: Specificity, created: i64) -> Candidate<'_> {
    Candidate { policy, specificity, created: Some(Timestamp::from_second(created).unwrap()) }
}

fn key(name: &str) -> PolicyKey {
    PolicyKey::new(PolicyKind::RateLimitPolicy, "ns", name)
}

fn limits(count: usize) -> String {
    let limits: Vec<_> = (0..count)
        .map(|i| format!("{{name: l{i}, key: [{{header: h{i}}}], limit: 1, window: 1s}}"))
        .collect();
    format!("{{limits: [{}]}}", limits.join(","))
}

#[test]
fn without_policies_everything_passes() {
    assert_eq!(merge(vec![]), Merged { document: PolicyDocument::default(), losses: vec![] });
}

#[test]
fn the_more_specific_policy_decides_whatever_its_age() {
    let all = Specificity::Namespace;
    let by_specificity = [all, Specificity::Service, Specificity::Workload, Specificity::Pod];
    for (i, loser) in by_specificity.into_iter().enumerate() {
        for winner in by_specificity.into_iter().skip(i + 1) {
            let old = rate_limit("old", "{tiers: {qps: {max: 1}}}");
            let young = rate_limit("young", "{tiers: {qps: {max: 2}}}");
            let merged = merge(vec![candidate(&old, loser, 1), candidate(&young, winner, 2)]);
            assert_eq!(merged.document.tiers, young.parts.tiers);
            let loss = Loss { policy: key("old"), part: Part::Tiers, winner: key("young") };
            assert_eq!(merged.losses, [loss], "{winner:?} against {loser:?}");
        }
    }
}

#[test]
fn of_equals_the_oldest_decides_and_then_the_name() {
    let a = rate_limit("a", "{priority: {default: Low}}");
    let b = rate_limit("b", "{priority: {default: High}}");
    let winner = |a_created, b_created| {
        let b = candidate(&b, Specificity::Workload, b_created);
        merge(vec![b, candidate(&a, Specificity::Workload, a_created)]).losses[0].winner.name.clone()
    };
    assert_eq!(winner(1, 2), "a");
    assert_eq!(winner(2, 1), "b");
    assert_eq!(winner(1, 1), "a");
}

#[test]
fn each_part_is_decided_on_its_own_and_limits_add_up() {
    let pod = rate_limit("pod", "{priority: {default: Low}, limits: [{name: x, limit: 1, window: 1s}]}");
    let all = rate_limit(
        "all",
        "{tiers: {qps: {max: 1}}, priority: {}, limits: [{name: x, limit: 2, window: 1s}]}",
    );
    let breaker = breaker("breaker", "{failureThreshold: 5}");
    let merged = merge(vec![
        candidate(&all, Specificity::Namespace, 1),
        candidate(&breaker, Specificity::Namespace, 1),
        candidate(&pod, Specificity::Pod, 2),
    ]);
    let expected: Vec<Limit> = [&pod, &all].iter().flat_map(|policy| policy.parts.limits.clone()).collect();
    assert_eq!(
        merged.document,
        PolicyDocument {
            revision: merged.document.revision.clone(),
            tiers: all.parts.tiers.clone(),
            priority: pod.parts.priority.clone().unwrap(),
            limits: expected,
            breaker: breaker.parts.breaker.clone(),
            ..PolicyDocument::default()
        }
    );
    assert_eq!(merged.losses, [Loss { policy: key("all"), part: Part::Priority, winner: key("pod") }]);
}

#[test]
fn limits_that_no_longer_fit_are_left_out_as_a_whole() {
    let policies = [
        rate_limit("a", &limits(32)),
        rate_limit("b", &limits(30)),
        rate_limit("c", &limits(3)),
        rate_limit("d", &limits(2)),
    ];
    let merged = merge(policies.iter().map(|policy| candidate(policy, Specificity::Pod, 1)).collect());
    let by_policy = |name: &str| merged.document.limits.iter().filter(|l| l.policy == name).count();
    assert_eq!(["ns/a", "ns/b", "ns/c", "ns/d"].map(by_policy), [32, 30, 0, 2]);
    assert_eq!(merged.losses, [Loss { policy: key("c"), part: Part::Limits, winner: key("b") }]);
    assert_eq!(merged.document.validate(), Ok(()));
}

#[test]
fn a_revision_names_the_content_and_nothing_else() {
    let revision = |spec: &str, created| {
        let policy = rate_limit("a", spec);
        merge(vec![candidate(&policy, Specificity::Pod, created)]).document.revision
    };
    assert_eq!(revision("{tiers: {qps: {max: 1}}}", 1), revision("{tiers: {qps: {max: '1.0'}}}", 2));
    assert_ne!(revision("{tiers: {qps: {max: 1}}}", 1), revision("{tiers: {qps: {max: 2}}}", 1));
    assert_eq!(revision("{tiers: {qps: {max: 1}}}", 1).len(), 16);
}

#[test]
fn a_merged_document_is_read_back_as_it_was() {
    let policy = rate_limit("a", "{tiers: {qps: {max: 1}, latency: {learned: {}}}, priority: {}}");
    let breaker = breaker("b", "{failureThreshold: 1, fallbackEndpoint: /f}");
    let merged =
        merge(vec![candidate(&policy, Specificity::Pod, 1), candidate(&breaker, Specificity::Namespace, 1)]);
    let json = serde_json::to_vec(&merged.document).unwrap();
    assert_eq!(PolicyDocument::from_json(&json), Ok(merged.document));
}
