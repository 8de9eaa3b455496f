//! `top`: the sidecars of a namespace, looked at again and again.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use serde::Serialize;
use tidegate_policy::report::TierName;

use crate::cluster::Cluster;
use crate::command_line::{Output, TopArguments};
use crate::pod_row::PodRow;
use crate::print;
use crate::refused::Refused;
use crate::sidecars;
use crate::table::table;

/// Clears a terminal and goes to its first line.
const CLEAR: &str = "\x1b[2J\x1b[H";

#[derive(Debug, Serialize)]
struct Look {
    time: String,
    pods: Vec<LiveRow>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct LiveRow {
    #[serde(flatten)]
    pod: PodRow,
    /// Since the look before.
    #[serde(skip_serializing_if = "Option::is_none")]
    refused_by_limits_per_second: Option<f64>,
}

/// What limits had refused, by pod, and when.
type Before = BTreeMap<(String, String), (u64, Instant)>;

pub(crate) async fn run(arguments: &TopArguments) -> Result<(), Refused> {
    let cluster = Cluster::connect(&arguments.scope.cluster).await?;
    let mut before = Before::new();
    let clears = arguments.output == Output::Table && std::io::stdout().is_terminal();
    for look in 1.. {
        let now = look_at(&cluster, arguments.scope.all_namespaces, &mut before).await?;
        let text = shown(&now, arguments.output)?;
        print::line(&if clears { format!("{CLEAR}{text}") } else { text })?;
        if arguments.count == Some(look) {
            break;
        }
        tokio::time::sleep(Duration::from_secs_f64(arguments.interval)).await;
    }
    Ok(())
}

async fn look_at(cluster: &Cluster, everywhere: bool, before: &mut Before) -> Result<Look, Refused> {
    let namespace = (!everywhere).then_some(cluster.namespace.as_str());
    let pods = cluster.list::<Pod>(namespace).await?;
    let pages = sidecars::ask(cluster, &pods).await;
    let at = Instant::now();
    let mut seen = Before::new();
    let guarded = pods.iter().filter_map(|pod| Some((pod, pages.get(&sidecars::key(pod))?)));
    let rows = guarded.map(|(pod, page)| {
        let pod = PodRow::new(pod, Some(page), None);
        let name = (pod.namespace.clone(), pod.name.clone());
        let refused = pod.state.as_ref().map(|state| state.refused_by_limits);
        let rate = refused.zip(before.get(&name)).map(|(now, (then, when))| {
            // A worker that started anew counts from nothing.
            now.saturating_sub(*then) as f64 / (at - *when).as_secs_f64().max(f64::EPSILON)
        });
        seen.extend(refused.map(|refused| (name, (refused, at))));
        LiveRow { pod, refused_by_limits_per_second: rate }
    });
    let pods = rows.collect();
    *before = seen;
    Ok(Look { time: Timestamp::now().to_string(), pods })
}

/// One object in each line as JSON, one document each as YAML.
fn shown(look: &Look, output: Output) -> Result<String, Refused> {
    match output {
        Output::Table => Ok(text(look)),
        Output::Json => serde_json::to_string(look).map_err(Refused::of),
        Output::Yaml => Ok(format!("---\n{}", print::form(output, look, String::new)?)),
    }
}

fn text(look: &Look) -> String {
    if look.pods.is_empty() {
        return "No pods with a sidecar.".to_owned();
    }
    let head =
        ["NAMESPACE", "POD", "REQ/S", "IN FLIGHT", "QUEUE", "PRESSURE", "LIMITED/S", "TIERS", "BREAKER"];
    let rows: Vec<_> = look.pods.iter().map(cells).collect();
    let mut text = table(head, &rows);
    for row in &look.pods {
        if let Some(error) = &row.pod.sidecar.unreachable {
            _ = writeln!(text, "! {}/{}: {error}", row.pod.namespace, row.pod.name);
        }
    }
    text.trim_end().to_owned()
}

fn cells(row: &LiveRow) -> [String; 9] {
    let state = row.pod.state.as_ref();
    let or_dash = |cell: Option<String>| cell.unwrap_or_else(|| "-".to_owned());
    let qps = state.and_then(|state| state.tiers.iter().find(|tier| tier.tier == TierName::Qps));
    [
        row.pod.namespace.clone(),
        row.pod.name.clone(),
        or_dash(qps.and_then(|tier| tier.value).map(|value| format!("{value:.1}"))),
        or_dash(state.map(|state| state.in_flight.to_string())),
        or_dash(state.and_then(|state| state.queue_length).map(|length| length.to_string())),
        or_dash(state.map(|state| format!("{:.2}", state.pressure))),
        or_dash(row.refused_by_limits_per_second.map(|rate| format!("{rate:.1}"))),
        row.pod.tiers(),
        row.pod.breaker().to_owned(),
    ]
}

#[cfg(test)]
mod tests;
