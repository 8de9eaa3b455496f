//! What was done, for programs.

use serde::Serialize;

use super::plan::{Action, Lack, Step};

/// Every step in its order.
#[derive(Debug, Default, Serialize)]
pub(super) struct Report<'a> {
    steps: Vec<Told<'a>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Told<'a> {
    namespace: &'a str,
    /// Of the workload or of the pod.
    name: &'a str,
    /// `Restart`, `Evict`, `Leave` or `Postpone`.
    action: &'static str,
    /// Of what is restarted.
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    /// Why nothing is done.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    pods: Vec<ToldPod<'a>>,
    /// Absent where nothing was to be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    done: Option<bool>,
}

#[derive(Debug, Serialize)]
struct ToldPod<'a> {
    name: &'a str,
    /// `Old`, `Missing` or `Unwanted`.
    sidecar: &'static str,
    /// Of an old one.
    #[serde(skip_serializing_if = "Option::is_none")]
    image: Option<&'a str>,
}

impl<'a> Report<'a> {
    pub(super) fn add(&mut self, step: &'a Step, done: Option<bool>) {
        let (action, kind, reason) = match &step.action {
            Action::Restart(kind) => ("Restart", Some(*kind), None),
            Action::Evict => ("Evict", None, None),
            Action::Leave(why) => ("Leave", None, Some(*why)),
            Action::Postpone(why) => ("Postpone", None, Some(why.as_str())),
        };
        let pods = step.pods.iter().map(|(name, lack)| ToldPod::of(name, lack)).collect();
        let (namespace, name) = (step.namespace.as_str(), step.name.as_str());
        self.steps.push(Told { namespace, name, action, kind, reason, pods, done });
    }

    /// False when something was left undone that should not have been.
    pub(super) fn is_done(&self) -> bool {
        self.steps.iter().all(|step| step.done != Some(false))
    }
}

impl<'a> ToldPod<'a> {
    fn of(name: &'a str, lack: &'a Lack) -> Self {
        let (sidecar, image) = match lack {
            Lack::Old(image) => ("Old", Some(image.as_str())),
            Lack::Missing => ("Missing", None),
            Lack::Unwanted => ("Unwanted", None),
        };
        Self { name, sidecar, image }
    }
}
