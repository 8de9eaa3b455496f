//! What a replay tells, as `-o json` and `-o yaml` print it and as the table and the plot show it.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;
use tidegate_policy::PolicyDocument;

use super::record::{KeyCount, Record, Verdict};

/// All that a replay tells.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report {
    pub(crate) requests: u64,
    /// Virtual time from the first request to the last answer.
    pub(crate) seconds: f64,
    /// The first request, when the log gives dates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) start: Option<String>,
    /// What the log does not say and was made up, and what it says for nothing.
    pub(crate) notes: Vec<String>,
    pub(crate) decisions: Vec<DecisionRow>,
    pub(crate) keys: Vec<KeyRow>,
    pub(crate) latencies: Vec<LatencyRow>,
    /// Requests that ran into the breaker's timeout.
    pub(crate) timed_out: u64,
    /// Requests that are longer than the engine model takes: answered 400.
    pub(crate) too_long: u64,
    /// Largest share of the GPU's memory in use, when an engine model said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) gpu_memory_peak: Option<f64>,
    pub(crate) tiers: Vec<TierRow>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) breaker: Option<BreakerRow>,
    pub(crate) series: Series,
}

/// Requests by class.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct ByClass {
    pub(crate) high: u64,
    pub(crate) medium: u64,
    pub(crate) low: u64,
}

/// Requests of one verdict by one rule.
#[derive(Debug, Serialize)]
pub(crate) struct DecisionRow {
    /// `admitted`, `shadow` (admitted by a policy in `Shadow` mode that would have refused), `refused`, `fallback`.
    pub(crate) verdict: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cause: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) policy: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rule: Option<String>,
    #[serde(flatten)]
    pub(crate) requests: ByClass,
}

/// One key of one limit.
#[derive(Debug, Serialize)]
pub(crate) struct KeyRow {
    pub(crate) policy: String,
    pub(crate) rule: String,
    pub(crate) key: String,
    pub(crate) requests: u64,
    pub(crate) admitted: u64,
    /// By this limit.
    pub(crate) refused: u64,
}

/// Quantiles in seconds; absent without a sample.
#[derive(Debug, Serialize)]
pub(crate) struct LatencyRow {
    pub(crate) name: &'static str,
    pub(crate) p50: Option<f64>,
    pub(crate) p99: Option<f64>,
    pub(crate) worst: Option<f64>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TierRow {
    pub(crate) name: &'static str,
    pub(crate) trips: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) last_trigger_reason: Option<String>,
    pub(crate) at_the_end: &'static str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BreakerRow {
    pub(crate) trips: u64,
    pub(crate) at_the_end: &'static str,
}

/// The replay over time.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Series {
    pub(crate) step_seconds: f64,
    pub(crate) points: Vec<PointRow>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PointRow {
    /// Seconds since the first request at which the step begins.
    pub(crate) at: f64,
    /// In the order of `decisions`.
    pub(crate) requests: Vec<ByClass>,
    /// Highest in the step, 0 to 1.
    pub(crate) pressure: f64,
    /// Most in the step.
    pub(crate) in_flight: u64,
    /// Tiers that refused low at some time in the step.
    pub(crate) shedding: Vec<&'static str>,
    /// Whether the breaker was open or half-open at some time in the step.
    pub(crate) breaker_open: bool,
}

impl ByClass {
    const fn of([high, medium, low]: [u64; 3]) -> Self {
        Self { high, medium, low }
    }

    pub(crate) const fn all(self) -> u64 {
        self.high + self.medium + self.low
    }
}

impl DecisionRow {
    /// In words.
    pub(crate) fn label(&self) -> String {
        let what = match self.verdict {
            "shadow" => "admitted, in Shadow mode",
            verdict => verdict,
        };
        match (self.cause, &self.policy, &self.rule) {
            (Some(cause), Some(policy), Some(rule)) => format!("{what}: {cause} ({policy} {rule})"),
            _ => what.to_owned(),
        }
    }
}

