//! What became of spans.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::registry::Registry;

/// How a span ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpanOutcome {
    /// The collector has it.
    Exported,
    /// The queue was full.
    Dropped,
    /// The collector did not take it.
    Failed,
}

const OUTCOMES: [(SpanOutcome, &str); 3] =
    [(SpanOutcome::Exported, "exported"), (SpanOutcome::Dropped, "dropped"), (SpanOutcome::Failed, "failed")];

/// Counts of spans. Clones are the same counts.
#[derive(Debug, Clone, Default)]
pub struct Traces(Arc<[AtomicU64; OUTCOMES.len()]>);

impl Traces {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let this = Self::default();
        registry.register_collector(Box::new(this.clone()));
        this
    }

    /// So many ended so.
    pub fn count(&self, outcome: SpanOutcome, count: u64) {
        self.0[outcome as usize].fetch_add(count, Ordering::Relaxed);
    }

    /// How many ended so.
    pub fn get(&self, outcome: SpanOutcome) -> u64 {
        self.0[outcome as usize].load(Ordering::Relaxed)
    }
}

impl Collector for Traces {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let help = "Spans of sampled requests, by what became of them";
        let mut family = encoder.encode_descriptor("trace_spans", help, None, MetricType::Counter)?;
        for (outcome, name) in OUTCOMES {
            let labels = [("outcome", name)];
            ConstCounter::new(self.get(outcome)).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
