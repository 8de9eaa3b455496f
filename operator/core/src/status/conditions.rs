//! The two conditions of a policy (GEP-713).

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::Tally;
use crate::index::{NamespaceIndex, StoredPolicy};
use crate::key::{CustomKind, PolicyKey, Unavailable};
use crate::merge::Part;
use crate::target::{Target, TargetObject};

/// Longest message that the API server takes.
const LONGEST_MESSAGE: usize = 32_768;

/// What conditions are made from.
pub(super) struct View<'a> {
    pub(super) policy: &'a PolicyKey,
    pub(super) namespace: &'a NamespaceIndex,
    pub(super) stored: &'a StoredPolicy,
    pub(super) tally: &'a Tally,
    pub(super) rotate: Option<&'a str>,
    /// The kinds whose objects cannot be known.
    pub(super) unavailable: &'a BTreeMap<CustomKind, Unavailable>,
}

/// A condition without its times.
struct Finding {
    status: bool,
    reason: &'static str,
    message: String,
}

impl Finding {
    fn new(status: bool, reason: &'static str, message: impl Into<String>) -> Self {
        Self { status, reason, message: message.into() }
    }
}

pub(super) fn of(view: &View<'_>, now: &Time) -> Vec<Condition> {
    let accepted = accepted(view);
    let programmed = programmed(view, &accepted);
    vec![condition(view, "Accepted", accepted, now), condition(view, "Programmed", programmed, now)]
}

fn condition(view: &View<'_>, type_: &str, finding: Finding, now: &Time) -> Condition {
    let status = if finding.status { "True" } else { "False" };
    let before = view.stored.facts.conditions.iter().find(|condition| condition.type_ == type_);
    let since = before.filter(|before| before.status == status).map(|before| &before.last_transition_time);
    let mut message = finding.message;
    message.truncate(message.floor_char_boundary(LONGEST_MESSAGE));
    Condition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: finding.reason.to_owned(),
        message,
        last_transition_time: since.unwrap_or(now).clone(),
        observed_generation: view.stored.facts.generation,
    }
}

fn accepted(view: &View<'_>) -> Finding {
    if let Some(problems) = &view.stored.problems {
        let in_force = match &view.stored.in_force {
            Some((_, Some(generation))) => format!("generation {generation} stays in force"),
            Some((_, None)) => "the version before stays in force".to_owned(),
            None => "nothing of it is in force".to_owned(),
        };
        return Finding::new(false, "Invalid", format!("{problems}; {in_force}"));
    }
    let missing = Missing::of(view);
    let losses = Losses::of(view);
    if missing.all && view.tally.pods.matched == 0 {
        return Finding::new(false, "TargetNotFound", missing.describe());
    }
    if losses.everything {
        return Finding::new(false, "Conflicted", losses.describe());
    }
    let notes = [losses.describe(), missing.describe()];
    let notes: Vec<_> = notes.into_iter().filter(|note| !note.is_empty()).collect();
    let message = if notes.is_empty() { "The policy is valid.".to_owned() } else { notes.join("; ") };
    Finding::new(true, "Accepted", message)
}

/// Targets that are not there.
#[derive(Default)]
struct Missing {
    names: Vec<String>,
    /// Why there cannot be any of a kind, one sentence each.
    kinds: BTreeSet<String>,
    all: bool,
}

impl Missing {
    fn of(view: &View<'_>) -> Self {
        let Some(Target::Objects(objects)) = view.stored.compiled().map(|policy| &policy.target) else {
            return Self::default();
        };
        let missing: Vec<_> = objects.iter().filter(|object| !view.namespace.exists(object)).collect();
        Self {
            names: missing.iter().map(ToString::to_string).collect(),
            kinds: missing.iter().filter_map(|object| unavailable(view, object)).collect(),
            all: missing.len() == objects.len(),
        }
    }

    fn describe(&self) -> String {
        if self.names.is_empty() {
            return String::new();
        }
        let found = format!("not found in the namespace: {}", self.names.join(", "));
        std::iter::once(&found).chain(&self.kinds).cloned().collect::<Vec<_>>().join("; ")
    }
}

