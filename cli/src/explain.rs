//! `explain POD`: which policies and rules act on a pod, why, and who lost, by the operator's own code.

use std::fmt::Write as _;

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use serde::Serialize;
use tidegate_crds::PodSelector;
use tidegate_operator_core::explain::{ActingPolicy, Explanation, OtherPolicy};
use tidegate_operator_core::merge::{Loss, Part};
use tidegate_operator_core::target::Target;

use crate::cluster::{Cluster, Inventory, is_missing, namespaces, said};
use crate::command_line::ExplainArguments;
use crate::pod_row::PodRow;
use crate::print;
use crate::refused::Refused;
use crate::sidecars::{self, Page};
use rules::RuleRow;

mod injection;
mod rules;

pub(crate) use injection::would_be_injected;

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    pod: PodRow,
    /// What the webhook would do if the pod were created now; only where it has no sidecar.
    #[serde(skip_serializing_if = "Option::is_none")]
    if_created_now: Option<String>,
    services: Vec<String>,
    /// Of the document that the pod is to obey.
    revision: String,
    acting: Vec<ActingRow>,
    others: Vec<OtherRow>,
    rules: Vec<RuleRow>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ActingRow {
    kind: &'static str,
    name: String,
    selects_by: &'static str,
    target: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<String>,
    decides: Vec<&'static str>,
    lost: Vec<LossRow>,
    #[serde(skip_serializing_if = "Option::is_none")]
    invalid: Option<String>,
}

#[derive(Debug, Serialize)]
struct LossRow {
    part: &'static str,
    to: String,
}

#[derive(Debug, Serialize)]
struct OtherRow {
    kind: &'static str,
    name: String,
    why: String,
}

pub(crate) async fn run(arguments: &ExplainArguments) -> Result<String, Refused> {
    let cluster = Cluster::connect(&arguments.cluster).await?;
    let report = report(&cluster, &arguments.pod).await?;
    print::form(arguments.output, &report, || text(&report))
}

async fn report(cluster: &Cluster, name: &str) -> Result<Report, Refused> {
    let namespace = cluster.namespace.as_str();
    let pod = pod(cluster, namespace, name).await?;
    let mut inventory = Inventory::read(cluster, Some(namespace)).await?;
    // The list may be older than the pod.
    inventory.index.apply_pod(&pod);
    let explanation = inventory
        .index
        .explain(namespace, name)
        .ok_or_else(|| Refused::of(format!("pod {namespace}/{name} was deleted meanwhile")))?;
    let answer = sidecars::ask(cluster, std::slice::from_ref(&pod)).await.into_values().next();
    let page = answer.as_ref().and_then(|answer| answer.as_ref().ok());
    let row = PodRow::new(&pod, answer.as_ref(), Some(&explanation.document.revision));
    let if_created_now = if row.sidecar.injected {
        None
    } else {
        let facts = namespaces(cluster, Some(namespace)).await;
        Some(injection::verdict(&pod, &inventory.index, facts.ok().and_then(|mut all| all.pop()).as_ref()))
    };
    Ok(Report::new(row, if_created_now, explanation, page))
}

async fn pod(cluster: &Cluster, namespace: &str, name: &str) -> Result<Pod, Refused> {
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), namespace);
    pods.get(name).await.map_err(|error| {
        let hint = if is_missing(&error) { ": write its namespace with -n" } else { "" };
        Refused::of(format!("pod {namespace}/{name}: {}{hint}", said(&error)))
    })
}

impl Report {
    fn new(
        pod: PodRow,
        if_created_now: Option<String>,
        explanation: Explanation,
        page: Option<&Page>,
    ) -> Self {
        Self {
            pod,
            if_created_now,
            services: explanation.services,
            revision: explanation.document.revision.clone(),
            rules: rules::of(&explanation.document, page.map(|page| &page.status)),
            acting: explanation.acting.into_iter().map(ActingRow::new).collect(),
            others: explanation.others.into_iter().map(OtherRow::new).collect(),
        }
    }
}

