//! What the sidecar counts, in Prometheus' terms.

mod bounded;
mod decisions;
mod engine_load;
mod engine_state;
mod fallbacks;
mod gen_ai;
mod histogram;
mod hooks;
mod identity;
mod protocol_refusal;
mod stripes;
mod tiers;
mod traces;
mod traffic;
mod verdict;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use tidegate_core::Tick;
use tidegate_policy::report::{LimitStatus, Status};

pub use decisions::Decisions;
use engine_state::EngineState;
pub use fallbacks::{FallbackOutcome, Fallbacks};
pub use gen_ai::{End, GenAi};
pub use hooks::{HookOutcome, Hooks};
pub use identity::Identity;
pub use protocol_refusal::ProtocolRefusal;
pub use traces::{SpanOutcome, Traces};
pub use traffic::Traffic;
pub use verdict::{Labels, Verdict};

/// All metrics of one worker process.
#[derive(Debug)]
pub struct Metrics {
    /// What the proxy counts for each request.
    pub traffic: Traffic,
    /// What answered in place of the engine.
    pub fallbacks: Fallbacks,
    /// What became of events for hooks.
    pub hooks: Hooks,
    /// What became of callers' tokens.
    pub identity: Identity,
    /// What rules refused.
    pub decisions: Decisions,
    /// What generating took.
    pub gen_ai: GenAi,
    /// What became of spans.
    pub traces: Traces,
    registry: Registry,
    /// Of the metrics whose names were given to them elsewhere.
    plain: Registry,
    engine: EngineState,
    in_flight: Gauge,
    bucket_remaining: Family<[(&'static str, &'static str); 1], Gauge>,
    connections: Gauge,
    policy: PolicyMetrics,
    gpu: GpuMetrics,
    load_errors: Counter,
    worker_restarts: Counter,
}

