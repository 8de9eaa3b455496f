//! What the watches have told, and who waits for what follows from it.
//!
//! ```text
//! watch::follow ──Feed──▶ State (index, namespaces, endpoints) ──▶ subscribers: one view per connected pod
//!                                                              ──▶ dirty policies: status writer
//! stream ──Report──▶ reports ──▶ dirty namespaces: status writer
//! ```
//!
//! Locks are held for a computation and never across an await.

mod endpoints;
mod ranges;
mod reports;
mod state;
mod subscribers;
mod workloads;

#[cfg(test)]
pub(crate) mod testing;

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Instant;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::core::DynamicObject;
use tidegate_operator_core::index::Home;
use tidegate_operator_core::inject::NamespaceFacts;
use tidegate_operator_core::key::{CustomKind, PodKey, PolicyKey, Unavailable};
use tidegate_operator_core::service::ServiceFacts;
use tidegate_operator_core::status::{PolicyStatus, counts_the_same};
use tidegate_policy::PolicyDocument;
use tidegate_policy::report::Report;
use tokio::sync::{Notify, watch};

use crate::forward::Forwarded;

pub(crate) use reports::Received;
pub(crate) use state::{Feed, PolicyObject, Watched, facts};
pub(crate) use subscribers::{Subscription, View};

use reports::Ledger;
use state::{State, Touched};
use subscribers::Subscribers;

/// Shared by everything that runs.
#[derive(Debug, Default)]
pub(crate) struct World {
    state: RwLock<State>,
    subscribers: Subscribers,
    ledger: Mutex<Ledger>,
    dirty: Mutex<Dirty>,
    /// Woken when something is dirty.
    pub(crate) status_due: Notify,
    /// Changes when another namespace may need the CA bundle.
    places: watch::Sender<BTreeSet<String>>,
}

#[derive(Debug, Default)]
struct Dirty {
    policies: BTreeSet<PolicyKey>,
    namespaces: BTreeSet<String>,
}

impl World {
    /// Of the operator that sidecars reach here.
    pub(crate) fn at(home: Home) -> Self {
        let world = Self::default();
        world.state.write().unwrap_or_else(PoisonError::into_inner).index.set_home(home);
        world
    }
}

/// Watch events.
impl World {
    /// Takes an event of a watch in, and tells everybody whom it concerns.
    pub(crate) fn feed<K: Watched>(&self, feed: Feed<K>) {
        self.edit(|state| state.take(feed));
    }

    /// Takes an event of a watch in of a kind that not every cluster has.
    pub(crate) fn feed_custom(&self, kind: CustomKind, feed: Feed<DynamicObject>) {
        self.edit(|state| state.take_custom(kind, feed));
    }

    /// Objects of this kind cannot be known; nobody waits for them.
    pub(crate) fn set_unavailable(&self, kind: CustomKind, why: Unavailable) {
        self.edit(|state| state.set_unavailable(kind, why));
    }

    fn edit(&self, edit: impl FnOnce(&mut State) -> Touched) {
        let seen = Instant::now();
        let (touched, synced, places) = {
            let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
            let before = state.is_synced();
            let touched = edit(&mut state);
            let places = touched.places.then(|| state.places());
            (touched, !before && state.is_synced(), places)
        };
        if let Some(places) = places {
            self.places.send_if_modified(|held| std::mem::replace(held, places) != *held);
        }
        self.react(touched, synced, seen);
    }

    fn react(&self, touched: Touched, just_synced: bool, seen: Instant) {
        let Touched { changes, pods, .. } = touched;
        if just_synced {
            self.subscribers.publish_all(&self.state, seen);
        } else {
            self.subscribers.publish(&self.state, changes.pods.iter().chain(&pods), seen);
        }
        let gone: Vec<&PodKey> = {
            let state = self.read();
            changes.pods.iter().filter(|pod| state.uid_of(pod).is_none()).collect()
        };
        if !gone.is_empty() {
            self.ledger().forget(&gone);
        }
        let mut dirty = self.dirty();
        dirty.policies.extend(changes.policies);
        if just_synced {
            dirty.policies.extend(self.read().index.policies());
        }
        if !dirty.policies.is_empty() {
            self.status_due.notify_one();
        }
    }

    /// Whether every kind has been listed: before that, an answer could be wrong.
    pub(crate) fn is_synced(&self) -> bool {
        self.read().is_synced()
    }

    /// The kinds that have not been listed.
    pub(crate) fn unsynced(&self) -> Vec<&'static str> {
        self.read().unsynced()
    }

    /// Namespaces that need the CA bundle.
    pub(crate) fn places(&self) -> watch::Receiver<BTreeSet<String>> {
        self.places.subscribe()
    }
}

/// Questions of the webhook.
impl World {
    pub(crate) fn namespace(&self, name: &str) -> Option<NamespaceFacts> {
        self.read().namespace(name)
    }

