//! What holds whatever the order of events: the same objects give the same documents and the same statuses.

use std::sync::LazyLock;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::core::DynamicObject;
use proptest::prelude::*;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::*;
use crate::status::{PodReport, PolicyStatus, Reports};

/// One watch event.
#[derive(Debug, Clone)]
enum Event {
    Namespace(Box<Namespace>),
    Pod(Box<Pod>),
    Service(Box<Service>),
    Workload(WorkloadKind, Box<ObjectMeta>),
    Custom(CustomKind, Box<DynamicObject>),
    Unavailable(CustomKind),
    RateLimit(Box<RateLimitPolicy>),
    Breaker(Box<CircuitBreakerPolicy>),
}

impl Event {
    fn apply(&self, index: &mut Index) {
        match self {
            Self::Namespace(namespace) => index.apply_namespace(namespace),
            Self::Pod(pod) => index.apply_pod(pod),
            Self::Service(service) => index.apply_service(service),
            Self::Workload(kind, metadata) => index.apply_workload(*kind, metadata),
            Self::Custom(kind, object) => index.apply_custom(*kind, object),
            Self::Unavailable(kind) => index.set_unavailable(*kind, Unavailable::NotInstalled),
            Self::RateLimit(policy) => index.apply_rate_limit_policy(policy),
            Self::Breaker(policy) => index.apply_circuit_breaker_policy(policy),
        };
    }

    /// The object goes.
    fn undo(&self, index: &mut Index) {
        match self {
            Self::Namespace(_) => index.delete_namespace("ns"),
            Self::Pod(pod) => index.delete_pod("ns", &pod.name_any()),
            Self::Service(service) => index.delete_service("ns", &service.name_any()),
            Self::Workload(kind, metadata) => {
                index.delete_workload(*kind, "ns", metadata.name.as_deref().unwrap_or_default())
            }
            Self::Custom(kind, object) => index.delete_custom(*kind, "ns", &object.name_any()),
            Self::Unavailable(kind) => index.reset_custom(*kind, &[]),
            Self::RateLimit(policy) => index.delete_rate_limit_policy("ns", &policy.name_any()),
            Self::Breaker(policy) => index.delete_circuit_breaker_policy("ns", &policy.name_any()),
        };
    }
}

fn object<T: DeserializeOwned>(yaml: &str) -> T {
    serde_saphyr::from_str(yaml).unwrap_or_else(|error| panic!("{error}\n{yaml}"))
}

fn metadata(name: &str) -> ObjectMeta {
    object(&format!("{{name: {name}, namespace: ns}}"))
}

fn pool(spec: &str) -> DynamicObject {
    object(&format!(
        "{{apiVersion: inference.networking.k8s.io/v1, kind: InferencePool, metadata: {{name: pool, namespace: ns}}, spec: {spec}}}"
    ))
}

fn limits(name: &str, created: u8, spec: &str) -> Event {
    Event::RateLimit(Box::new(object(&format!(
        "
apiVersion: tidegate.dev/v1alpha1
kind: RateLimitPolicy
metadata: {{name: {name}, namespace: ns, generation: {created}, creationTimestamp: '2026-01-{created:02}T00:00:00Z'}}
spec: {{{spec}}}"
    ))))
}

fn breaks(name: &str, spec: &str) -> Event {
    Event::Breaker(Box::new(object(&format!(
        "
apiVersion: tidegate.dev/v1alpha1
kind: CircuitBreakerPolicy
metadata: {{name: {name}, namespace: ns}}
spec: {{{spec}}}"
    ))))
}

fn pod(name: &str, labels: &str, owner: &str, injected: bool) -> Event {
    let annotations =
        if injected { "{tidegate.dev/injected: '1', tidegate.dev/guarded-by-name: '8000'}" } else { "{}" };
    Event::Pod(Box::new(object(&format!(
        "
metadata:
  name: {name}
  namespace: ns
  uid: uid-{name}
  labels: {{pod-template-hash: abc, {labels}}}
  annotations: {annotations}
  ownerReferences: [{{{owner}, uid: u, controller: true}}]"
    ))))
}

const DEPLOYMENT: &str = "targetRefs: [{group: apps, kind: Deployment, name: llama}]";
const REPLICA_SET: &str = "apiVersion: apps/v1, kind: ReplicaSet, name: llama-abc";
const STATEFUL_SET: &str = "apiVersion: apps/v1, kind: StatefulSet, name: group-0";
const JOB: &str = "apiVersion: batch/v1, kind: Job, name: nightly-29385720";

