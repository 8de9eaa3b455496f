use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;
use tidegate_operator_core::key::PodKey;
use tidegate_policy::report::Report;

use super::*;
use crate::events::{self, Publisher};
use crate::fake_api::FakeApi;
use crate::world::Feed;
use crate::world::testing::sync_everything;

const PATH: &str = "/apis/tidegate.dev/v1alpha1/namespaces/inference/ratelimitpolicies/llama";
const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/inference/events";

struct Bench {
    api: FakeApi,
    world: Arc<World>,
    writer: StatusWriter,
    publisher: Publisher,
    start: Instant,
}

/// A writer that is warm, with one policy and one injected pod that has not reported.
fn bench() -> Bench {
    let api = FakeApi::default();
    let (world, metrics) = (Arc::new(World::default()), Metrics::default());
    let (events, publisher) = events::channel(api.client(), "r", Arc::clone(&world), metrics.clone());
    let start = Instant::now();
    let mut writer = StatusWriter::new(api.client(), Arc::clone(&world), events, metrics, start);
    writer.warm_at = start;
    sync_everything(&world);
    world.feed(Feed::Apply(policy(1, "600", None)));
    world.feed(Feed::Apply(pod("a", true)));
    Bench { api, world, writer, publisher, start }
}

fn policy(generation: i64, limit: &str, status: Option<&Value>) -> RateLimitPolicy {
    serde_json::from_value(json!({
        "metadata": {"namespace": "inference", "name": "llama", "generation": generation, "uid": "p"},
        "spec": {
            "selector": {"matchLabels": {"app": "llama"}},
            "limits": [{"name": "all", "key": [{"header": "x-api-key"}], "algorithm": "TokenBucket", "limit": limit.parse::<u64>().unwrap(), "window": "1m"}],
        },
        "status": status,
    }))
    .unwrap()
}

fn pod(name: &str, injected: bool) -> Pod {
    let annotations = if injected { json!({"tidegate.dev/injected": "0.1.0"}) } else { json!({}) };
    serde_json::from_value(json!({
        "metadata": {"namespace": "inference", "name": name, "uid": name, "labels": {"app": "llama"}, "annotations": annotations},
        "status": {"phase": "Running"},
    }))
    .unwrap()
}

fn report(revision: &str, shedding: bool) -> Report {
    serde_json::from_value(json!({
        "version": "0.1.0", "revision": revision,
        "status": {
            "revision": revision, "pressure": 0.0, "inFlight": 0, "limits": [],
            "tiers": [{
                "tier": "Qps", "policy": "inference/llama", "mode": "Enforce", "unit": "requests/s", "pressure": 0.0,
                "state": if shedding { "Tripped" } else { "Normal" }, "shedding": shedding,
            }],
        },
    }))
    .unwrap()
}

impl Bench {
    async fn pass_at(&mut self, seconds: u64) -> Vec<String> {
        self.api.take_calls();
        self.writer.pass(self.start + Duration::from_secs(seconds)).await;
        self.api.take_calls()
    }

    fn status(&self) -> Value {
        self.api.get(PATH).unwrap()["status"].clone()
    }

    fn report(&self, shedding: bool) {
        let pod = PodKey::new("inference", "a");
        let mut subscription = self.world.subscribe(&pod, "a".to_owned());
        let revision = subscription.view().unwrap().document.revision.clone();
        self.world.report(&pod, "a", report(&revision, shedding)).unwrap();
    }

    fn condition(&self, type_: &str) -> String {
        let conditions = self.status()["conditions"].clone();
        let found = conditions.as_array().unwrap().iter().find(|c| c["type"] == type_).cloned().unwrap();
        found["status"].as_str().unwrap().to_owned()
    }
}

#[tokio::test]
async fn radio_silence_while_nothing_changes() {
    let mut bench = bench();
    assert_eq!(bench.pass_at(0).await, [format!("PATCH {PATH}/status")]);
    for second in 1..30 {
        bench.world.feed(Feed::Apply(pod("a", true)));
        assert_eq!(bench.pass_at(second).await, [""; 0]);
    }
}

#[tokio::test]
async fn a_report_that_only_tells_that_its_pod_lives_is_looked_at_by_nobody() {
    let bench = bench();
    bench.report(false);
    assert_eq!(bench.world.take_dirty().len(), 1);
    bench.report(false);
    assert_eq!(bench.world.take_dirty().len(), 0);
    bench.report(true);
    assert_eq!(bench.world.take_dirty().len(), 1);
}

#[tokio::test]
async fn radio_silence_before_everything_is_listed() {
    let mut bench = bench();
    bench.world = Arc::new(World::default());
    bench.writer.world = Arc::clone(&bench.world);
    bench.world.feed(Feed::Apply(policy(1, "600", None)));
    assert_eq!(bench.pass_at(60).await, [""; 0]);
}