    /// The document of a pod that is being created, with what its siblings have learned; `None` when no policy
    /// selects it.
    pub(crate) fn document_for_new_pod(&self, namespace: &str, pod: &Pod) -> Option<PolicyDocument> {
        let document = self.read().index.document_for_new_pod(namespace, pod)?;
        let mut document = PolicyDocument::clone(&document);
        let qps = document.tiers.as_ref().and_then(|tiers| tiers.qps.as_ref());
        if qps.is_some_and(|qps| qps.learned.is_some()) {
            // Only now: whoever computes a status holds it for long. It is taken before the state everywhere.
            let ledger = self.ledger();
            self.read().index.seed(namespace, pod, ledger.reports(), &mut document);
        }
        Some(document)
    }

    /// The Services that will lead to a pod that is being created.
    pub(crate) fn services_of_new_pod(&self, namespace: &str, pod: &Pod) -> Vec<ServiceFacts> {
        self.read().index.services_of_new_pod(namespace, pod)
    }
}

/// Questions of the stream.
impl World {
    /// What the pod with this uid obeys, now and whenever it changes.
    pub(crate) fn subscribe(self: &std::sync::Arc<Self>, pod: &PodKey, uid: String) -> Subscription {
        let view = self.read().view(pod, &uid, Instant::now());
        let subscription = Subscription::new(self, &self.subscribers, pod.clone(), uid, view);
        // What changed between the look and the subscription was not published to it.
        self.subscribers.publish(&self.state, [pod], Instant::now());
        subscription
    }

    pub(crate) fn streams_of(&self, pod: &PodKey) -> usize {
        self.subscribers.count(pod)
    }

    /// Keeps a report and returns the one before. `None` when the pod is unknown under this uid: such a report
    /// would stay for ever.
    pub(crate) fn report(&self, pod: &PodKey, uid: &str, report: Report) -> Option<Received> {
        let received = self.report_forwarded(pod, uid, report)?;
        self.ledger().note_unforwarded([pod.clone()]);
        Some(received)
    }

    /// The same for a report that another replica got.
    pub(crate) fn report_forwarded(&self, pod: &PodKey, uid: &str, report: Report) -> Option<Received> {
        if self.read().uid_of(pod) != Some(uid) {
            return None;
        }
        let received = self.ledger().put(pod.clone(), uid, report, Instant::now());
        // Most reports only tell that the pod lives.
        if !received.before.as_ref().is_some_and(|before| counts_the_same(before, &received.after)) {
            let policies: Vec<_> =
                self.read().index.policies_of(&pod.namespace, &pod.name).cloned().collect();
            self.dirty().policies.extend(policies);
            self.status_due.notify_one();
        }
        Some(received)
    }
}

/// Reports for the replica that writes status.
impl World {
    /// What it has not been told.
    pub(crate) fn take_unforwarded(&self) -> Vec<Forwarded> {
        self.ledger().take_unforwarded()
    }

    /// It has not been told of these after all.
    pub(crate) fn forward_again(&self, pods: impl IntoIterator<Item = PodKey>) {
        self.ledger().note_unforwarded(pods);
    }

    /// It is another one, which has not been told anything yet.
    pub(crate) fn forward_all_again(&self) {
        let connected = self.subscribers.pods();
        self.ledger().note_unforwarded(connected);
    }
}

/// Questions of the status writer and of the Events.
impl World {
    /// Policies whose status may be another one since the last time.
    pub(crate) fn take_dirty(&self) -> BTreeSet<PolicyKey> {
        let Dirty { mut policies, namespaces } = std::mem::take(&mut *self.dirty());
        if !namespaces.is_empty() {
            let state = self.read();
            policies.extend(state.index.policies().filter(|policy| namespaces.contains(&policy.namespace)));
        }
        policies
    }

    /// Every policy.
    pub(crate) fn policies(&self) -> BTreeSet<PolicyKey> {
        self.read().index.policies().collect()
    }

    /// Drops reports that are too old to be true, and marks what they counted for.
    pub(crate) fn expire_reports(&self, now: Instant) {
        let namespaces = self.ledger().expire(now);
        self.dirty().namespaces.extend(namespaces);
    }

    /// The status that a policy should have.
    pub(crate) fn status(&self, policy: &PolicyKey, now: &Time) -> Option<PolicyStatus> {
        let ledger = self.ledger();
        self.read().index.status(policy, ledger.reports(), now)
    }

    /// The object of a policy, with the status that it was last seen or written with.
    pub(crate) fn policy_object(&self, policy: &PolicyKey) -> Option<PolicyObject> {
        self.read().policies.get(policy).cloned()
    }

    /// Remembers what was written, until the watch says so too.
    pub(crate) fn status_written(&self, policy: &PolicyKey, status: PolicyStatus) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(object) = state.policies.get_mut(policy) {
            object.status = Some(status);
        }
    }

    /// The uid of an injected pod.
    pub(crate) fn pod_uid(&self, pod: &PodKey) -> Option<String> {
        self.read().uid_of(pod).map(str::to_owned)
    }
}

impl World {
    fn read(&self) -> std::sync::RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn dirty(&self) -> MutexGuard<'_, Dirty> {
        self.dirty.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