fn policies() -> Vec<Event> {
    let pool = "group: inference.networking.k8s.io, kind: InferencePool";
    let old = "group: inference.networking.x-k8s.io, kind: InferencePool";
    vec![
        limits("all", 3, "tiers: {qps: {max: 1}}, priority: {}"),
        limits("svc", 2, "targetRefs: [{kind: Service, name: front}], tiers: {qps: {max: 2}}"),
        limits(
            "dep",
            2,
            &format!("{DEPLOYMENT}, tiers: {{qps: {{max: 3}}}}, queue: {{maxLength: 4, timeout: 1s}}"),
        ),
        limits("old", 1, &format!("{DEPLOYMENT}, limits: [{{name: a, limit: 1, window: 1s}}]")),
        limits(
            "same",
            1,
            &format!("{DEPLOYMENT}, concurrency: {{}}, limits: [{{name: a, limit: 2, window: 1s}}]"),
        ),
        limits(
            "sel",
            5,
            "selector: {matchLabels: {zone: a}}, priority: {default: Low}, rateLimitHeaders: Always",
        ),
        limits(
            "pool",
            4,
            &format!(
                "targetRefs: [{{{pool}, name: pool}}, {{{pool}, name: none}}], tiers: {{qps: {{max: 4}}}}"
            ),
        ),
        limits("alpha", 4, &format!("targetRefs: [{{{old}, name: pool}}], priority: {{default: High}}")),
        limits(
            "lws",
            6,
            "targetRefs: [{group: leaderworkerset.x-k8s.io, kind: LeaderWorkerSet, name: group}], identity: {jwt: [{issuer: a, jwks: {uri: 'https://a/b'}}]}",
        ),
        limits(
            "cron",
            6,
            "targetRefs: [{group: batch, kind: CronJob, name: nightly}], rateLimitHeaders: Never",
        ),
        limits("wrong", 7, "tiers: {qps: {max: 1, learned: {sigma: '99999999'}}}"),
        breaks("b", "targetService: front, failureThreshold: 5"),
        breaks("c", "trip: {errorRatio: {}}"),
    ]
}

fn world() -> Vec<Event> {
    let mut events = policies();
    events.extend([
        Event::Namespace(Box::new(object("metadata: {name: ns, labels: {tidegate.dev/injection: enabled}}"))),
        Event::Service(Box::new(object("{metadata: {name: front, namespace: ns}, spec: {selector: {app: llama}}}"))),
        Event::Service(Box::new(object(
            "{metadata: {name: numbered, namespace: ns}, spec: {selector: {zone: a}, ports: [{port: 8000}]}}",
        ))),
        Event::Workload(WorkloadKind::Deployment, Box::new(metadata("llama"))),
        Event::Workload(WorkloadKind::CronJob, Box::new(metadata("nightly"))),
        Event::Custom(
            CustomKind::LeaderWorkerSet,
            Box::new(object("{apiVersion: leaderworkerset.x-k8s.io/v1, kind: LeaderWorkerSet, metadata: {name: group, namespace: ns}}")),
        ),
        Event::Custom(
            CustomKind::InferencePool,
            Box::new(pool("{selector: {matchLabels: {app: llama}}, targetPorts: [{number: 8000}]}")),
        ),
        Event::Unavailable(CustomKind::ExperimentalInferencePool),
    ]);
    for i in 0..6 {
        let labels = ["app: llama", "app: other, zone: a", "app: llama, zone: a"][i % 3];
        let owner = [REPLICA_SET, REPLICA_SET, STATEFUL_SET, JOB][i % 4];
        let labels = format!("{labels}, leaderworkerset.sigs.k8s.io/name: group");
        events.push(pod(&format!("p{i}"), &labels, owner, i % 2 == 0));
    }
    events
}

/// Parsed once: most of the time of the law below would go there.
static WORLD: LazyLock<Vec<Event>> = LazyLock::new(world);

type Seen = (Vec<Option<Arc<PolicyDocument>>>, Vec<(PolicyKey, Option<PolicyStatus>)>);

/// Every document and every status.
fn seen(index: &Index) -> Seen {
    let names = (0..6).map(|i| format!("p{i}"));
    let documents: Vec<_> = names.map(|name| index.document_for("ns", &name)).collect();
    let reports: Reports =
        documents.iter().enumerate().filter_map(|(i, document)| report(i, document.as_ref()?)).collect();
    let now = Time(Timestamp::UNIX_EPOCH);
    let statuses = index.policies().map(|key| (key.clone(), index.status(&key, &reports, &now))).collect();
    (documents, statuses)
}

/// Half of the sidecars enforce their document, one an older one.
fn report(i: usize, document: &PolicyDocument) -> Option<(PodKey, PodReport)> {
    let revision: &str = if i == 4 { "older" } else { &document.revision };
    let report: Value = json!({
        "version": "0.1.0",
        "revision": revision,
        "status": {"revision": revision, "pressure": 0.0, "inFlight": 0, "tiers": [], "limits": []},
    });
    let name = format!("p{i}");
    let report = PodReport { uid: format!("uid-{name}"), report: serde_json::from_value(report).unwrap() };
    i.is_multiple_of(2).then(|| (PodKey::new("ns", name), report))
}

#[test]
fn the_world_of_the_law_has_every_verdict() {
    let mut index = Index::new();
    WORLD.iter().for_each(|event| event.apply(&mut index));
    let statuses = seen(&index).1;
    let conditions = statuses.iter().flat_map(|(_, status)| status.as_ref().unwrap().conditions());
    let reasons: BTreeSet<&str> = conditions.map(|condition| condition.reason.as_str()).collect();
    let expected =
        ["Accepted", "Conflicted", "Invalid", "PartiallyProgrammed", "Reconciling", "TargetNotFound"];
    assert!(expected.iter().all(|reason| reasons.contains(reason)), "{reasons:?}");
}

proptest! {
    #[test]
    fn the_order_of_events_never_matters(
        events in Just(WORLD.clone()).prop_shuffle(),
        repeated in proptest::collection::vec((0..WORLD.len(), any::<bool>()), 0..8),
    ) {
        let mut expected = Index::new();
        WORLD.iter().for_each(|event| event.apply(&mut expected));
        let mut index = Index::new();
        for event in &events {
            event.apply(&mut index);
        }
        for (i, goes_first) in repeated {
            if goes_first {
                events[i].undo(&mut index);
            }
            events[i].apply(&mut index);
        }
        prop_assert_eq!(seen(&index), seen(&expected));
    }
}
