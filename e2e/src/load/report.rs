//! What became of every request, and the figures drawn from it.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use serde_json::{Value, json};
use tidegate_policy::PriorityClass;

/// The classes in the order of tables.
pub const CLASSES: [PriorityClass; 3] = [PriorityClass::High, PriorityClass::Medium, PriorityClass::Low];

/// How a request ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Answered in full by the engine.
    Served,
    /// Answered by the breaker's fallback endpoint.
    Fallback,
    /// Refused with a reason.
    Refused {
        /// The kind of rule, such as `qps-tier`.
        cause: String,
        /// The whole `x-tidegate-reason`.
        reason: String,
    },
    /// Answered with an error that is not a refusal, the engine's or a 502 or 504.
    Failed,
    /// Not answered, or not to the end.
    Lost {
        /// What happened.
        error: String,
    },
}

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// When it should have been sent, since the start of the load.
    pub at: Duration,
    /// How much later it was handed to the network.
    pub late: Duration,
    /// The class it claimed.
    pub class: Option<PriorityClass>,
    /// Status of the last answer; 0 without one.
    pub status: u16,
    /// How it ended.
    pub outcome: Outcome,
    /// The advice of a refusal.
    pub retry_after: Option<Duration>,
    /// Intended send time to first byte of the body.
    pub ttft: Option<Duration>,
    /// Intended send time to the end.
    pub total: Duration,
    /// How often it was sent.
    pub attempts: u32,
}

impl Sample {
    /// Whether the engine (not the fallback) answered it in full.
    pub fn served(&self) -> bool {
        self.outcome == Outcome::Served
    }

    /// Whether it was refused with a reason.
    pub fn refused(&self) -> bool {
        matches!(self.outcome, Outcome::Refused { .. })
    }

    /// The cause of the refusal.
    pub fn cause(&self) -> Option<&str> {
        match &self.outcome {
            Outcome::Refused { cause, .. } => Some(cause),
            _ => None,
        }
    }
}

/// Percentiles of a latency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Latency {
    /// How many requests it is drawn from.
    pub count: usize,
    /// Median.
    pub p50: Duration,
    /// 90th percentile.
    pub p90: Duration,
    /// 99th percentile.
    pub p99: Duration,
    /// Largest.
    pub max: Duration,
}

impl Latency {
    /// Nearest-rank percentiles.
    pub fn of(mut values: Vec<Duration>) -> Self {
        values.sort_unstable();
        let rank = |p: f64| {
            let at = (p * values.len() as f64).ceil() as usize;
            values.get(at.saturating_sub(1)).copied().unwrap_or_default()
        };
        Self { count: values.len(), p50: rank(0.5), p90: rank(0.9), p99: rank(0.99), max: rank(1.0) }
    }

    fn json(&self) -> Value {
        let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
        json!({"count": self.count, "p50Ms": ms(self.p50), "p90Ms": ms(self.p90), "p99Ms": ms(self.p99),
            "maxMs": ms(self.max)})
    }
}

/// Counts of one class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// All.
    pub sent: usize,
    /// Answered in full by the engine.
    pub served: usize,
    /// Answered by the fallback.
    pub fallback: usize,
    /// Refused with a reason.
    pub refused: usize,
    /// Answered with another error.
    pub failed: usize,
    /// Not answered.
    pub lost: usize,
}

/// All requests that have ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// In the order in which they ended.
    pub samples: Vec<Sample>,
}

impl Report {
    /// The samples of a class; all with `None`.
    pub fn of(&self, class: Option<PriorityClass>) -> impl Iterator<Item = &Sample> {
        self.samples.iter().filter(move |sample| class.is_none() || sample.class == class)
    }

    /// Counts of a class; of all with `None`.
    pub fn counts(&self, class: Option<PriorityClass>) -> Counts {
        let mut counts = Counts::default();
        for sample in self.of(class) {
            counts.sent += 1;
            let counter = match sample.outcome {
                Outcome::Served => &mut counts.served,
                Outcome::Fallback => &mut counts.fallback,
                Outcome::Refused { .. } => &mut counts.refused,
                Outcome::Failed => &mut counts.failed,
                Outcome::Lost { .. } => &mut counts.lost,
            };
            *counter += 1;
        }
        counts
    }

    /// Requests of a class that the engine answered in full.
    pub fn served(&self, class: PriorityClass) -> usize {
        self.counts(Some(class)).served
    }

    /// Requests of a class that were refused with a reason.
    pub fn refused(&self, class: PriorityClass) -> usize {
        self.counts(Some(class)).refused
    }

    /// What happened to the requests that were not answered, each text with its count.
    pub fn losses(&self) -> BTreeMap<&str, usize> {
        tally(self.samples.iter().filter_map(|sample| match &sample.outcome {
            Outcome::Lost { error } => Some(error.as_str()),
            _ => None,
        }))
    }

    /// Refusals of a class by cause.
    pub fn causes(&self, class: Option<PriorityClass>) -> BTreeMap<&str, usize> {
        tally(self.of(class).filter_map(Sample::cause))
    }

    /// Answers by status.
    pub fn statuses(&self) -> BTreeMap<u16, usize> {
        tally(self.samples.iter().map(|sample| sample.status))
    }

    /// Time to the first token of what the engine served.
    pub fn ttft(&self, class: Option<PriorityClass>) -> Latency {
        Latency::of(
            self.of(class).filter(|sample| sample.served()).filter_map(|sample| sample.ttft).collect(),
        )
    }

    /// Total latency of what the engine served.
    pub fn total(&self, class: Option<PriorityClass>) -> Latency {
        Latency::of(self.of(class).filter(|sample| sample.served()).map(|sample| sample.total).collect())
    }

