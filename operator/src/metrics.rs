//! What the operator counts. Labels come from fixed lists; no name of a pod or a policy is one.

use std::sync::Arc;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

/// Labels of `tidegate_injections_total`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Injection {
    /// `injected` or `skipped`.
    pub(crate) outcome: &'static str,
    /// Of a skip; empty else.
    pub(crate) reason: &'static str,
}

/// Labels of `tidegate_admission_reviews_total`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Review {
    /// `mutate` or `validate`.
    pub(crate) webhook: &'static str,
    /// `allowed`, `denied` or `bad_request`.
    pub(crate) outcome: &'static str,
}

/// A label for whether something worked.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Outcome {
    /// `ok`, `failed` or what else is named at the place of use.
    pub(crate) outcome: &'static str,
}

/// A label for what a certificate is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Certificate {
    /// `authority` or `serving`.
    pub(crate) certificate: &'static str,
}

/// Everything that is counted; clones are the same counters.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    registry: Arc<Registry>,
    pub(crate) reviews: Family<Review, Counter>,
    pub(crate) injections: Family<Injection, Counter>,
    pub(crate) streams: Gauge,
    pub(crate) documents: Counter,
    pub(crate) delay: Histogram,
    pub(crate) token_reviews: Family<Outcome, Counter>,
    pub(crate) reports: Family<Outcome, Counter>,
    pub(crate) forwarded: Family<Outcome, Counter>,
    pub(crate) status_writes: Family<Outcome, Counter>,
    pub(crate) events: Family<Outcome, Counter>,
    pub(crate) certificate_expiry: Family<Certificate, Gauge>,
    pub(crate) leader: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        // From a millisecond to 8 s: the promise is one second from watch event to the last pod.
        let delay = Histogram::new((0..14).map(|power| 0.001 * f64::from(1 << power)));
        let mut metrics = Self {
            registry: Arc::default(),
            reviews: Family::default(),
            injections: Family::default(),
            streams: Gauge::default(),
            documents: Counter::default(),
            delay,
            token_reviews: Family::default(),
            reports: Family::default(),
            forwarded: Family::default(),
            status_writes: Family::default(),
            events: Family::default(),
            certificate_expiry: Family::default(),
            leader: Gauge::default(),
        };
        metrics.registry = Arc::new(metrics.register());
        metrics
    }
}

impl Metrics {
    fn register(&self) -> Registry {
        let mut registry = Registry::with_prefix("tidegate");
        registry.register("admission_reviews", "Admission reviews answered", self.reviews.clone());
        registry.register("injections", "Pods injected and skipped, by reason", self.injections.clone());
        registry.register("policy_streams", "Sidecars connected to this replica", self.streams.clone());
        registry.register(
            "policy_documents_sent",
            "Policy documents sent to sidecars",
            self.documents.clone(),
        );
        registry.register(
            "policy_delay_seconds",
            "Time from a watch event to the document that it changes being sent",
            self.delay.clone(),
        );
        registry.register("token_reviews", "Tokens of sidecars reviewed", self.token_reviews.clone());
        registry.register("reports", "Reports of sidecars taken", self.reports.clone());
        registry.register(
            "reports_forwarded",
            "Reports sent on to the replica that leads",
            self.forwarded.clone(),
        );
        registry.register("status_writes", "Writes of a policy's status", self.status_writes.clone());
        registry.register("events", "Kubernetes Events published", self.events.clone());
        registry.register(
            "certificate_expiry_timestamp_seconds",
            "When a certificate ends",
            self.certificate_expiry.clone(),
        );
        registry.register("leader", "Whether this replica writes status", self.leader.clone());
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "Version of the operator", version);
        registry
    }

    /// The text that Prometheus reads.
    pub(crate) fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}
