use std::sync::Arc;

use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use kube::Api;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::webhook_configurations::put_right;
use super::*;
use crate::certificates::Trust;
use crate::fake_api::FakeApi;
use crate::world::World;
use crate::world::testing::sync_everything;

const MAP: &str = "/api/v1/namespaces/inference/configmaps/tidegate-ca";

fn configuration(bundle: Option<&str>) -> MutatingWebhookConfiguration {
    let hook = |name: &str, bundle: Option<&str>| json!({"name": name, "clientConfig": {"caBundle": bundle}, "sideEffects": "None", "admissionReviewVersions": ["v1"]});
    let webhooks = [hook("a", bundle), hook("b", Some("UEVN"))];
    serde_json::from_value(json!({"metadata": {"name": "tidegate"}, "webhooks": webhooks})).unwrap()
}

#[tokio::test]
async fn a_ca_bundle_that_somebody_changed_is_put_right_and_no_other_webhook_is_touched() {
    let api = FakeApi::default();
    let configurations = Api::<MutatingWebhookConfiguration>::all(api.client());
    for wrong in [None, Some("T0xE")] {
        assert!(put_right(&configurations, &configuration(wrong), "PEM").await);
        let path = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/tidegate";
        let written = api.get(path).unwrap()["webhooks"].clone();
        assert_eq!(written, json!([{"name": "a", "clientConfig": {"caBundle": "UEVN"}}]));
    }
}

#[tokio::test]
async fn radio_silence_while_the_ca_bundle_is_right() {
    let api = FakeApi::default();
    let configurations = Api::<MutatingWebhookConfiguration>::all(api.client());
    assert!(put_right(&configurations, &configuration(Some("UEVN")), "PEM").await);
    assert_eq!(api.take_calls(), [""; 0]);
}

#[tokio::test]
async fn each_place_gets_the_bundle_once_and_again_when_it_rotates() {
    let api = FakeApi::default();
    let world = World::default();
    sync_everything(&world);
    let (sender, trust) = watch::channel(None);
    let mut maps = ConfigMaps::new(api.client(), &world, trust);
    assert!(maps.pass().await, "nothing to write yet");
    assert_eq!(api.take_calls(), [""; 0]);
    for bundle in ["first", "second"] {
        sender.send_replace(Some(Trust { bundle: Arc::from(bundle) }));
        assert!(maps.pass().await);
        assert_eq!(api.get(MAP).unwrap()["data"], json!({"ca.crt": bundle}));
        api.take_calls();
        assert!(maps.pass().await);
        assert_eq!(api.take_calls(), [""; 0], "radio silence");
    }
}

#[tokio::test]
async fn a_namespace_that_runs_a_sidecar_gets_the_bundle_without_a_label() {
    let api = FakeApi::default();
    let world = World::default();
    sync_everything(&world);
    let pod: Value = json!({"metadata": {"namespace": "other", "name": "p", "uid": "u", "annotations": {"tidegate.dev/injected": "0.1.0"}}});
    let pod: k8s_openapi::api::core::v1::Pod = serde_json::from_value(pod).unwrap();
    world.feed(crate::world::Feed::Apply(pod));
    let (_sender, trust) = watch::channel(Some(Trust { bundle: Arc::from("PEM") }));
    assert!(ConfigMaps::new(api.client(), &world, trust).pass().await);
    assert!(api.get("/api/v1/namespaces/other/configmaps/tidegate-ca").is_some());
}

#[tokio::test]
async fn a_namespace_that_refuses_is_tried_again() {
    let api = FakeApi::default();
    let world = World::default();
    sync_everything(&world);
    let (_sender, trust) = watch::channel(Some(Trust { bundle: Arc::from("PEM") }));
    let mut maps = ConfigMaps::new(api.client(), &world, trust);
    api.fail(Some(http::StatusCode::FORBIDDEN));
    assert!(!maps.pass().await);
    api.fail(None);
    assert!(maps.pass().await);
    assert!(api.get(MAP).is_some());
}