#[derive(Debug, Default)]
struct PolicyMetrics {
    info: Family<[(&'static str, String); 2], Gauge>,
    refused: Counter,
    applied: Gauge,
    operator_connected: Gauge,
}

#[derive(Debug, Default)]
struct GpuMetrics {
    used: Gauge,
    total: Gauge,
    age: Gauge<f64, AtomicU64>,
    errors: Family<[(&'static str, &'static str); 1], Counter>,
    /// Nanoseconds of the tick of the newest reading; 0 before the first.
    read_at: AtomicU64,
}

impl Metrics {
    /// All at zero. So many addresses of clients are told apart in `rate_limited_total`.
    pub fn new(addresses: usize) -> Self {
        let mut registry = Registry::with_prefix("tidegate");
        let mut plain = Registry::default();
        let in_flight = Gauge::default();
        registry.register("in_flight", "Requests and spliced connections in flight", in_flight.clone());
        let connections = Gauge::default();
        registry.register("connections", "Connections of clients", connections.clone());
        let worker_restarts = Counter::default();
        registry.register(
            "worker_restarts",
            "How often the worker process was restarted after a crash",
            worker_restarts.clone(),
        );
        let load_errors = Counter::default();
        registry.register(
            "engine_metrics_errors",
            "Readings of the inference engine's own metrics that failed",
            load_errors.clone(),
        );
        let bucket_remaining = Family::default();
        plain.register(
            "bucket_remaining_gauge",
            "What is left in the emptiest bucket that counts all requests of the pod together",
            bucket_remaining.clone(),
        );
        let build = Family::<[(&str, &str); 1], Gauge>::default();
        build.get_or_create(&[("version", env!("CARGO_PKG_VERSION"))]).set(1);
        registry.register("build_info", "Version of the sidecar", build);
        Self {
            traffic: Traffic::register(&mut registry),
            fallbacks: Fallbacks::register(&mut registry),
            hooks: Hooks::register(&mut registry),
            identity: Identity::register(&mut registry),
            traces: Traces::register(&mut registry),
            decisions: Decisions::register(&mut registry, &mut plain, addresses),
            gen_ai: GenAi::register(&mut plain),
            engine: EngineState::register(&mut registry),
            policy: PolicyMetrics::register(&mut registry),
            gpu: GpuMetrics::register(&mut registry),
            in_flight,
            bucket_remaining,
            load_errors,
            connections,
            worker_restarts,
            registry,
            plain,
        }
    }

    /// A document came into force. `source` is `stream`, `store`, `snapshot`, `file` or `default`.
    pub fn policy_applied(&self, revision: &str, source: &'static str) {
        self.policy.info.clear();
        self.policy
            .info
            .get_or_create(&[("revision", revision.to_owned()), ("source", source.to_owned())])
            .set(1);
        let since_epoch = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        self.policy.applied.set(i64::try_from(since_epoch.as_secs()).unwrap_or(i64::MAX));
    }

    /// A document was refused; the last good one stays in force.
    pub fn policy_refused(&self) {
        self.policy.refused.inc();
    }

    /// The policy stream came up or went down.
    pub fn operator_connected(&self, connected: bool) {
        self.policy.operator_connected.set(i64::from(connected));
    }

    /// Memory of the fullest of the pod's GPUs in bytes, read at `at`.
    pub fn gpu_reading(&self, used: u64, total: u64, at: Tick) {
        self.gpu.used.set(i64::try_from(used).unwrap_or(i64::MAX));
        self.gpu.total.set(i64::try_from(total).unwrap_or(i64::MAX));
        self.gpu.read_at.store(at.as_nanos().max(1), Ordering::Relaxed);
    }

    /// No reading was had; `reason` is one of a few fixed words.
    pub fn gpu_error(&self, reason: &'static str) {
        self.gpu.errors.get_or_create(&[("reason", reason)]).inc();
    }

    /// The inference engine's own metrics could not be read.
    pub fn engine_load_unknown(&self) {
        self.load_errors.inc();
    }

    /// How often the supervisor had to restart this worker.
    pub fn worker_restarts(&self, restarts: u64) {
        self.worker_restarts.inner().store(restarts, Ordering::Relaxed);
    }

    /// A limit without a key has one bucket for all routes: that of each is the emptiest of these.
    fn set_bucket_remaining(&self, status: &Status) {
        self.bucket_remaining.clear();
        let share =
            |limit: &&LimitStatus| limit.remaining.unwrap_or(limit.size) as f64 / limit.size.max(1) as f64;
        let together = status.limits.iter().filter(|limit| limit.remaining.is_some());
        let emptiest = together.min_by(|a, b| share(a).total_cmp(&share(b)));
        let Some(remaining) = emptiest.and_then(|limit| limit.remaining) else { return };
        for route in self.traffic.routes() {
            let gauge = self.bucket_remaining.get_or_create(&[("route", route.as_str())]);
            gauge.set(i64::try_from(remaining).unwrap_or(i64::MAX));
        }
    }

    /// All metrics in the `OpenMetrics` text format.
    pub fn encode(&self, now: Tick, status: &Status, in_flight: usize, connections: usize) -> String {
        self.engine.set(status);
        self.set_bucket_remaining(status);
        self.in_flight.set(i64::try_from(in_flight).unwrap_or(i64::MAX));
        self.connections.set(i64::try_from(connections).unwrap_or(i64::MAX));
        self.gpu.set_age(now);
        let mut lines = String::with_capacity(16 * 1024);
        // Writing to a String cannot fail, and no metric here has an encoder that refuses.
        let _ = text::encode_registry(&mut lines, &self.plain);
        let _ = text::encode(&mut lines, &self.registry);
        lines
    }
}

impl PolicyMetrics {
    fn register(registry: &mut Registry) -> Self {
        let this = Self::default();
        registry.register("policy_info", "The policy document in force", this.info.clone());
        registry.register("policy_refused", "Policy documents that were refused", this.refused.clone());
        registry.register_with_unit(
            "policy_applied_timestamp",
            "When the document in force was applied, since the Unix epoch",
            Unit::Seconds,
            this.applied.clone(),
        );
        registry.register(
            "operator_connected",
            "1 while the policy stream from the operator is up",
            this.operator_connected.clone(),
        );
        this
    }
}

impl GpuMetrics {
    fn register(registry: &mut Registry) -> Self {
        let this = Self::default();
        registry.register_with_unit(
            "gpu_memory_used",
            "Memory in use on the fullest of the pod's own GPUs",
            Unit::Bytes,
            this.used.clone(),
        );
        registry.register_with_unit(
            "gpu_memory_total",
            "Memory of the fullest of the pod's own GPUs",
            Unit::Bytes,
            this.total.clone(),
        );
        registry.register_with_unit(
            "gpu_signal_age",
            "Age of the newest GPU reading; -1 before the first",
            Unit::Seconds,
            this.age.clone(),
        );
        registry.register("gpu_errors", "GPU readings that could not be had", this.errors.clone());
        this
    }

    fn set_age(&self, now: Tick) {
        self.age.set(match self.read_at.load(Ordering::Relaxed) {
            0 => -1.0,
            at => Duration::as_secs_f64(&now.since(Tick::from_nanos(at))),
        });
    }
}
