//! What tests of several modules do with a world.

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{LimitRange, Namespace, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::core::PartialObjectMeta;
use serde_json::json;
use tidegate_crds::{CircuitBreakerPolicy, RateLimitPolicy};
use tidegate_operator_core::key::{CustomKind, Unavailable};

use super::{Feed, World};

/// Lists every kind: the labelled namespace `inference`, and nothing else.
pub(crate) fn sync_everything(world: &World) {
    let namespace =
        json!({"metadata": {"name": "inference", "labels": {"tidegate.dev/injection": "enabled"}}});
    let namespace: Namespace = serde_json::from_value(namespace).unwrap();
    world.feed(Feed::Reset(vec![namespace]));
    world.feed(Feed::<Pod>::Reset(Vec::new()));
    world.feed(Feed::<Service>::Reset(Vec::new()));
    world.feed(Feed::<LimitRange>::Reset(Vec::new()));
    world.feed(Feed::<EndpointSlice>::Reset(Vec::new()));
    world.feed(Feed::<RateLimitPolicy>::Reset(Vec::new()));
    world.feed(Feed::<CircuitBreakerPolicy>::Reset(Vec::new()));
    world.feed(Feed::<PartialObjectMeta<Deployment>>::Reset(Vec::new()));
    world.feed(Feed::<PartialObjectMeta<StatefulSet>>::Reset(Vec::new()));
    world.feed(Feed::<PartialObjectMeta<ReplicaSet>>::Reset(Vec::new()));
    world.feed(Feed::<PartialObjectMeta<DaemonSet>>::Reset(Vec::new()));
    world.feed(Feed::<PartialObjectMeta<Job>>::Reset(Vec::new()));
    world.feed(Feed::<PartialObjectMeta<CronJob>>::Reset(Vec::new()));
    for kind in CustomKind::ALL {
        world.set_unavailable(kind, Unavailable::NotInstalled);
    }
}
