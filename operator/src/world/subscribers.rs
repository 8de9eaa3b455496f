//! One view per connected pod, shared by its streams.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Instant;

use tidegate_operator_core::key::PodKey;
use tidegate_policy::PolicyDocument;
use tokio::sync::watch;

use super::World;
use super::state::State;

/// What a pod is to be told.
#[derive(Debug, Clone)]
pub(crate) struct View {
    /// What it obeys.
    pub(crate) document: Arc<PolicyDocument>,
    /// It is being deleted.
    pub(crate) deleting: bool,
    /// Services send traffic to it.
    pub(crate) listed: bool,
    /// When the event arrived that made it so.
    pub(crate) since: Instant,
}

impl View {
    fn tells_the_same(&self, other: &Self) -> bool {
        (self.deleting, self.listed) == (other.deleting, other.listed)
            && (Arc::ptr_eq(&self.document, &other.document) || self.document == other.document)
    }
}

#[derive(Debug)]
struct Slot {
    uid: String,
    view: watch::Sender<Option<View>>,
}

#[derive(Debug, Default)]
pub(super) struct Subscribers(Mutex<HashMap<PodKey, Slot>>);

impl Subscribers {
    /// Gives these pods their view as it is now, where somebody waits for it.
    pub(super) fn publish<'a>(
        &self,
        state: &RwLock<State>,
        pods: impl IntoIterator<Item = &'a PodKey>,
        seen: Instant,
    ) {
        let slots = self.slots();
        let state = state.read().unwrap_or_else(PoisonError::into_inner);
        for pod in pods {
            if let Some(slot) = slots.get(pod) {
                slot.update(state.view(pod, &slot.uid, seen));
            }
        }
    }

    pub(super) fn publish_all(&self, state: &RwLock<State>, seen: Instant) {
        let slots = self.slots();
        let state = state.read().unwrap_or_else(PoisonError::into_inner);
        for (pod, slot) in slots.iter() {
            slot.update(state.view(pod, &slot.uid, seen));
        }
    }

    pub(super) fn count(&self, pod: &PodKey) -> usize {
        self.slots().get(pod).map_or(0, |slot| slot.view.receiver_count())
    }

    /// Those that somebody waits for.
    pub(super) fn pods(&self) -> Vec<PodKey> {
        self.slots().keys().cloned().collect()
    }

    fn join(&self, pod: PodKey, uid: String, view: Option<View>) -> watch::Receiver<Option<View>> {
        let mut slots = self.slots();
        let slot = slots
            .entry(pod)
            .or_insert_with(|| Slot { uid: uid.clone(), view: watch::Sender::new(view.clone()) });
        if slot.uid != uid {
            // Another pod of the same name: whoever still holds the old one's stream is told that it ended.
            *slot = Slot { uid, view: watch::Sender::new(view) };
        }
        slot.view.subscribe()
    }

    fn leave(&self, pod: &PodKey) {
        let mut slots = self.slots();
        if slots.get(pod).is_some_and(|slot| slot.view.receiver_count() == 0) {
            slots.remove(pod);
        }
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<PodKey, Slot>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    fn update(&self, view: Option<View>) {
        self.view.send_if_modified(|held| {
            let same = match (held.as_ref(), view.as_ref()) {
                (Some(held), Some(view)) => held.tells_the_same(view),
                (None, None) => true,
                (None, Some(_)) | (Some(_), None) => false,
            };
            if !same {
                *held = view;
            }
            !same
        });
    }
}

/// The view of one pod; leaves when dropped.
#[derive(Debug)]
pub(crate) struct Subscription {
    world: Arc<World>,
    pod: PodKey,
    receiver: Option<watch::Receiver<Option<View>>>,
}

impl Subscription {
    pub(super) fn new(
        world: &Arc<World>,
        subscribers: &Subscribers,
        pod: PodKey,
        uid: String,
        view: Option<View>,
    ) -> Self {
        let receiver = Some(subscribers.join(pod.clone(), uid, view));
        Self { world: Arc::clone(world), pod, receiver }
    }

    /// The view as it is; `None` while the pod is not known.
    pub(crate) fn view(&mut self) -> Option<View> {
        self.receiver.as_mut().and_then(|receiver| receiver.borrow_and_update().clone())
    }

    /// Returns when there may be another view; `false` when there will be none any more.
    pub(crate) async fn changed(&mut self) -> bool {
        match self.receiver.as_mut() {
            Some(receiver) => receiver.changed().await.is_ok(),
            None => false,
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.receiver = None;
        self.world.subscribers.leave(&self.pod);
    }
}