    /// How late requests were handed to the network.
    pub fn lateness(&self) -> Latency {
        Latency::of(self.samples.iter().map(|sample| sample.late).collect())
    }

    /// The requests whose intended time lies in `from..to`.
    #[must_use]
    pub fn between(&self, from: Duration, to: Duration) -> Self {
        let within = |sample: &&Sample| (from..to).contains(&sample.at);
        Self { samples: self.samples.iter().filter(within).cloned().collect() }
    }

    /// Adds another load's requests, as of another pod.
    pub fn merge(&mut self, other: Self) {
        self.samples.extend(other.samples);
    }

    /// Everything but the single requests.
    pub fn json(&self) -> Value {
        let classes: serde_json::Map<String, Value> = CLASSES
            .iter()
            .map(|class| (name(Some(*class)).to_owned(), self.class_json(Some(*class))))
            .chain([("all".to_owned(), self.class_json(None))])
            .collect();
        let statuses: BTreeMap<String, usize> =
            self.statuses().into_iter().map(|(status, count)| (status.to_string(), count)).collect();
        json!({"classes": classes, "statuses": statuses, "losses": self.losses(),
            "lateness": self.lateness().json()})
    }

    fn class_json(&self, class: Option<PriorityClass>) -> Value {
        let counts = self.counts(class);
        json!({"sent": counts.sent, "served": counts.served, "fallback": counts.fallback,
            "refused": counts.refused, "failed": counts.failed, "lost": counts.lost,
            "causes": self.causes(class), "ttft": self.ttft(class).json(), "total": self.total(class).json()})
    }

    /// The table for people.
    pub fn table(&self) -> String {
        let mut text = format!(
            "{:8} {:>7} {:>7} {:>8} {:>7} {:>6} {:>5}   {:>17}   {:>17}  refused by\n",
            "priority",
            "sent",
            "served",
            "fallback",
            "refused",
            "failed",
            "lost",
            "TTFT P50/P99 ms",
            "total P50/P99 ms"
        );
        for class in CLASSES.map(Some).into_iter().chain([None]) {
            self.row(&mut text, class);
        }
        for (error, count) in self.losses() {
            // Writing to a String does not fail.
            let _ = writeln!(text, "lost {count}: {error}");
        }
        text
    }

    fn row(&self, text: &mut String, class: Option<PriorityClass>) {
        let counts = self.counts(class);
        let causes: Vec<String> =
            self.causes(class).into_iter().map(|(cause, count)| format!("{cause} {count}")).collect();
        // Writing to a String does not fail.
        let _ = writeln!(
            text,
            "{:8} {:>7} {:>7} {:>8} {:>7} {:>6} {:>5}   {:>17}   {:>17}  {}",
            name(class),
            counts.sent,
            counts.served,
            counts.fallback,
            counts.refused,
            counts.failed,
            counts.lost,
            pair(self.ttft(class)),
            pair(self.total(class)),
            causes.join(", "),
        );
    }
}

/// A class as in headers; `all` for none.
pub fn name(class: Option<PriorityClass>) -> &'static str {
    match class {
        Some(PriorityClass::High) => "high",
        Some(PriorityClass::Medium) => "medium",
        Some(PriorityClass::Low) => "low",
        None => "all",
    }
}

fn pair(latency: Latency) -> String {
    if latency.count == 0 {
        return "-".to_owned();
    }
    format!("{} / {}", latency.p50.as_millis(), latency.p99.as_millis())
}

fn tally<T: Ord>(items: impl Iterator<Item = T>) -> BTreeMap<T, usize> {
    let mut counts = BTreeMap::new();
    for item in items {
        *counts.entry(item).or_insert(0) += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(class: PriorityClass, outcome: Outcome, millis: u64) -> Sample {
        Sample {
            at: Duration::from_millis(millis),
            late: Duration::ZERO,
            class: Some(class),
            status: 200,
            outcome,
            retry_after: None,
            ttft: Some(Duration::from_millis(millis)),
            total: Duration::from_millis(millis * 2),
            attempts: 1,
        }
    }

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let latency = Latency::of((1..=200).map(Duration::from_millis).collect());
        assert_eq!(latency.p50, Duration::from_millis(100));
        assert_eq!(latency.p99, Duration::from_millis(198));
        assert_eq!(latency.max, Duration::from_millis(200));
        assert_eq!(Latency::of(Vec::new()), Latency::default());
    }

    #[test]
    fn every_request_is_in_exactly_one_column_and_only_the_served_have_latencies() {
        let refused = Outcome::Refused { cause: "qps-tier".into(), reason: "qps-tier; policy=a/b".into() };
        let report = Report {
            samples: vec![
                sample(PriorityClass::High, Outcome::Served, 10),
                sample(PriorityClass::Low, refused, 20),
                sample(PriorityClass::Low, Outcome::Fallback, 30),
                sample(PriorityClass::Low, Outcome::Lost { error: "cut".into() }, 40),
            ],
        };
        let all = report.counts(None);
        assert_eq!(all.sent, all.served + all.fallback + all.refused + all.failed + all.lost);
        assert_eq!(report.refused(PriorityClass::Low), 1);
        assert_eq!(report.causes(None)["qps-tier"], 1);
        assert_eq!(report.total(None).max, Duration::from_millis(20));
        assert!(report.table().contains("lost 1: cut"));
        let half = report.between(Duration::from_millis(15), Duration::from_millis(35));
        assert_eq!(half.samples.len(), 2);
        assert_eq!(report.json()["classes"]["low"]["refused"], 1);
    }
}
