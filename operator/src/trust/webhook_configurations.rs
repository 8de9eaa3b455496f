//! The `caBundle` of our own webhook configurations, put right whenever the bundle rotates or somebody changes it
//! (a `helm upgrade` does).

use std::fmt::Debug;
use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration, WebhookClientConfig,
};
use kube::api::{Patch, PatchParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::sync::watch;

use crate::brief::brief;
use crate::certificates::Trust;
use crate::retry::Retry;

/// Either kind of webhook configuration.
pub(crate) trait Configuration {
    /// Name and client of each webhook.
    fn clients(&self) -> Vec<(&str, &WebhookClientConfig)>;
}

impl Configuration for MutatingWebhookConfiguration {
    fn clients(&self) -> Vec<(&str, &WebhookClientConfig)> {
        self.webhooks.iter().flatten().map(|hook| (hook.name.as_str(), &hook.client_config)).collect()
    }
}

impl Configuration for ValidatingWebhookConfiguration {
    fn clients(&self) -> Vec<(&str, &WebhookClientConfig)> {
        self.webhooks.iter().flatten().map(|hook| (hook.name.as_str(), &hook.client_config)).collect()
    }
}

/// Watches the configuration with this name and keeps its bundle right, until nobody could tell of a new one.
pub(crate) async fn keep_ca_bundle<K>(client: Client, name: String, mut trust: watch::Receiver<Option<Trust>>)
where
    K: Configuration + Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let api = Api::<K>::all(client);
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut stream = Box::pin(watcher(api.clone(), config).default_backoff());
    let mut held: Option<K> = None;
    let mut retry = Retry::default();
    loop {
        let bundle = trust.borrow_and_update().as_ref().map(|trust| Arc::clone(&trust.bundle));
        let right = match (&held, bundle) {
            (Some(held), Some(bundle)) => put_right(&api, held, &bundle).await,
            _ => true,
        };
        if right {
            retry.reset();
        }
        tokio::select! {
            event = stream.next() => match event {
                Some(Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object))) => held = Some(object),
                Some(Ok(watcher::Event::Delete(_))) => held = None,
                Some(Ok(watcher::Event::Init | watcher::Event::InitDone)) => {}
                Some(Err(error)) => tracing::warn!(configuration = name, error = brief(&error), "watch interrupted"),
                None => return,
            },
            changed = trust.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(retry.next()), if !right => {}
        }
    }
}

/// Returns whether the configuration has the bundle, as far as is known.
pub(super) async fn put_right<K>(api: &Api<K>, held: &K, bundle: &str) -> bool
where
    K: Configuration + Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let wanted = ByteString(bundle.as_bytes().to_vec());
    let wrong: Vec<_> = held
        .clients()
        .into_iter()
        .filter(|(_, client)| client.ca_bundle.as_ref() != Some(&wanted))
        .map(|(name, _)| json!({"name": name, "clientConfig": {"caBundle": wanted}}))
        .collect();
    if wrong.is_empty() {
        return true;
    }
    // Webhooks are merged by their name; nothing else of them is touched.
    let patch = Patch::Strategic(json!({"webhooks": wrong}));
    match api.patch(&held.name_any(), &PatchParams::default(), &patch).await {
        Ok(_) => {
            tracing::info!(configuration = held.name_any(), kind = %K::kind(&()), "caBundle written");
            true
        }
        Err(error) => {
            tracing::warn!(
                configuration = held.name_any(),
                error = brief(&error),
                "caBundle could not be written"
            );
            false
        }
    }
}
