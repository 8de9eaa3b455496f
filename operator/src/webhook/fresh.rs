//! A second look before a pod stays without a sidecar: `kubectl apply` of a policy and its Deployment can be faster
//! than a watch, and a pod that slips through would stay unprotected for its whole life.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Namespace, Service};
use kube::api::ListParams;
use kube::{Api, Client};
use tidegate_crds::{CircuitBreakerPolicy, RateLimitPolicy};
use tidegate_operator_core::inject::NamespaceFacts;
use tokio::sync::Semaphore;

use crate::brief::brief;
use crate::world::{Feed, Watched, World, facts};

/// What the webhook's own timeout leaves for it.
const PATIENCE: Duration = Duration::from_millis(1500);
/// A look serves every pod that asks within this time: a thousand pods of one Job are one look.
const VALID: Duration = Duration::from_millis(250);

/// Looks at the same time. The webhook answers whoever reaches it, and must not be a way to flood the API server.
const AT_ONCE: usize = 8;

/// Asks the API server itself.
#[derive(Clone)]
pub(super) struct Fresh {
    client: Client,
    world: Arc<World>,
    looked: Arc<Mutex<HashMap<String, Instant>>>,
    permits: Arc<Semaphore>,
}

impl Fresh {
    pub(super) fn new(client: Client, world: Arc<World>) -> Self {
        Self { client, world, looked: Arc::default(), permits: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// Takes in the policies and Services of a namespace as they are now. Fails open: what cannot be read in time
    /// is left to the watches.
    pub(super) async fn look(&self, namespace: &str) {
        if self.looked_lately(namespace) {
            return;
        }
        let all = async {
            let _permit = self.permits.acquire().await;
            tokio::join!(
                self.take::<RateLimitPolicy>(namespace),
                self.take::<CircuitBreakerPolicy>(namespace),
                self.take::<Service>(namespace),
            )
        };
        if tokio::time::timeout(PATIENCE, all).await.is_err() {
            tracing::warn!(namespace, "the API server took too long to list policies for an admission");
        }
    }

    /// The namespace, when the watch has not brought it yet.
    pub(super) async fn namespace(&self, name: &str) -> NamespaceFacts {
        let api = Api::<Namespace>::all(self.client.clone());
        let read = async {
            let _permit = self.permits.acquire().await;
            api.get(name).await
        };
        match tokio::time::timeout(PATIENCE, read).await {
            Ok(Ok(namespace)) => facts(&namespace),
            Ok(Err(error)) => {
                tracing::warn!(
                    namespace = name,
                    error = brief(&error),
                    "the namespace of a pod could not be read"
                );
                NamespaceFacts::default()
            }
            Err(_) => NamespaceFacts::default(),
        }
    }

    fn looked_lately(&self, namespace: &str) -> bool {
        let now = Instant::now();
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        looked.retain(|_, at| now.saturating_duration_since(*at) < VALID);
        looked.insert(namespace.to_owned(), now).is_some()
    }

    async fn take<K>(&self, namespace: &str)
    where
        K: Watched + kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
        K: Clone + serde::de::DeserializeOwned + std::fmt::Debug,
    {
        let api = Api::<K>::namespaced(self.client.clone(), namespace);
        match api.list(&ListParams::default()).await {
            Ok(list) => {
                for mut object in list.items {
                    object.strip();
                    self.world.feed(Feed::Apply(object));
                }
            }
            Err(error) => {
                tracing::warn!(kind = K::SOURCE, namespace, error = brief(&error), "could not be listed");
            }
        }
    }
}
