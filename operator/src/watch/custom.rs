//! Kinds that a cluster has only where somebody has installed them: looked for, watched once they are there, and told
//! to be unavailable while they are not.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kube::api::{ApiResource, DynamicObject};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use tidegate_operator_core::key::{CustomKind, Unavailable};
use tokio::task::{AbortHandle, JoinSet};

use super::pump;
use crate::brief::brief;
use crate::world::World;

/// Between two looks: a kind that was installed is watched after this time at most.
const INTERVAL: Duration = Duration::from_secs(10);

/// Looks for the kinds for as long as it runs, and follows those that are there.
pub(super) async fn discover(client: Client, world: Arc<World>) {
    let mut followed = Followed::new(client, world);
    loop {
        // What the API server cannot tell now stays as it was.
        if let Err(error) = followed.look().await {
            tracing::warn!(error = brief(&error), "the kinds of the cluster could not be listed");
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

struct Followed {
    client: Client,
    world: Arc<World>,
    tasks: JoinSet<()>,
    by_kind: BTreeMap<CustomKind, (ApiResource, AbortHandle)>,
}

impl Followed {
    fn new(client: Client, world: Arc<World>) -> Self {
        Self { client, world, tasks: JoinSet::new(), by_kind: BTreeMap::new() }
    }

    async fn look(&mut self) -> kube::Result<()> {
        let groups = self.client.list_api_groups().await?.groups;
        for kind in CustomKind::ALL {
            let group = groups.iter().find(|group| group.name == kind.group());
            let version =
                group.and_then(|group| group.preferred_version.as_ref().or_else(|| group.versions.first()));
            let resource = match version {
                Some(version) => self.resource(kind, &version.group_version).await?,
                None => None,
            };
            match resource {
                Some(resource) => self.follow(kind, resource),
                None => self.leave(kind),
            }
        }
        while self.tasks.try_join_next().is_some() {}
        Ok(())
    }

    /// The group of a kind may be there without it.
    async fn resource(&self, kind: CustomKind, group_version: &str) -> kube::Result<Option<ApiResource>> {
        let resources = self.client.list_api_group_resources(group_version).await?.resources;
        // Subresources have the kind of their parent and a slash in their name.
        let found = resources.into_iter().find(|one| one.kind == kind.as_str() && !one.name.contains('/'));
        let version = group_version.rsplit('/').next().unwrap_or_default();
        Ok(found.map(|found| ApiResource {
            group: kind.group().to_owned(),
            version: version.to_owned(),
            api_version: group_version.to_owned(),
            kind: found.kind,
            plural: found.name,
        }))
    }

    fn follow(&mut self, kind: CustomKind, resource: ApiResource) {
        if let Some((known, task)) = self.by_kind.get(&kind) {
            if *known == resource {
                return;
            }
            task.abort();
        }
        tracing::info!(definition = kind.definition(), version = resource.version, "watching");
        let task =
            self.tasks.spawn(watch(kind, resource.clone(), self.client.clone(), Arc::clone(&self.world)));
        self.by_kind.insert(kind, (resource, task));
    }

    fn leave(&mut self, kind: CustomKind) {
        if let Some((_, task)) = self.by_kind.remove(&kind) {
            task.abort();
            tracing::info!(definition = kind.definition(), "no longer installed");
        }
        self.world.set_unavailable(kind, Unavailable::NotInstalled);
    }
}

async fn watch(kind: CustomKind, resource: ApiResource, client: Client, world: Arc<World>) {
    let api = Api::<DynamicObject>::all_with(client, &resource);
    let stream = watcher(api, watcher::Config::default()).modify(move |object| strip(kind, object));
    let feed = |feed| world.feed_custom(kind, feed);
    let failed = |error: &watcher::Error| {
        tracing::warn!(kind = kind.definition(), error = brief(error), "watch interrupted");
        // Nobody waits for a kind that a ClusterRole keeps from the operator.
        if is_forbidden(error) {
            world.set_unavailable(kind, Unavailable::Forbidden);
        }
    };
    pump(stream.default_backoff(), feed, failed).await;
}

/// Of an engine on several pods only the name matters, and its templates are large.
fn strip(kind: CustomKind, object: &mut DynamicObject) {
    object.managed_fields_mut().clear();
    object.annotations_mut().clear();
    if kind == CustomKind::LeaderWorkerSet {
        object.data.take();
    }
}

fn is_forbidden(error: &watcher::Error) -> bool {
    let (watcher::Error::InitialListFailed(cause) | watcher::Error::WatchStartFailed(cause)) = error else {
        return false;
    };
    matches!(cause, kube::Error::Api(status) if status.code == 403)
}

#[cfg(test)]
mod tests;
