//! The two conditions of a policy (GEP-713).

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::Tally;
use crate::index::{Home, NamespaceIndex, StoredPolicy, Verdict};
use crate::key::{CustomKind, PolicyKey, Unavailable};
use crate::merge::Part;
use crate::pod::PodFacts;
use crate::target::{Target, TargetObject};

/// Longest message that the API server takes.
const LONGEST_MESSAGE: usize = 32_768;

/// What conditions are made from.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) policy: &'a PolicyKey,
    pub(super) namespace: &'a NamespaceIndex,
    pub(super) stored: &'a StoredPolicy,
    pub(super) tally: &'a Tally,
    pub(super) rotate: Option<&'a str>,
    /// The kinds whose objects cannot be known.
    pub(super) unavailable: &'a BTreeMap<CustomKind, Unavailable>,
    /// Where sidecars reach the operator, if that is known.
    pub(super) home: Option<&'a Home>,
    /// The one target that it is about, and the pods of which the tally is; else all of them.
    pub(super) object: Option<&'a TargetObject>,
}

impl<'a> View<'a> {
    /// The pods that it is about, with what is decided about them.
    fn pods(&self) -> impl Iterator<Item = (&'a str, &'a Verdict)> {
        let (object, services) = (self.object, self.namespace.services());
        let counts = move |pod: &PodFacts| {
            !pod.finished && object.is_none_or(|object| object.selects(pod, services).is_some())
        };
        let pods = self.namespace.pods_of(self.policy).filter(move |(_, pod, _)| counts(pod));
        pods.map(|(name, _, verdict)| (name, verdict))
    }

    /// The targets that it is about.
    fn objects(&self) -> &'a [TargetObject] {
        match (self.object, self.stored.compiled().map(|policy| &policy.target)) {
            (Some(object), _) => std::slice::from_ref(object),
            (None, Some(Target::Objects(objects))) => objects,
            _ => &[],
        }
    }
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

/// A condition that was the same `before` keeps its time of transition.
pub(super) fn of(view: &View<'_>, before: &[Condition], now: &Time) -> Vec<Condition> {
    let accepted = accepted(view);
    let programmed = programmed(view, &accepted);
    let condition = |type_, finding| condition(view, before, type_, finding, now);
    vec![condition("Accepted", accepted), condition("Programmed", programmed)]
}

fn condition(view: &View<'_>, before: &[Condition], type_: &str, finding: Finding, now: &Time) -> Condition {
    let status = if finding.status { "True" } else { "False" };
    let before = before.iter().find(|condition| condition.type_ == type_);
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
        let objects = view.objects();
        let missing: Vec<_> = objects.iter().filter(|object| !view.namespace.exists(object)).collect();
        Self {
            names: missing.iter().map(ToString::to_string).collect(),
            kinds: missing.iter().filter_map(|object| unavailable(view, object)).collect(),
            all: !objects.is_empty() && missing.len() == objects.len(),
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

/// What a policy lost to others, over all pods that it is about.
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
        for (name, verdict) in view.pods() {
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
    let elsewhere = |reason| Finding::new(false, reason, "Nothing of the policy is in force; see Accepted.");
    match accepted.reason {
        "Conflicted" => return elsewhere("Overridden"),
        "TargetNotFound" => return elsewhere("TargetNotFound"),
        _ if view.stored.in_force.is_none() => return elsewhere("Invalid"),
        _ => {}
    }
    if let Some(refusal) = &view.tally.refusal {
        let message =
            format!("{} of {} sidecars refused the policy: {refusal}", view.tally.refused, pods.injected);
        return Finding::new(false, "Reconciling", message);
    }
    if pods.out_of_date > 0 {
        let message =
            format!("{} of {} sidecars enforce it.{}", pods.programmed, pods.injected, silent(view));
        return Finding::new(false, "Reconciling", message);
    }
    let notes: Vec<_> =
        [without_sidecar(view), bypassed(view), overridden(view)].into_iter().flatten().collect();
    if !notes.is_empty() {
        let notes: Vec<_> = notes.into_iter().chain(old_sidecar(view)).collect();
        return Finding::new(true, "PartiallyProgrammed", notes.join("; "));
    }
    if pods.matched == 0 {
        return Finding::new(true, "Programmed", "It selects no pod now.");
    }
    let enforced = format!("{} of {} pods enforce it", pods.programmed, pods.matched);
    // An old sidecar obeys the policy all the same.
    let message =
        old_sidecar(view).map_or_else(|| format!("{enforced}."), |old| format!("{enforced}; {old}"));
    Finding::new(true, "Programmed", message)
}

/// What to do about sidecars from which nothing is heard: most often something is between them and the operator.
fn silent(view: &View<'_>) -> String {
    let silent = view.tally.silent;
    let Some(home) = view.home.filter(|_| silent > 0) else { return String::new() };
    format!(
        " {silent} have not reported. If that lasts, a NetworkPolicy may cut them off: add to it egress: [{{to: \
         [{{namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: {}}}}}}}], ports: [{{protocol: TCP, port: {}}}]}}]",
        home.namespace, home.port
    )
}

fn without_sidecar(view: &View<'_>) -> Option<String> {
    let pods = view.tally.pods;
    let advice = view.rotate.map_or(String::new(), |rotate| format!("; to give them one: {rotate}"));
    (pods.uninjected > 0)
        .then(|| format!("{} of {} pods have no sidecar{advice}", pods.uninjected, pods.matched))
}

fn old_sidecar(view: &View<'_>) -> Option<String> {
    let pods = view.tally.pods;
    let advice = view.rotate.map_or(String::new(), |rotate| format!("; to give them the new one: {rotate}"));
    (pods.old_sidecar > 0)
        .then(|| format!("{} of {} pods have an old sidecar{advice}", pods.old_sidecar, pods.matched))
}

fn bypassed(view: &View<'_>) -> Option<String> {
    let (bypassed, matched) = (view.tally.bypassed, view.tally.pods.matched);
    let bypass = view.tally.bypass.as_ref()?;
    Some(format!("{bypassed} of {matched} pods can be reached around their sidecar, by {bypass}"))
}

/// What other policies decide, on some pods or in part.
fn overridden(view: &View<'_>) -> Option<String> {
    let losses = Losses::of(view).describe();
    (!losses.is_empty()).then_some(losses)
}
