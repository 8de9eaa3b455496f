//! `status`: policies as the operator judges them, and pods as their sidecars say now.

use std::fmt::Write as _;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde::Serialize;
use tidegate_crds::{CircuitBreakerPolicy, PodCounts, RateLimitPolicy, TierCounts};
use tidegate_operator_core::key::PolicyKind;

use crate::cluster::{Cluster, Inventory};
use crate::command_line::StatusArguments;
use crate::pod_row::PodRow;
use crate::print;
use crate::refused::Refused;
use crate::sidecars::{self, Pages, is_alive};
use crate::table::table;

#[derive(Debug, Serialize)]
struct Report {
    policies: Vec<PolicyRow>,
    pods: Vec<PodRow>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct PolicyRow {
    kind: &'static str,
    namespace: String,
    name: String,
    conditions: Vec<Condition>,
    /// None before the operator has seen the policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pods: Option<PodCounts>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tiers_tripped: Option<TierCounts>,
    #[serde(skip_serializing_if = "Option::is_none")]
    breakers_open: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rotate: Option<String>,
}

pub(crate) async fn run(arguments: &StatusArguments) -> Result<String, Refused> {
    let cluster = Cluster::connect(&arguments.scope.cluster).await?;
    let report = report(&cluster, arguments.scope.all_namespaces).await?;
    print::form(arguments.output, &report, || text(&report))
}

async fn report(cluster: &Cluster, everywhere: bool) -> Result<Report, Refused> {
    let namespace = (!everywhere).then_some(cluster.namespace.as_str());
    let inventory = Inventory::read(cluster, namespace).await?;
    let pages = sidecars::ask(cluster, &inventory.pods).await;
    let rate_limits = inventory.rate_limits.iter().map(PolicyRow::of_rate_limit);
    let breakers = inventory.breakers.iter().map(PolicyRow::of_breaker);
    Ok(Report { policies: rate_limits.chain(breakers).collect(), pods: pod_rows(&inventory, &pages) })
}

/// The pods that a policy selects or that have a sidecar, in the order of their names.
pub(crate) fn pod_rows(inventory: &Inventory, pages: &Pages) -> Vec<PodRow> {
    let row = |pod: &Pod| {
        let key = sidecars::key(pod);
        let document = inventory.index.document_for(&key.namespace, &key.name)?;
        let guarded = document.revision != tidegate_policy::PolicyDocument::default().revision;
        let shown = is_alive(pod) && (guarded || sidecars::container(pod).is_some());
        shown.then(|| PodRow::new(pod, pages.get(&key), Some(&document.revision)))
    };
    inventory.pods.iter().filter_map(row).collect()
}

impl PolicyRow {
    fn of_rate_limit(policy: &RateLimitPolicy) -> Self {
        let status = policy.status.clone();
        Self {
            tiers_tripped: status.as_ref().map(|status| status.tiers_tripped),
            pods: status.as_ref().map(|status| status.pods),
            rotate: status.as_ref().and_then(|status| status.rotate.clone()),
            conditions: status.map(|status| status.conditions).unwrap_or_default(),
            breakers_open: None,
            ..Self::new(PolicyKind::RateLimitPolicy, policy)
        }
    }

    fn of_breaker(policy: &CircuitBreakerPolicy) -> Self {
        let status = policy.status.clone();
        Self {
            breakers_open: status.as_ref().map(|status| status.breakers_open),
            pods: status.as_ref().map(|status| status.pods),
            rotate: status.as_ref().and_then(|status| status.rotate.clone()),
            conditions: status.map(|status| status.conditions).unwrap_or_default(),
            tiers_tripped: None,
            ..Self::new(PolicyKind::CircuitBreakerPolicy, policy)
        }
    }

    fn new(kind: PolicyKind, policy: &impl kube::ResourceExt) -> Self {
        Self {
            kind: kind.as_str(),
            namespace: policy.namespace().unwrap_or_default(),
            name: policy.name_any(),
            conditions: Vec::new(),
            pods: None,
            tiers_tripped: None,
            breakers_open: None,
            rotate: None,
        }
    }

    fn condition(&self, type_: &str) -> String {
        let found = self.conditions.iter().find(|condition| condition.type_ == type_);
        found.map_or_else(|| "Unknown".to_owned(), |condition| condition.status.clone())
    }

    /// What of it is at work now.
    fn acting(&self) -> String {
        match (self.tiers_tripped, self.breakers_open) {
            (Some(tiers), _) => format!("{} tripped", tiers.any),
            (None, Some(open)) => format!("{open} open"),
            (None, None) => "-".to_owned(),
        }
    }

