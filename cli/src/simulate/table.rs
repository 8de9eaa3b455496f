//! What a person reads.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use tidegate_policy::PriorityClass;

use super::replay::Record;

const CLASSES: [PriorityClass; 3] = [PriorityClass::High, PriorityClass::Medium, PriorityClass::Low];

pub(crate) fn of(record: &Record) -> String {
    let mut text = String::new();
    decisions(record, &mut text);
    latencies(record, &mut text);
    states(record, &mut text);
    text.truncate(text.trim_end().len());
    text
}

fn decisions(record: &Record, text: &mut String) {
    let mut rows = BTreeMap::<&str, [u64; 3]>::new();
    for ((decision, class), count) in &record.decisions {
        let row = rows.entry(decision).or_default();
        for (i, _) in CLASSES.iter().enumerate().filter(|(_, known)| *known == class) {
            row[i] += count;
        }
    }
    let width = rows.keys().map(|decision| decision.len()).chain([8]).max().unwrap_or_default();
    let requests: u64 = record.decisions.values().sum();
    _ = writeln!(text, "{requests} requests in {:.1} s of virtual time\n", record.duration.as_secs_f64());
    _ = writeln!(text, "{:width$} {:>9} {:>9} {:>9} {:>9}", "decision", "high", "medium", "low", "all");
    for (decision, [high, medium, low]) in rows {
        let all = high + medium + low;
        _ = writeln!(text, "{decision:width$} {high:>9} {medium:>9} {low:>9} {all:>9}");
    }
}

fn latencies(record: &Record, text: &mut String) {
    _ = writeln!(text, "\n{:20} {:>9} {:>9} {:>9}", "latency", "P50", "P99", "worst");
    for (name, samples) in [("time to first token", &record.first_token), ("whole answer", &record.total)] {
        let mut sorted = samples.clone();
        sorted.sort_unstable();
        let [p50, p99, worst] = [0.5, 0.99, 1.0].map(|share| quantile(&sorted, share));
        _ = writeln!(text, "{name:20} {p50:>9} {p99:>9} {worst:>9}");
    }
    if record.timed_out > 0 {
        _ = writeln!(text, "{} requests ran into the breaker's timeout", record.timed_out);
    }
}

/// The nearest-rank quantile.
fn quantile(sorted: &[Duration], share: f64) -> String {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    let sample = sorted.get(rank.saturating_sub(1));
    sample.map_or_else(|| "-".to_owned(), |sample| format!("{:.2} s", sample.as_secs_f64()))
}

fn states(record: &Record, text: &mut String) {
    let percent = 100.0 * record.gpu_peak as f64 / record.gpu_total.max(1) as f64;
    _ = writeln!(text, "\nGPU memory: at most {percent:.0} % in use");
    for tier in &record.last.tiers {
        let name = tier.tier.as_str();
        let trips = record.trips.get(name).copied().unwrap_or_default();
        let why = tier.last_trigger_reason.as_deref().map_or(String::new(), |why| format!(", last by {why}"));
        _ = writeln!(text, "tier {name}: trips {trips}{why}; at the end {}", tier.state.as_str());
    }
    if let Some(breaker) = &record.last.breaker {
        let opened = record.breaker_opened;
        _ = writeln!(text, "breaker: trips {opened}; at the end {}", breaker.state.as_str());
    }
}
