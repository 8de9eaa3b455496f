//! What the inference engine says about its own load, as metrics. A number that it does not tell is absent: a zero
//! would be a lie.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use tidegate_policy::report::EngineLoad;

/// The newest snapshot's. Never touched on the way of a request.
#[derive(Debug, Default)]
pub(super) struct Load(Mutex<Option<EngineLoad>>);

impl Load {
    pub(super) fn set(&self, load: Option<EngineLoad>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = load;
    }
}

/// Writes it at each scrape.
#[derive(Debug)]
pub(super) struct Exported(pub(super) Arc<Load>);

impl Collector for Exported {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(load) = *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) else { return Ok(()) };
        if let Some(usage) = load.kv_cache_usage {
            let help = "Share of the inference engine's KV cache in use, 0 to 1, as it says";
            write(&mut encoder, "engine_kv_cache_usage_ratio", help, &ConstGauge::new(usage))?;
        }
        if let Some(running) = load.running {
            let help = "Requests in the inference engine's running batch, as it says";
            write(&mut encoder, "engine_requests_running", help, &ConstGauge::new(running))?;
        }
        if let Some(waiting) = load.waiting {
            let help = "Requests that wait in the inference engine, as it says";
            write(&mut encoder, "engine_requests_waiting", help, &ConstGauge::new(waiting))?;
        }
        if let Some(preemptions) = load.preemptions {
            let help = "Requests that the inference engine preempted, as it says";
            write(&mut encoder, "engine_preemptions", help, &ConstCounter::new(preemptions))?;
        }
        let help = "Age in seconds of the newest reading of the inference engine's metrics";
        let age = ConstGauge::new(load.age_millis as f64 / 1000.0);
        write(&mut encoder, "engine_metrics_age_seconds", help, &age)
    }
}

fn write(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    metric: &impl EncodeMetric,
) -> fmt::Result {
    metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
}
