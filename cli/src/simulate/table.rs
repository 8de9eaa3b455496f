//! What a person reads in a terminal.

use std::fmt::Write as _;

use super::report::{KeyRow, PointRow, Report};

/// Widest row of blocks.
const COLUMNS: usize = 60;
const BLOCKS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

pub(crate) fn of(report: &Report) -> String {
    let mut text = String::new();
    decisions(report, &mut text);
    over_time(report, &mut text);
    keys(report, &mut text);
    latencies(report, &mut text);
    states(report, &mut text);
    notes(report, &mut text);
    text.truncate(text.trim_end().len());
    text
}

fn decisions(report: &Report, text: &mut String) {
    let labels: Vec<_> = report.decisions.iter().map(super::report::DecisionRow::label).collect();
    let width = labels.iter().map(String::len).chain([8]).max().unwrap_or_default();
    let from = report.start.as_ref().map_or(String::new(), |start| format!(", from {start}"));
    _ = writeln!(text, "{} requests in {:.1} s of virtual time{from}\n", report.requests, report.seconds);
    _ = writeln!(text, "{:width$} {:>9} {:>9} {:>9} {:>9}", "decision", "high", "medium", "low", "all");
    for (row, label) in report.decisions.iter().zip(labels) {
        let counts = row.requests;
        let (high, medium, low, all) = (counts.high, counts.medium, counts.low, counts.all());
        _ = writeln!(text, "{label:width$} {high:>9} {medium:>9} {low:>9} {all:>9}");
    }
}

/// A row of blocks for each decision and one for the pressure.
fn over_time(report: &Report, text: &mut String) {
    let points = &report.series.points;
    let merged = points.len().div_ceil(COLUMNS).max(1);
    let step = report.series.step_seconds * merged as f64;
    let rows = report.decisions.iter().enumerate().map(|(i, row)| {
        let all =
            |points: &[PointRow]| points.iter().map(|point| point.requests[i].all() as f64).sum::<f64>();
        (row.label(), points.chunks(merged).map(all).collect::<Vec<_>>(), None)
    });
    let highest = |points: &[PointRow]| points.iter().map(|point| point.pressure).fold(0.0, f64::max);
    let pressure = points.chunks(merged).map(highest).collect::<Vec<_>>();
    let rows: Vec<_> = rows.chain([("pressure".to_owned(), pressure, Some(1.0))]).collect();
    let width = rows.iter().map(|(label, _, _)| label.len()).max().unwrap_or_default();
    _ = writeln!(text, "\nover time, {step} s in each column");
    for (label, values, full) in rows {
        let top = values.iter().copied().fold(0.0, f64::max);
        let blocks: String = values.iter().map(|value| block(*value, full.unwrap_or(top))).collect();
        let most = match full {
            Some(_) => format!("at most {top:.2}"),
            None => format!("at most {:.1}/s", top / step),
        };
        _ = writeln!(text, "{label:width$} |{blocks}| {most}");
    }
}

/// Only nothing is blank.
fn block(value: f64, full: f64) -> char {
    let level = if full > 0.0 { (value / full * 8.0).ceil() } else { 0.0 };
    BLOCKS[(level as usize).min(8)]
}

fn keys(report: &Report, text: &mut String) {
    let mut before: Option<&KeyRow> = None;
    let width = report.keys.iter().map(|row| row.key.chars().count()).chain([3]).max().unwrap_or_default();
    for row in &report.keys {
        if before.is_none_or(|other| (&other.policy, &other.rule) != (&row.policy, &row.rule)) {
            let title = format!("keys of {} {}", row.policy, row.rule);
            _ = writeln!(text, "\n{title}");
            _ = writeln!(
                text,
                "{:width$} {:>9} {:>9} {:>15}",
                "key", "requests", "admitted", "refused by this"
            );
        }
        _ = writeln!(text, "{:width$} {:>9} {:>9} {:>15}", row.key, row.requests, row.admitted, row.refused);
        before = Some(row);
    }
}

fn latencies(report: &Report, text: &mut String) {
    let seconds = |seconds: Option<f64>| seconds.map_or_else(|| "-".to_owned(), |s| format!("{s:.2} s"));
    _ = writeln!(text, "\n{:20} {:>9} {:>9} {:>9}", "latency", "P50", "P99", "worst");
    for row in &report.latencies {
        let [p50, p99, worst] = [row.p50, row.p99, row.worst].map(seconds);
        _ = writeln!(text, "{:20} {p50:>9} {p99:>9} {worst:>9}", row.name);
    }
    if report.timed_out > 0 {
        _ = writeln!(text, "{} requests ran into the breaker's timeout", report.timed_out);
    }
    if report.too_long > 0 {
        _ = writeln!(text, "{} requests are longer than the engine takes: answered 400", report.too_long);
    }
}

fn states(report: &Report, text: &mut String) {
    text.push('\n');
    if let Some(share) = report.gpu_memory_peak {
        _ = writeln!(text, "GPU memory: at most {:.0} % in use", 100.0 * share);
    }
    for tier in &report.tiers {
        let why = tier.last_trigger_reason.as_ref().map_or(String::new(), |why| format!(", last by {why}"));
        _ = writeln!(text, "tier {}: trips {}{why}; at the end {}", tier.name, tier.trips, tier.at_the_end);
    }
    if let Some(breaker) = &report.breaker {
        _ = writeln!(text, "breaker: trips {}; at the end {}", breaker.trips, breaker.at_the_end);
    }
}

fn notes(report: &Report, text: &mut String) {
    text.push('\n');
    for note in &report.notes {
        _ = writeln!(text, "note: {note}");
    }
}
