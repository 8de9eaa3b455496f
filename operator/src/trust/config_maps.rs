//! The `ConfigMap` that sidecars mount. Written by the leader, in namespaces that ask for injection and in those
//! where a sidecar runs. It stays when the operator goes: running sidecars still need it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use tidegate_operator_core::inject::{CA_CONFIG_MAP, CA_CONFIG_MAP_KEY};
use tokio::sync::watch;

use crate::brief::brief;
use crate::certificates::Trust;
use crate::retry::Retry;
use crate::world::World;

/// How soon one that somebody changed or deleted is right again. The operator has no right to watch `ConfigMap`s.
const REWRITE: Duration = Duration::from_mins(5);

/// Writes the bundle wherever it belongs.
pub(crate) struct ConfigMaps {
    client: Client,
    places: watch::Receiver<BTreeSet<String>>,
    trust: watch::Receiver<Option<Trust>>,
    /// The bundle that each namespace was given.
    written: BTreeMap<String, Arc<str>>,
}

impl ConfigMaps {
    pub(crate) fn new(client: Client, world: &World, trust: watch::Receiver<Option<Trust>>) -> Self {
        Self { client, places: world.places(), trust, written: BTreeMap::new() }
    }

    /// Runs until nobody could tell it anything any more.
    pub(crate) async fn run(mut self, mut leads: watch::Receiver<bool>) {
        let mut retry = Retry::default();
        loop {
            if leads.wait_for(|leads| *leads).await.is_err() {
                return;
            }
            let complete = self.pass().await;
            let wait = if complete {
                retry.reset();
                REWRITE
            } else {
                retry.next()
            };
            tokio::select! {
                changed = self.places.changed() => if changed.is_err() { return },
                changed = self.trust.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(wait) => if complete { self.written.clear() },
            }
        }
    }

    /// Returns whether every namespace has the bundle.
    pub(super) async fn pass(&mut self) -> bool {
        let Some(bundle) = self.trust.borrow_and_update().as_ref().map(|trust| Arc::clone(&trust.bundle))
        else {
            return true;
        };
        let places = self.places.borrow_and_update().clone();
        self.written.retain(|namespace, _| places.contains(namespace));
        let mut complete = true;
        for namespace in places {
            if self.written.get(&namespace) == Some(&bundle) {
                continue;
            }
            if self.write(&namespace, &bundle).await {
                self.written.insert(namespace, Arc::clone(&bundle));
            } else {
                complete = false;
            }
        }
        complete
    }

    async fn write(&self, namespace: &str, bundle: &str) -> bool {
        let object = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": CA_CONFIG_MAP, "labels": {"app.kubernetes.io/managed-by": "tidegate-operator"}},
            "data": {CA_CONFIG_MAP_KEY: bundle},
        });
        let api = Api::<ConfigMap>::namespaced(self.client.clone(), namespace);
        let params = PatchParams::apply("tidegate-operator").force();
        match api.patch(CA_CONFIG_MAP, &params, &Patch::Apply(object)).await {
            Ok(_) => true,
            // A namespace that is being deleted takes nothing new and needs nothing.
            Err(kube::Error::Api(status)) if status.code == 404 || is_terminating(&status) => true,
            Err(error) => {
                tracing::warn!(namespace, error = brief(&error), "the CA bundle could not be written");
                false
            }
        }
    }
}

fn is_terminating(status: &kube::core::Status) -> bool {
    status.code == 403 && status.message.contains("being terminated")
}
