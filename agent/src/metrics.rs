//! Metrics of the agent.

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use tidegate_gpu::{Readings, Reason};

/// All metrics with the registry that writes them out.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    nvml_up: Gauge,
    devices: Gauge,
    reads: Counter,
    errors: Family<ReasonLabel, Counter>,
    read_age: Gauge<f64, AtomicU64>,
    memory_used: Family<DeviceLabel, Gauge>,
    memory_total: Family<DeviceLabel, Gauge>,
    lists: Family<SuccessLabel, Counter>,
    pods: Gauge,
    reviews: Family<ReviewLabel, Counter>,
    answers: Family<CodeLabel, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: ReasonValue,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct ReasonValue(Reason);

impl EncodeLabelValue for ReasonValue {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
        self.0.as_str().encode(encoder)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DeviceLabel {
    uuid: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SuccessLabel {
    success: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReviewLabel {
    result: Review,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CodeLabel {
    code: u16,
}

/// How a question for a token's owner ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Review {
    /// A pod of this node.
    Accepted,
    /// No valid token of our audience.
    Unauthenticated,
    /// Valid, and not of a pod of this node.
    Forbidden,
    /// The API server did not say.
    Failed,
}

impl Metrics {
    /// All metrics at zero.
    pub(crate) fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("tidegate"),
            nvml_up: Gauge::default(),
            devices: Gauge::default(),
            reads: Counter::default(),
            errors: Family::default(),
            read_age: Gauge::default(),
            memory_used: Family::default(),
            memory_total: Family::default(),
            lists: Family::default(),
            pods: Gauge::default(),
            reviews: Family::default(),
            answers: Family::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let registry = &mut self.registry;
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "Version of the agent", version);
        let agent = registry.sub_registry_with_prefix("agent");
        agent.register("nvml_up", "Whether NVML is loaded", self.nvml_up.clone());
        agent.register("devices", "GPUs and MIG devices with a reading", self.devices.clone());
        agent.register("nvml_reads", "Devices asked for their memory", self.reads.clone());
        agent.register("nvml_errors", "Errors of NVML, by reason", self.errors.clone());
        agent.register(
            "last_read_age_seconds",
            "Seconds since NVML was last asked about the device that has waited longest; -1 before the first time",
            self.read_age.clone(),
        );
        agent.register(
            "device_memory_used_bytes",
            "Memory that processes have allocated on a device",
            self.memory_used.clone(),
        );
        agent.register("device_memory_total_bytes", "Memory of a device", self.memory_total.clone());
        agent.register("kubelet_lists", "Lists asked of the kubelet", self.lists.clone());
        agent.register("pods", "Pods of this node with a device", self.pods.clone());
        agent.register("token_reviews", "Tokens shown to the API server", self.reviews.clone());
        agent.register("answers", "Answers to sidecars, by HTTP status", self.answers.clone());
    }

    /// Counts a device asked.
    pub(crate) fn nvml_read(&self) {
        self.reads.inc();
    }

    /// Counts an error of NVML.
    pub(crate) fn nvml_error(&self, reason: Reason) {
        self.errors.get_or_create(&ReasonLabel { reason: ReasonValue(reason) }).inc();
    }

    /// Counts a list of the kubelet.
    pub(crate) fn kubelet_list(&self, success: bool) {
        self.lists.get_or_create(&SuccessLabel { success }).inc();
    }

    /// Counts a review.
    pub(crate) fn review(&self, result: Review) {
        self.reviews.get_or_create(&ReviewLabel { result }).inc();
    }

    /// Counts an answer.
    pub(crate) fn answer(&self, code: u16) {
        self.answers.get_or_create(&CodeLabel { code }).inc();
    }

    /// Everything in the text format, with what the readings and the kubelet's list say now.
    pub(crate) fn encode(
        &self,
        readings: &Readings,
        pods: usize,
        now: Instant,
    ) -> Result<String, fmt::Error> {
        self.nvml_up.set(i64::from(matches!(readings.driver(), Some(Ok(_)))));
        self.pods.set(i64::try_from(pods).unwrap_or(i64::MAX));
        self.memory_used.clear();
        self.memory_total.clear();
        let mut devices = 0;
        let mut oldest = None;
        for (uuid, asked, outcome) in readings.devices() {
            let age = now.saturating_duration_since(asked);
            oldest = oldest.max(Some(age));
            let Ok(memory) = outcome else { continue };
            devices += 1;
            let label = DeviceLabel { uuid: uuid.to_owned() };
            let used = i64::try_from(memory.used_bytes).unwrap_or(i64::MAX);
            self.memory_used.get_or_create(&label).set(used);
            let total = i64::try_from(memory.total_bytes).unwrap_or(i64::MAX);
            self.memory_total.get_or_create(&label).set(total);
        }
        self.devices.set(devices);
        self.read_age.set(oldest.map_or(-1.0, |age| age.as_secs_f64()));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}
