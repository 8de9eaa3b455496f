use serde_json::{Value, json};
use tidegate_crds::RateLimitPolicy;
use tidegate_operator_core::key::{PolicyKey, PolicyKind};

use super::*;
use crate::fake_api::FakeApi;
use crate::world::{Feed, testing};

const GROUP: &str = "inference.networking.k8s.io";
const POOLS: &str = "/apis/inference.networking.k8s.io/v1/inferencepools";

fn groups(api: &FakeApi, names: &[&str]) {
    let group = |name: &&str| {
        let version = json!({"groupVersion": format!("{name}/v1"), "version": "v1"});
        json!({"name": name, "versions": [version], "preferredVersion": version})
    };
    api.put("/apis", json!({"kind": "APIGroupList", "groups": names.iter().map(group).collect::<Vec<_>>()}));
}

fn resources(api: &FakeApi, kinds: &[(&str, &str)]) {
    let resource = |(name, kind): &(&str, &str)| json!({"name": name, "singularName": "", "namespaced": true, "kind": kind, "verbs": ["list"]});
    let resources: Vec<Value> = kinds.iter().map(resource).collect();
    let list =
        json!({"kind": "APIResourceList", "groupVersion": format!("{GROUP}/v1"), "resources": resources});
    api.put(&format!("/apis/{GROUP}/v1"), list);
}

fn pool() -> Value {
    json!({
        "apiVersion": format!("{GROUP}/v1"), "kind": "InferencePool",
        "metadata": {"name": "llama", "namespace": "inference"},
        "spec": {"selector": {"matchLabels": {"app": "llama"}}, "targetPorts": [{"number": 8000}]},
    })
}

fn world() -> Arc<World> {
    let world = Arc::new(World::default());
    testing::sync_everything(&world);
    let policy: RateLimitPolicy = serde_json::from_value(json!({
        "apiVersion": "tidegate.dev/v1alpha1", "kind": "RateLimitPolicy",
        "metadata": {"name": "pool", "namespace": "inference"},
        "spec": {"targetRefs": [{"group": GROUP, "kind": "InferencePool", "name": "llama"}], "priority": {}},
    }))
    .unwrap();
    world.feed(Feed::Apply(policy));
    world
}

/// The reason and the message of `Accepted`.
fn accepted(world: &World) -> (String, String) {
    let policy = PolicyKey::new(PolicyKind::RateLimitPolicy, "inference", "pool");
    let time = serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
    let status = world.status(&policy, &time).unwrap();
    (status.conditions()[0].reason.clone(), status.conditions()[0].message.clone())
}

/// Waits until `Accepted` has this reason and its message these words.
async fn until(world: &World, reason: &str, words: &str) {
    let wait = async {
        loop {
            let woken = world.status_due.notified();
            let found = accepted(world);
            if found.0 == reason && found.1.contains(words) {
                return;
            }
            woken.await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_mins(1), wait).await;
    assert!(waited.is_ok(), "{:?} instead of {reason}: {words}", accepted(world));
}

#[tokio::test]
async fn a_kind_is_watched_once_it_is_installed_and_missed_once_it_is_gone() {
    let (api, world) = (FakeApi::default(), world());
    let mut followed = Followed::new(api.client(), Arc::clone(&world));
    groups(&api, &["apps"]);
    followed.look().await.unwrap();
    let definition = "inferencepools.inference.networking.k8s.io is not installed";
    until(&world, "TargetNotFound", definition).await;

    // The group alone is not enough.
    groups(&api, &["apps", GROUP]);
    resources(&api, &[("inferencepools/status", "InferencePool")]);
    followed.look().await.unwrap();
    until(&world, "TargetNotFound", definition).await;

    resources(&api, &[("inferencepools", "InferencePool")]);
    api.put(POOLS, json!({"metadata": {"resourceVersion": "1"}, "items": []}));
    followed.look().await.unwrap();
    until(&world, "TargetNotFound", "not found in the namespace: InferencePool llama").await;
    api.remove(POOLS);
    groups(&api, &["apps"]);
    followed.look().await.unwrap();
    until(&world, "TargetNotFound", definition).await;

    groups(&api, &["apps", GROUP]);
    api.put(POOLS, json!({"metadata": {"resourceVersion": "1"}, "items": [pool()]}));
    followed.look().await.unwrap();
    until(&world, "Accepted", "valid").await;
}

#[tokio::test]
async fn an_api_server_that_cannot_tell_changes_nothing() {
    let (api, world) = (FakeApi::default(), world());
    let mut followed = Followed::new(api.client(), Arc::clone(&world));
    groups(&api, &[GROUP]);
    resources(&api, &[("inferencepools", "InferencePool")]);
    api.put(POOLS, json!({"metadata": {"resourceVersion": "1"}, "items": [pool()]}));
    followed.look().await.unwrap();
    until(&world, "Accepted", "valid").await;
    api.fail(Some(http::StatusCode::SERVICE_UNAVAILABLE));
    followed.look().await.unwrap_err();
    assert_eq!(accepted(&world).0, "Accepted");
}

#[tokio::test]
async fn a_kind_that_may_not_be_listed_is_waited_for_by_nobody() {
    let (api, world) = (FakeApi::default(), Arc::new(World::default()));
    api.fail(Some(http::StatusCode::FORBIDDEN));
    let kind = CustomKind::InferencePool;
    let resource = ApiResource {
        group: GROUP.to_owned(),
        version: "v1".to_owned(),
        api_version: format!("{GROUP}/v1"),
        kind: "InferencePool".to_owned(),
        plural: "inferencepools".to_owned(),
    };
    assert!(world.unsynced().contains(&kind.definition()));
    let task = tokio::spawn(watch(kind, resource, api.client(), Arc::clone(&world)));
    let synced = async {
        while world.unsynced().contains(&kind.definition()) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), synced).await.unwrap();
    task.abort();
}
