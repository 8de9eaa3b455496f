//! Which devices a pod has, from a list of the kubelet that is never older than two seconds while the kubelet answers.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tidegate_gpu::{Allocated, Allocations, PodName};

use crate::metrics::Metrics;
use crate::pod_resources::{Client, chain};

/// How long a list is good for.
const FRESH: Duration = Duration::from_secs(2);
/// How long an answer waits for the kubelet.
const PATIENCE: Duration = Duration::from_secs(1);

/// The kubelet of this node.
#[derive(Debug)]
pub(crate) struct Kubelet {
    socket: PathBuf,
    client: Client,
    newest: Mutex<Option<List>>,
    /// Held by the one who asks, so that many answers wait for one list.
    asking: tokio::sync::Mutex<()>,
    /// How long a list is good for.
    fresh: Duration,
    /// How long an answer waits for the kubelet.
    patience: Duration,
    metrics: Arc<Metrics>,
}

#[derive(Debug, Clone)]
struct List {
    asked: Instant,
    allocations: Arc<Allocations>,
}

/// Why a pod's devices are not known.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Trouble {
    /// The kubelet answers, and does not know the pod.
    #[error("the kubelet of this node lists no pod {namespace}/{name}")]
    NotListed {
        /// The pod's namespace.
        namespace: String,
        /// The pod's name.
        name: String,
    },
    /// The kubelet does not answer.
    #[error("the kubelet does not list its pods at {0}")]
    Silent(String),
}

impl Kubelet {
    /// The kubelet behind a pod-resources socket.
    pub(crate) fn new(socket: &Path, metrics: Arc<Metrics>) -> Self {
        Self {
            socket: socket.to_owned(),
            client: Client::new(socket),
            newest: Mutex::new(None),
            asking: tokio::sync::Mutex::new(()),
            fresh: FRESH,
            patience: PATIENCE,
            metrics,
        }
    }

    /// Number of pods with a device in the newest list.
    pub(crate) fn pods_with_devices(&self) -> usize {
        self.newest().map_or(0, |list| list.allocations.pods_with_devices())
    }

    /// The devices of a pod, after at most [`PATIENCE`].
    ///
    /// A pod keeps its devices as long as it lives, so while the kubelet is silent the last list still answers for
    /// the pods that it names (fail-open: their tier goes on); for others there is no answer rather than an empty one.
    pub(crate) async fn devices_of(&self, pod: &PodName) -> Result<Vec<Allocated>, Trouble> {
        let asked = Instant::now();
        let up_to_date = self.bring_up_to_date(pod, asked);
        let up_to_date = tokio::time::timeout(self.patience, up_to_date).await.unwrap_or_else(|_| {
            self.metrics.kubelet_list(false);
            Err(format!("{}: no answer within {} s", self.socket.display(), self.patience.as_secs()))
        });
        if let Some(devices) = self.listed(pod) {
            return Ok(devices);
        }
        up_to_date.map_err(Trouble::Silent)?;
        Err(Trouble::NotListed { namespace: pod.namespace.clone(), name: pod.name.clone() })
    }

    /// Makes sure that the list is fresh, or for a pod that it does not name, younger than the question.
    async fn bring_up_to_date(&self, pod: &PodName, asked: Instant) -> Result<(), String> {
        if self.is_good_for(pod, asked) {
            return Ok(());
        }
        let _asking = self.asking.lock().await;
        if self.is_good_for(pod, asked) {
            return Ok(());
        }
        let started = Instant::now();
        let entries = self.client.list().await.map_err(|status| {
            self.metrics.kubelet_list(false);
            format!("{}: {}", self.socket.display(), chain(&status))
        })?;
        self.metrics.kubelet_list(true);
        let allocations = Arc::new(Allocations::from_entries(&entries));
        *self.newest.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(List { asked: started, allocations });
        Ok(())
    }

    fn is_good_for(&self, pod: &PodName, asked: Instant) -> bool {
        self.newest().is_some_and(|list| {
            let names_it = list.allocations.of(pod).is_some();
            list.asked >= asked || (names_it && asked.saturating_duration_since(list.asked) <= self.fresh)
        })
    }

    fn listed(&self, pod: &PodName) -> Option<Vec<Allocated>> {
        self.newest()?.allocations.of(pod).map(<[Allocated]>::to_vec)
    }

    fn newest(&self) -> Option<List> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests;