#[tokio::test]
async fn radio_silence_when_the_object_says_so_already() {
    let mut first = bench();
    first.pass_at(0).await;
    let mut second = bench();
    second.world.feed(Feed::Apply(policy(1, "600", Some(&first.status()))));
    assert_eq!(second.pass_at(0).await, [""; 0], "a new leader has nothing to say");
}

#[tokio::test]
async fn a_condition_changes_at_once_and_counts_wait_for_their_turn() {
    let mut bench = bench();
    bench.pass_at(0).await;
    assert_eq!(bench.condition("Programmed"), "False");
    bench.report(false);
    assert_eq!(bench.pass_at(1).await.len(), 1);
    assert_eq!(bench.condition("Programmed"), "True");
    bench.report(true);
    assert_eq!(bench.pass_at(3).await, [""; 0], "the count of tripped tiers is no condition");
    assert_eq!(bench.pass_at(6).await.len(), 1);
    assert_eq!(bench.status()["tiersTripped"]["qps"], 1);
}

#[tokio::test]
async fn a_write_that_failed_is_tried_again_and_not_in_a_loop() {
    let mut bench = bench();
    bench.api.fail(Some(http::StatusCode::INTERNAL_SERVER_ERROR));
    assert_eq!(bench.pass_at(0).await.len(), 1);
    assert_eq!(bench.pass_at(1).await, [""; 0]);
    assert!(bench.writer.next_wake(bench.start) >= RETRY);
    bench.api.fail(None);
    assert_eq!(bench.pass_at(2).await.len(), 1);
}

#[tokio::test]
async fn a_policy_that_is_gone_is_not_written() {
    let mut bench = bench();
    bench.world.feed(Feed::Delete(policy(1, "600", None)));
    assert_eq!(bench.pass_at(0).await, [""; 0]);
    assert!(bench.writer.pending.is_empty());
}

#[tokio::test]
async fn a_restart_does_not_count_sidecars_as_lost_that_have_not_reported_yet() {
    let mut before = bench();
    before.report(false);
    before.pass_at(0).await;
    let mut after = bench();
    after.writer.warm_at = after.start + WARM_UP;
    after.world.feed(Feed::Apply(policy(1, "600", Some(&before.status()))));
    assert_eq!(after.pass_at(4).await, [""; 0]);
    after.world.feed(Feed::Apply(pod("late", false)));
    assert_eq!(after.pass_at(5).await, [""; 0]);
    after.world.feed(Feed::Apply(policy(2, "700", Some(&before.status()))));
    assert_eq!(after.pass_at(6).await.len(), 1, "a new generation does not wait");
    after.report(false);
    assert_eq!(after.pass_at(7).await.len(), 1, "nor does what this leader wrote itself");
}

#[tokio::test]
async fn a_restart_tells_of_pods_without_a_sidecar_as_soon_as_the_others_have_reported() {
    let mut before = bench();
    before.report(false);
    before.pass_at(0).await;
    let mut after = bench();
    after.writer.warm_at = after.start + WARM_UP;
    after.world.feed(Feed::Apply(policy(1, "600", Some(&before.status()))));
    after.world.feed(Feed::Apply(pod("late", false)));
    after.report(false);
    assert_eq!(after.pass_at(1).await.len(), 1);
    assert_eq!(after.status()["pods"]["uninjected"], 1);
}

#[tokio::test]
async fn a_silent_sidecar_counts_as_out_of_date() {
    let mut bench = bench();
    bench.report(false);
    bench.pass_at(0).await;
    assert_eq!(bench.status()["pods"]["programmed"], 1);
    bench.world.expire_reports(Instant::now() + Duration::from_secs(40));
    bench.pass_at(6).await;
    assert_eq!(
        (&bench.status()["pods"]["programmed"], &bench.status()["pods"]["outOfDate"]),
        (&json!(0), &json!(1))
    );
}

#[tokio::test]
async fn pods_without_a_sidecar_are_told_once_by_an_event() {
    let mut bench = bench();
    bench.world.feed(Feed::Apply(pod("late", false)));
    bench.pass_at(0).await;
    assert_eq!(bench.status()["pods"]["uninjected"], 1);
    bench.world.feed(Feed::Apply(pod("later", false)));
    bench.pass_at(6).await;
    assert_eq!(bench.status()["pods"]["uninjected"], 2);
    let Bench { api, writer, publisher, .. } = bench;
    drop(writer);
    publisher.run().await;
    let published = api.paths(EVENTS);
    assert_eq!(published.len(), 1, "{published:?}");
    let event = api.get(&published[0]).unwrap();
    assert_eq!(
        (&event["reason"], &event["regarding"]["name"]),
        (&json!("PodsWithoutSidecar"), &json!("llama"))
    );
}