/// Why no object of this kind can be found, whatever its name.
fn unavailable(view: &View<'_>, object: &TargetObject) -> Option<String> {
    let kind = object.custom_kind()?;
    let definition = kind.definition();
    Some(match view.unavailable.get(&kind)? {
        Unavailable::NotInstalled => format!(
            "the CustomResourceDefinition {definition} is not installed: install it, or name another target"
        ),
        Unavailable::Forbidden => {
            format!("the operator may not list {definition}: upgrade the chart, whose ClusterRole allows it")
        }
    })
}

/// What a policy lost to others, over all pods that it selects.
struct Losses<'a> {
    by_winner: BTreeMap<&'a PolicyKey, (BTreeSet<Part>, BTreeSet<&'a str>)>,
    /// There are pods, and nothing of the policy is in force on any of them.
    everything: bool,
}

impl<'a> Losses<'a> {
    fn of(view: &'a View<'a>) -> Self {
        let asked = view.stored.compiled().map(|policy| policy.parts.asked()).unwrap_or_default();
        let mut by_winner = BTreeMap::<_, (BTreeSet<_>, BTreeSet<_>)>::new();
        let (mut pods, mut without_any) = (0, 0);
        for (name, _, verdict) in view.namespace.pods_of(view.policy).filter(|(_, pod, _)| !pod.finished) {
            let mut lost = BTreeSet::new();
            for loss in verdict.losses.iter().filter(|loss| loss.policy == *view.policy) {
                let (parts, names) = by_winner.entry(&loss.winner).or_default();
                parts.insert(loss.part);
                names.insert(name);
                lost.insert(loss.part);
            }
            pods += 1;
            without_any += usize::from(lost == asked);
        }
        Self { by_winner, everything: pods > 0 && pods == without_any }
    }

    fn describe(&self) -> String {
        let sentence = |(winner, (parts, pods)): (&&PolicyKey, &(BTreeSet<Part>, BTreeSet<&str>))| {
            let parts: Vec<_> = parts.iter().map(|part| part.as_str()).collect();
            format!(
                "{} {winner} goes before it on {} and decides {}",
                winner.kind.as_str(),
                count_of_pods(pods.len()),
                parts.join(" and ")
            )
        };
        self.by_winner.iter().map(sentence).collect::<Vec<_>>().join("; ")
    }
}

fn count_of_pods(count: usize) -> String {
    if count == 1 { "1 pod".to_owned() } else { format!("{count} pods") }
}

fn programmed(view: &View<'_>, accepted: &Finding) -> Finding {
    let pods = view.tally.pods;
    if accepted.reason == "Conflicted" {
        return Finding::new(false, "Overridden", "Nothing of the policy is in force; see Accepted.");
    }
    if view.stored.in_force.is_none() {
        return Finding::new(false, "Invalid", "Nothing of the policy is in force; see Accepted.");
    }
    if let Some(refusal) = &view.tally.refusal {
        let message =
            format!("{} of {} sidecars refused the policy: {refusal}", view.tally.refused, pods.injected);
        return Finding::new(false, "PartiallyProgrammed", message);
    }
    if pods.out_of_date > 0 {
        let message = format!("{} of {} sidecars enforce it.", pods.programmed, pods.injected);
        return Finding::new(false, "Reconciling", message);
    }
    if pods.uninjected > 0 {
        let message = format!("{} of {} pods have no sidecar", pods.uninjected, pods.matched);
        let advice = view.rotate.map_or(String::new(), |rotate| format!("; to give them one: {rotate}"));
        return Finding::new(false, "PartiallyProgrammed", message + &advice);
    }
    if let Some(bypass) = &view.tally.bypass {
        let message = format!(
            "{} of {} pods can be reached around their sidecar, by {bypass}.",
            view.tally.bypassed, pods.matched
        );
        return Finding::new(false, "PartiallyProgrammed", message);
    }
    if pods.matched == 0 {
        return Finding::new(true, "Programmed", "It selects no pod now.");
    }
    Finding::new(true, "Programmed", format!("{} of {} pods enforce it.", pods.programmed, pods.matched))
}
