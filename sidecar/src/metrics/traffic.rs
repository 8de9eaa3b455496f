//! What is counted for each request. Every worker thread writes to a stripe of its own; a scrape adds them up.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::registry::Registry;
use tidegate_core::Cause;

use super::histogram::{self, Histogram};
use super::protocol_refusal::{PROTOCOL_REFUSALS, ProtocolRefusal};
use super::stripes::Striped;
use super::verdict::{COMBINATIONS, Labels, class_name};
use crate::route::Route;

const CODE_CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
/// Upper bounds in milliseconds: from a cached answer to the longest completion.
const BUCKETS: [u64; 17] =
    [1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 30_000, 60_000, 120_000, 300_000];

/// The counters of the data path. Clones are the same counters.
#[derive(Clone)]
pub struct Traffic(Arc<Counters>);

struct Counters {
    stripes: Striped<Stripe>,
    /// A bit for each route that was asked for. Written once for each.
    routes: AtomicU64,
}

#[derive(Default)]
struct Stripe {
    requests: Requests,
    responses: [AtomicU64; CODE_CLASSES.len()],
    protocol_refused: [AtomicU64; PROTOCOL_REFUSALS.len()],
    panics: AtomicU64,
    duration: Histogram<{ BUCKETS.len() }>,
    first_byte: Histogram<{ BUCKETS.len() }>,
    queue: Histogram<{ BUCKETS.len() }>,
}

struct Requests([AtomicU64; COMBINATIONS]);

impl Traffic {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let traffic = Self(Arc::new(Counters { stripes: Striped::new(), routes: AtomicU64::new(0) }));
        registry.register_collector(Box::new(traffic.clone()));
        traffic
    }

    /// A request was judged.
    pub fn judged(&self, labels: Labels) {
        self.0.stripes.mine().requests.0[labels.index()].fetch_add(1, Ordering::Relaxed);
    }

    /// A request for this route arrived.
    pub fn asked_for(&self, route: Route) {
        let bit = 1 << route as u64;
        if self.0.routes.load(Ordering::Relaxed) & bit == 0 {
            self.0.routes.fetch_or(bit, Ordering::Relaxed);
        }
    }

    /// Routes that were asked for.
    pub(super) fn routes(&self) -> impl Iterator<Item = Route> {
        let routes = self.0.routes.load(Ordering::Relaxed);
        Route::ALL.into_iter().filter(move |route| routes & (1 << *route as u64) != 0)
    }

    /// The head of an answer with this status went to the client.
    pub fn responded(&self, status: u16) {
        let class = usize::from(status / 100).clamp(1, CODE_CLASSES.len()) - 1;
        self.0.stripes.mine().responses[class].fetch_add(1, Ordering::Relaxed);
    }

    /// An answer of the engine is over, `total` after the request arrived; its first byte came after `first_byte`.
    pub fn finished(&self, total: Duration, first_byte: Option<Duration>) {
        let stripe = self.0.stripes.mine();
        stripe.duration.observe(&BUCKETS, total);
        if let Some(first_byte) = first_byte {
            stripe.first_byte.observe(&BUCKETS, first_byte);
        }
    }

    /// A request has waited in the queue.
    pub fn queued(&self, waited: Duration) {
        self.0.stripes.mine().queue.observe(&BUCKETS, waited);
    }

    /// A connection was refused for what it speaks.
    pub fn protocol_refused(&self, reason: ProtocolRefusal) {
        self.0.stripes.mine().protocol_refused[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// A request ended by a panic.
    pub fn panicked(&self) {
        self.0.stripes.mine().panics.fetch_add(1, Ordering::Relaxed);
    }

    fn encode_requests(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mut family = encoder.encode_descriptor(
            "requests",
            "Requests by what became of them at their arrival",
            None,
            MetricType::Counter,
        )?;
        for labels in Labels::all() {
            let index = labels.index();
            let count = self.0.stripes.sum(|stripe| &stripe.requests.0[index]);
            if count > 0 {
                let cause = labels.cause.map_or("", Cause::as_str);
                let set = [
                    ("decision", labels.verdict.as_str()),
                    ("cause", cause),
                    ("priority", labels.class.map_or("", |class| class_name(class as usize))),
                ];
                encode_count(count, family.encode_family(&set)?)?;
            }
        }
        Ok(())
    }

    fn encode_counts(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mut family = encoder.encode_descriptor(
            "responses",
            "Answers by the class of their status code, refusals included",
            None,
            MetricType::Counter,
        )?;
        for (i, class) in CODE_CLASSES.iter().enumerate() {
            let count = self.0.stripes.sum(|stripe| &stripe.responses[i]);
            encode_count(count, family.encode_family(&[("code_class", *class)])?)?;
        }
        let mut family = encoder.encode_descriptor(
            "protocol_refused",
            "Connections and requests refused before any policy was asked",
            None,
            MetricType::Counter,
        )?;
        for (i, reason) in PROTOCOL_REFUSALS.iter().enumerate() {
            let count = self.0.stripes.sum(|stripe| &stripe.protocol_refused[i]);
            encode_count(count, family.encode_family(&[("reason", reason.as_str())])?)?;
        }
        let panics = encoder.encode_descriptor(
            "request_panics",
            "Requests that ended by a defect of the sidecar",
            None,
            MetricType::Counter,
        )?;
        encode_count(self.0.stripes.sum(|stripe| &stripe.panics), panics)
    }

    fn encode_histogram(
        &self,
        metric: &mut MetricEncoder<'_>,
        read: impl Fn(&Stripe) -> &Histogram<{ BUCKETS.len() }>,
    ) -> fmt::Result {
        histogram::sum(&self.0.stripes, read, &BUCKETS).write::<NoLabelSet>(metric)
    }
}

fn encode_count(count: u64, metric: MetricEncoder<'_>) -> fmt::Result {
    ConstCounter::new(count).encode(metric)
}

impl Collector for Traffic {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.encode_requests(&mut encoder)?;
        self.encode_counts(&mut encoder)?;
        let mut duration = encoder.encode_descriptor(
            "request_duration_seconds",
            "From the arrival of a request to the last byte of its answer",
            None,
            MetricType::Histogram,
        )?;
        self.encode_histogram(&mut duration, |stripe| &stripe.duration)?;
        let mut first_byte = encoder.encode_descriptor(
            "time_to_first_byte_seconds",
            "From the arrival of a request to the first byte of its answer's body",
            None,
            MetricType::Histogram,
        )?;
        self.encode_histogram(&mut first_byte, |stripe| &stripe.first_byte)?;
        let mut queue = encoder.encode_descriptor(
            "queue_wait_seconds",
            "What requests in the queue waited, however it ended",
            None,
            MetricType::Histogram,
        )?;
        self.encode_histogram(&mut queue, |stripe| &stripe.queue)
    }
}

