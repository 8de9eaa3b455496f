//! What was done, for programs.

use serde::Serialize;

use super::plan::{Action, Lack, Step};

/// Every step in its order.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    pub(crate) steps: Vec<Told>,
}

/// What was done about a workload or a pod.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Told {
    namespace: String,
    /// Of the workload or of the pod.
    name: String,
    /// `Restart`, `Evict`, `Leave` or `Postpone`.
    action: &'static str,
    /// Of what is restarted.
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    /// Why nothing is done.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    pods: Vec<ToldPod>,
    /// Absent where nothing was to be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    done: Option<bool>,
}

#[derive(Debug, Serialize)]
struct ToldPod {
    name: String,
    /// `Old`, `Missing` or `Unwanted`.
    sidecar: &'static str,
    /// Of an old one.
    #[serde(skip_serializing_if = "Option::is_none")]
    image: Option<String>,
}

impl Report {
    pub(super) fn add(&mut self, step: &Step, done: Option<bool>) {
        let (action, kind, reason) = match &step.action {
            Action::Restart(kind) => ("Restart", Some(*kind), None),
            Action::Evict => ("Evict", None, None),
            Action::Leave(why) => ("Leave", None, Some((*why).to_owned())),
            Action::Postpone(why) => ("Postpone", None, Some(why.clone())),
        };
        let pods = step.pods.iter().map(|(name, lack)| ToldPod::of(name, lack)).collect();
        let (namespace, name) = (step.namespace.clone(), step.name.clone());
        self.steps.push(Told { namespace, name, action, kind, reason, pods, done });
    }

    /// False when something was left undone that should not have been.
    pub(crate) fn is_done(&self) -> bool {
        self.steps.iter().all(|step| step.done != Some(false))
    }
}

impl ToldPod {
    fn of(name: &str, lack: &Lack) -> Self {
        let (sidecar, image) = match lack {
            Lack::Old(image) => ("Old", Some(image.clone())),
            Lack::Missing => ("Missing", None),
            Lack::Unwanted => ("Unwanted", None),
        };
        Self { name: name.to_owned(), sidecar, image }
    }
}