impl ActingRow {
    fn new(acting: ActingPolicy) -> Self {
        let loss = |loss: Loss| LossRow {
            part: loss.part.as_str(),
            to: format!("{} {}", loss.winner.kind.as_str(), loss.winner.name),
        };
        Self {
            kind: acting.policy.kind.as_str(),
            name: acting.policy.name,
            selects_by: acting.specificity.as_str(),
            target: describe(&acting.target),
            created: acting.created.map(|created| created.to_string()),
            decides: acting.decides.into_iter().map(Part::as_str).collect(),
            lost: acting.losses.into_iter().map(loss).collect(),
            invalid: acting.problems,
        }
    }
}

impl OtherRow {
    fn new(other: OtherPolicy) -> Self {
        let why = match (&other.target, other.problems) {
            (None, Some(problems)) => format!("it is invalid: {problems}"),
            (Some(target), _) => format!("it targets {}", describe(target)),
            (None, None) => "it was never valid".to_owned(),
        };
        Self { kind: other.policy.kind.as_str(), name: other.policy.name, why }
    }
}

fn describe(target: &Target) -> String {
    match target {
        Target::Namespace => "every pod of the namespace".to_owned(),
        Target::Selector(selector) => format!("pods with {}", describe_selector(selector)),
        Target::Objects(objects) => {
            let names: Vec<_> = objects.iter().map(ToString::to_string).collect();
            format!("pods of {}", names.join(", "))
        }
    }
}

fn describe_selector(selector: &PodSelector) -> String {
    let labels = selector.match_labels.iter().map(|(key, value)| format!("{key}={value}"));
    let expressions = selector.match_expressions.iter().map(|requirement| {
        let values = requirement.values.join(", ");
        format!("{} {:?} ({values})", requirement.key, requirement.operator)
    });
    labels.chain(expressions).collect::<Vec<_>>().join(" and ")
}

fn text(report: &Report) -> String {
    let mut text = String::new();
    head(report, &mut text);
    acting(report, &mut text);
    if !report.others.is_empty() {
        text.push_str("\nPolicies of the namespace that do not act on it:\n");
        for other in &report.others {
            _ = writeln!(text, "  {} {}: {}", other.kind, other.name, other.why);
        }
    }
    text.push_str(&rules::text(&report.rules));
    text
}

fn head(report: &Report, text: &mut String) {
    let row = &report.pod;
    _ = writeln!(text, "Pod {}/{}", row.namespace, row.name);
    _ = writeln!(text, "  sidecar:   {}", row.sidecar());
    if let Some(verdict) = &report.if_created_now {
        _ = writeln!(text, "             {verdict}");
    }
    if let Some(error) = &row.sidecar.unreachable {
        _ = writeln!(text, "             it did not answer: {error}");
    }
    if let Some(state) = &row.state {
        let connected = if state.operator_connected { "connected" } else { "cut off from" };
        _ = writeln!(text, "             from {}, {connected} to the operator", state.policy_source);
        let age = if state.up_to_date { "the newest" } else { "older than the policies" };
        _ = writeln!(text, "  obeys:     revision {}, {age}", state.revision);
    }
    let services = if report.services.is_empty() { "none".to_owned() } else { report.services.join(", ") };
    _ = writeln!(text, "  Services:  {services}");
}

fn acting(report: &Report, text: &mut String) {
    if report.acting.is_empty() {
        text.push_str("\nNo policy acts on it: everything passes.\n");
        return;
    }
    text.push_str("\nPolicies that act on it; where two decide the same, the upper one does:\n");
    for (i, row) in report.acting.iter().enumerate() {
        _ = writeln!(text, "  {}. {} {}", i + 1, row.kind, row.name);
        let created = row.created.as_ref().map_or(String::new(), |created| format!(", created {created}"));
        _ = writeln!(text, "       selects it by {}: {}{created}", row.selects_by, row.target);
        let decides = if row.decides.is_empty() { "nothing".to_owned() } else { row.decides.join(", ") };
        _ = writeln!(text, "       decides {decides}");
        for loss in &row.lost {
            _ = writeln!(text, "       lost {} to {}", loss.part, loss.to);
        }
        if let Some(problems) = &row.invalid {
            _ = writeln!(text, "       its newest version is invalid: {problems}");
        }
    }
}

#[cfg(test)]
mod tests;