impl fmt::Debug for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Traffic").finish_non_exhaustive()
    }
}

impl Default for Requests {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

#[cfg(test)]
mod tests {
    use tidegate_policy::PriorityClass;

    use super::super::verdict::Verdict;
    use super::*;

    #[test]
    fn a_scrape_adds_up_what_all_threads_counted() {
        let mut registry = Registry::with_prefix("tidegate");
        let traffic = Traffic::register(&mut registry);
        let labels =
            Labels { verdict: Verdict::Refused, cause: Some(Cause::Limit), class: Some(PriorityClass::Low) };
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    traffic.judged(labels);
                    traffic.responded(429);
                    traffic.finished(Duration::from_millis(3), Some(Duration::from_millis(1)));
                    traffic.protocol_refused(ProtocolRefusal::Tls);
                });
            }
        });
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            r#"tidegate_requests_total{decision="refused",cause="limit",priority="low"} 4"#,
            r#"tidegate_responses_total{code_class="4xx"} 4"#,
            r#"tidegate_protocol_refused_total{reason="tls"} 4"#,
            r#"tidegate_request_duration_seconds_bucket{le="0.002"} 0"#,
            r#"tidegate_request_duration_seconds_bucket{le="0.005"} 4"#,
            r#"tidegate_time_to_first_byte_seconds_bucket{le="0.001"} 4"#,
            r#"tidegate_request_duration_seconds_bucket{le="+Inf"} 4"#,
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is missing in\n{text}");
        }
    }
}
