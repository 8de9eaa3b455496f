//! Kubernetes Events on policies, and on the pod where something happened. They are for people: when they cannot be
//! published, that is counted and nothing waits.

use std::sync::Arc;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tidegate_operator_core::key::PodKey;
use tidegate_operator_core::status::{Notice, NoticeType};
use tokio::sync::mpsc;

use crate::brief::brief;
use crate::metrics::{Metrics, Outcome};
use crate::world::World;

/// A flood of them is dropped: an API server under load has more important things to do.
const QUEUE: usize = 256;
/// The API server's bound on a note.
const MAX_NOTE: usize = 1024;

/// Where Events are handed in; clones are the same queue.
#[derive(Debug, Clone)]
pub(crate) struct Events {
    queue: mpsc::Sender<Notice>,
    metrics: Metrics,
}

/// Publishes what was handed in.
pub(crate) struct Publisher {
    queue: mpsc::Receiver<Notice>,
    recorder: Recorder,
    world: Arc<World>,
    metrics: Metrics,
}

/// A queue and its publisher.
pub(crate) fn channel(
    client: Client,
    replica: &str,
    world: Arc<World>,
    metrics: Metrics,
) -> (Events, Publisher) {
    let (sender, queue) = mpsc::channel(QUEUE);
    let reporter =
        Reporter { controller: "tidegate.dev/operator".to_owned(), instance: Some(replica.to_owned()) };
    let recorder = Recorder::new(client, reporter);
    (Events { queue: sender, metrics: metrics.clone() }, Publisher { queue, recorder, world, metrics })
}

impl Events {
    /// Never waits.
    pub(crate) fn publish(&self, notice: Notice) {
        if self.queue.try_send(notice).is_err() {
            self.metrics.events.get_or_create(&Outcome { outcome: "dropped" }).inc();
        }
    }
}

impl Publisher {
    /// Runs until every [`Events`] is dropped.
    pub(crate) async fn run(mut self) {
        while let Some(notice) = self.queue.recv().await {
            tracing::info!(policy = %notice.policy, pod = notice.pod.as_ref().map(ToString::to_string), reason = notice.reason, note = notice.note, "event");
            self.publish(notice).await;
        }
    }

    async fn publish(&self, notice: Notice) {
        let Some(policy) = self.world.policy_object(&notice.policy).map(|object| object.reference) else {
            return;
        };
        let pod = notice.pod.as_ref().map(|pod| self.pod_reference(pod));
        let event = |secondary| Event {
            type_: match notice.type_ {
                NoticeType::Normal => EventType::Normal,
                NoticeType::Warning => EventType::Warning,
            },
            reason: notice.reason.to_owned(),
            note: Some(bounded(&notice.note)),
            action: notice.action.to_owned(),
            secondary,
        };
        self.send(&event(pod.clone()), &policy).await;
        if let Some(pod) = pod {
            self.send(&event(Some(policy)), &pod).await;
        }
    }

    async fn send(&self, event: &Event, about: &ObjectReference) {
        let outcome = match self.recorder.publish(event, about).await {
            Ok(()) => "ok",
            Err(error) => {
                tracing::warn!(
                    error = brief(&error),
                    reason = event.reason,
                    "an Event could not be published"
                );
                "failed"
            }
        };
        self.metrics.events.get_or_create(&Outcome { outcome }).inc();
    }

    fn pod_reference(&self, pod: &PodKey) -> ObjectReference {
        ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: Some(pod.namespace.clone()),
            name: Some(pod.name.clone()),
            uid: self.world.pod_uid(pod),
            ..ObjectReference::default()
        }
    }
}

fn bounded(note: &str) -> String {
    note.char_indices().take_while(|(at, c)| at + c.len_utf8() <= MAX_NOTE).map(|(_, c)| c).collect()
}
