//! The figures beside what is asked.

use std::fmt::Write as _;
use std::time::Duration;

use super::Figures;
use crate::apiserver::Requests;
use crate::bench::report::Machine;

pub(super) fn written(figures: &Figures) -> String {
    let machine = Machine::here(Vec::new());
    let size = figures.size;
    let mut text = format!(
        "# Scale\n\n{} pods on {} nodes, {} policies; {}, Linux {}, shared with the API server, etcd and all sidecars.\n\n\
         | figure | measured | asked |\n|---|---|---|\n",
        size.pods, size.nodes, size.policies, machine.processor, machine.kernel
    );
    for (figure, measured, asked) in rows(figures) {
        _ = writeln!(text, "| {figure} | {measured} | {asked} |");
    }
    let titles =
        ["from the operator's start until all was quiet again", "in a minute in which nothing happens"];
    for (title, requests) in titles.into_iter().zip(&figures.requests) {
        _ = write!(text, "\nRequests to the API server {title}:\n\n{}", table(requests, size.pods));
    }
    text
}

fn rows(figures: &Figures) -> Vec<(&'static str, String, &'static str)> {
    let mut changes = figures.changes.clone();
    changes.sort_unstable();
    let back = figures.back;
    vec![
        (
            "A change of the policy of every pod, until the last sidecar has it: median, slowest",
            format!("{:.0?}, {:.0?}", at(&changes, 0.5), at(&changes, 1.0)),
            "< 1 s",
        ),
        ("Resident memory of the operator, the most", format!("{:.0} MiB", figures.whole.rss), "≤ 150 MiB"),
        (
            "CPU while that policy changes every second: average, busiest second",
            format!("{:.2}, {:.2} cores", figures.burst.cores, figures.burst.burst),
            "≤ 1 core",
        ),
        ("CPU while nothing changes", format!("{:.3} cores", figures.rest.cores), ""),
        ("Webhook at 200 reviews/s: median, P99, slowest", of_reviews(&figures.reviews), "P99 ≤ 5 ms"),
        ("Operator killed: from its start until it is ready", format!("{:.1?}", back.start_up), ""),
        ("then until the last sidecar has its stream", format!("{:.1?}", back.all), ""),
        ("the most streams that opened within 0.1 s", back.most.to_string(), "spread"),
        ("sidecars turned away meanwhile", back.refused.to_string(), "0"),
    ]
}

/// Median, P99 and slowest, of what is sorted.
pub(super) fn of_reviews(reviews: &[Duration]) -> String {
    format!("{:.1?}, {:.1?}, {:.1?}", at(reviews, 0.5), at(reviews, 0.99), at(reviews, 1.0))
}

/// The one at a share of all, which are sorted.
fn at(all: &[Duration], share: f64) -> Duration {
    all.get((all.len() as f64 * share) as usize).or(all.last()).copied().unwrap_or_default()
}

fn table(requests: &Requests, pods: usize) -> String {
    let mut text = String::from("| request | count | per pod |\n|---|---|---|\n");
    for (what, count) in requests {
        _ = writeln!(text, "| {what} | {count} | {:.3} |", *count as f64 / pods.max(1) as f64);
    }
    text
}