    fn cells(&self) -> [String; 9] {
        let count = |of: fn(&PodCounts) -> i32| {
            self.pods.as_ref().map_or_else(|| "-".to_owned(), |pods| of(pods).to_string())
        };
        [
            self.namespace.clone(),
            format!("{}/{}", self.kind.to_lowercase(), self.name),
            self.condition("Accepted"),
            self.condition("Programmed"),
            count(|pods| pods.matched),
            count(|pods| pods.injected),
            count(|pods| pods.programmed),
            count(|pods| pods.out_of_date),
            self.acting(),
        ]
    }

    /// Whether the condition tells of old sidecars, which obey the policy.
    fn has_old(&self, condition: &Condition) -> bool {
        condition.type_ == "Programmed" && self.pods.is_some_and(|pods| pods.old_sidecar > 0)
    }

    /// A line for each condition that is not met or in part, and the command that helps.
    fn troubles(&self) -> Vec<String> {
        let is_met = |condition: &Condition| {
            condition.status == "True"
                && condition.reason != "PartiallyProgrammed"
                && !self.has_old(condition)
        };
        let unmet = self.conditions.iter().filter(|condition| !is_met(condition));
        let line = |condition: &Condition| {
            let Condition { type_, reason, message, .. } = condition;
            format!("{}/{}: {type_} {reason}: {message}", self.namespace, self.name)
        };
        let unseen = self.pods.is_none().then(|| {
            format!("{}/{}: the operator has not seen it: kubectl tidegate check", self.namespace, self.name)
        });
        unmet.map(line).chain(unseen).collect()
    }
}

fn text(report: &Report) -> String {
    let mut text = String::new();
    if report.policies.is_empty() {
        text.push_str("No policies.\n");
    } else {
        let head = [
            "NAMESPACE",
            "POLICY",
            "ACCEPTED",
            "IN FORCE",
            "PODS",
            "INJECTED",
            "PROGRAMMED",
            "OUT OF DATE",
            "NOW",
        ];
        let rows: Vec<_> = report.policies.iter().map(PolicyRow::cells).collect();
        text.push_str(&table(head, &rows));
        for trouble in report.policies.iter().flat_map(PolicyRow::troubles) {
            _ = writeln!(text, "! {trouble}");
        }
    }
    text.push('\n');
    if report.pods.is_empty() {
        text.push_str("No pods that a policy selects.\n");
        return text;
    }
    let head =
        ["NAMESPACE", "POD", "SIDECAR", "POLICY", "OPERATOR", "IN FLIGHT", "PRESSURE", "TIERS", "BREAKER"];
    let rows: Vec<_> = report.pods.iter().map(cells).collect();
    text.push_str(&table(head, &rows));
    for trouble in report.pods.iter().flat_map(troubles) {
        _ = writeln!(text, "! {trouble}");
    }
    text
}

fn cells(row: &PodRow) -> [String; 9] {
    let of = |cell: fn(&crate::pod_row::StateRow) -> String| {
        row.state.as_ref().map_or_else(|| "-".to_owned(), cell)
    };
    [
        row.namespace.clone(),
        row.name.clone(),
        row.sidecar(),
        of(|state| if state.up_to_date { "newest" } else { "older" }.to_owned()),
        of(|state| if state.operator_connected { "connected" } else { "cut off" }.to_owned()),
        of(|state| state.in_flight.to_string()),
        of(|state| format!("{:.2}", state.pressure)),
        row.tiers(),
        row.breaker().to_owned(),
    ]
}

/// What somebody should look at.
fn troubles(row: &PodRow) -> Vec<String> {
    let name = format!("{}/{}", row.namespace, row.name);
    let mut lines = Vec::new();
    if let Some(error) = &row.sidecar.unreachable {
        lines.push(format!("{name}: its sidecar did not answer: {error}"));
    }
    let Some(state) = &row.state else { return lines };
    if let Some(refused) = &state.refused {
        lines.push(format!("{name}: its sidecar refused the newest policy: {refused}"));
    }
    for tier in state.tiers.iter().filter(|tier| tier.shedding || tier.state == "stale") {
        let why = tier.reason.as_deref().unwrap_or("no reason given");
        let next = tier.recovery_countdown_millis;
        let next = next.map_or(String::new(), |millis| format!("; recovers in {:.1} s", millis as f64 / 1e3));
        lines.push(format!("{name}: tier {} is {}: {why}{next}", tier.tier.as_str(), tier.state));
    }
    if let Some(breaker) = state.breaker.as_ref().filter(|breaker| breaker.state != "closed") {
        let why = breaker.reason.as_deref().unwrap_or("no reason given");
        let next = breaker.half_open_in_millis;
        let next = next.map_or(String::new(), |millis| format!("; probes in {:.1} s", millis as f64 / 1e3));
        lines.push(format!("{name}: breaker is {}: {why}{next}", breaker.state));
    }
    lines
}

#[cfg(test)]
mod tests;
