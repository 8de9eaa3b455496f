//! Watches of the API server, pumped into the world.

mod custom;

use std::fmt::Debug;
use std::sync::Arc;

use futures::{Stream, StreamExt};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{LimitRange, Namespace, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::core::PartialObjectMeta;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tidegate_crds::{CircuitBreakerPolicy, RateLimitPolicy};
use tokio::task::JoinSet;

use crate::brief::brief;
use crate::world::{Feed, Watched, World};

/// Objects of a page of a list. Of each the whole is read before what nobody needs is dropped, and a pod has 10 to 50 KiB.
const PAGE: u32 = 100;

/// Watches every kind, for as long as the set is not dropped. A watch that fails is begun again with backoff;
/// meanwhile what is known stays in force.
pub(crate) fn follow_all(client: &Client, world: &Arc<World>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    follow::<Namespace>(client, world, &mut tasks);
    follow::<Pod>(client, world, &mut tasks);
    follow::<Service>(client, world, &mut tasks);
    follow::<LimitRange>(client, world, &mut tasks);
    follow::<EndpointSlice>(client, world, &mut tasks);
    follow::<RateLimitPolicy>(client, world, &mut tasks);
    follow::<CircuitBreakerPolicy>(client, world, &mut tasks);
    follow::<PartialObjectMeta<Deployment>>(client, world, &mut tasks);
    follow::<PartialObjectMeta<StatefulSet>>(client, world, &mut tasks);
    follow::<PartialObjectMeta<ReplicaSet>>(client, world, &mut tasks);
    follow::<PartialObjectMeta<DaemonSet>>(client, world, &mut tasks);
    follow::<PartialObjectMeta<Job>>(client, world, &mut tasks);
    follow::<PartialObjectMeta<CronJob>>(client, world, &mut tasks);
    tasks.spawn(custom::discover(client.clone(), Arc::clone(world)));
    tasks
}

fn follow<K>(client: &Client, world: &Arc<World>, tasks: &mut JoinSet<()>)
where
    K: Watched + Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let stream = watcher(Api::<K>::all(client.clone()), watcher::Config::default().page_size(PAGE));
    let world = Arc::clone(world);
    let feed = move |feed| world.feed(feed);
    let failed = |error: &watcher::Error| {
        tracing::warn!(kind = K::SOURCE, error = brief(error), "watch interrupted");
    };
    tasks.spawn(pump(stream.modify(Watched::strip).default_backoff(), feed, failed));
}

/// Turns a list that begins anew into one reset, so that what was deleted meanwhile goes too.
async fn pump<K>(
    stream: impl Stream<Item = watcher::Result<watcher::Event<K>>>,
    mut feed: impl FnMut(Feed<K>),
    mut failed: impl FnMut(&watcher::Error),
) {
    let mut stream = std::pin::pin!(stream);
    let mut listed = Vec::new();
    while let Some(event) = stream.next().await {
        match event {
            Ok(watcher::Event::Init) => listed.clear(),
            Ok(watcher::Event::InitApply(object)) => listed.push(object),
            Ok(watcher::Event::InitDone) => feed(Feed::Reset(std::mem::take(&mut listed))),
            Ok(watcher::Event::Apply(object)) => feed(Feed::Apply(object)),
            Ok(watcher::Event::Delete(object)) => feed(Feed::Delete(object)),
            Err(error) => failed(&error),
        }
    }
}