impl Report {
    /// The report of a record, with at most `top` keys of each limit.
    pub(crate) fn new(
        record: &Record,
        document: &PolicyDocument,
        top: usize,
        start: Option<String>,
        notes: Vec<String>,
    ) -> Self {
        let order = order(record);
        Self {
            requests: record.requests,
            seconds: record.duration.as_secs_f64(),
            start,
            notes,
            decisions: order.iter().map(|row| decision(record, *row)).collect(),
            keys: keys(record, document, top),
            latencies: vec![
                latency("time to first token", &record.first_token),
                latency("whole answer", &record.total),
            ],
            timed_out: record.timed_out,
            too_long: record.too_long,
            gpu_memory_peak: record.gpu.map(|(used, total)| used as f64 / total.max(1) as f64),
            tiers: tiers(record),
            breaker: record.last.breaker.as_ref().map(|breaker| BreakerRow {
                trips: record.breaker_opened,
                at_the_end: breaker.state.as_str(),
            }),
            series: series(record, &order),
        }
    }
}

/// Rows in an order that does not depend on which was met first.
fn order(record: &Record) -> Vec<usize> {
    let mut order: Vec<_> = (0..record.rows.len()).collect();
    order.sort_by_cached_key(|row| (record.rows[*row].verdict, decision(record, *row).label()));
    order
}

fn decision(record: &Record, row: usize) -> DecisionRow {
    let row = &record.rows[row];
    let rule = row.rule.as_ref();
    DecisionRow {
        verdict: match row.verdict {
            Verdict::Admitted => "admitted",
            Verdict::Shadow => "shadow",
            Verdict::Refused => "refused",
            Verdict::Fallback => "fallback",
        },
        cause: rule.map(|(cause, _)| cause.as_str()),
        policy: rule.map(|(_, rule)| rule.policy.clone()),
        rule: rule.map(|(_, rule)| rule.name.clone()),
        requests: ByClass::of(row.counts),
    }
}

/// Of each limit the keys with the most refusals.
fn keys(record: &Record, document: &PolicyDocument, top: usize) -> Vec<KeyRow> {
    let mut rows = Vec::new();
    for (limit, keys) in document.limits.iter().zip(&record.keys) {
        let mut known: Vec<_> = keys.known.iter().collect();
        known.sort_unstable_by(|(a, left), (b, right)| {
            (right.refused, right.requests, a).cmp(&(left.refused, left.requests, b))
        });
        let row = |key: String, count: KeyCount| KeyRow {
            policy: limit.policy.clone(),
            rule: limit.name.clone(),
            key,
            requests: count.requests,
            admitted: count.admitted,
            refused: count.refused,
        };
        let mut others = keys.others;
        for (_, count) in known.iter().skip(top) {
            others.requests += count.requests;
            others.admitted += count.admitted;
            others.refused += count.refused;
        }
        rows.extend(known.into_iter().take(top).map(|(key, count)| row(key.clone(), *count)));
        if others.requests > 0 {
            rows.push(row("all other keys".to_owned(), others));
        }
    }
    rows
}

fn latency(name: &'static str, samples: &Histogram<u64>) -> LatencyRow {
    let quantile = |share: f64| {
        let seconds = Duration::from_micros(samples.value_at_quantile(share)).as_secs_f64();
        (!samples.is_empty()).then_some(seconds)
    };
    LatencyRow { name, p50: quantile(0.5), p99: quantile(0.99), worst: quantile(1.0) }
}

fn tiers(record: &Record) -> Vec<TierRow> {
    let row = |tier: &tidegate_policy::report::TierStatus| TierRow {
        name: tier.tier.as_str(),
        trips: record.trips.get(tier.tier.as_str()).copied().unwrap_or_default(),
        last_trigger_reason: tier.last_trigger_reason.clone(),
        at_the_end: tier.state.as_str(),
    };
    record.last.tiers.iter().map(row).collect()
}

fn series(record: &Record, order: &[usize]) -> Series {
    let begins = |i: usize| record.step.saturating_mul(u32::try_from(i).unwrap_or(u32::MAX));
    let points = record.points.iter().enumerate().map(|(i, point)| PointRow {
        at: begins(i).as_secs_f64(),
        requests: order
            .iter()
            .map(|row| ByClass::of(point.counts.get(*row).copied().unwrap_or_default()))
            .collect(),
        pressure: point.pressure,
        in_flight: point.in_flight,
        shedding: point.shedding.clone(),
        breaker_open: point.broken,
    });
    Series { step_seconds: record.step.as_secs_f64(), points: points.collect() }
}
