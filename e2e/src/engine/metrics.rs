//! `/metrics` under vLLM's names.

use std::sync::atomic::AtomicU64;

use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::Counter, gauge::Gauge, histogram::Histogram, info::Info},
    registry::Registry,
};

use tidegate_cli::engine_model::{BLOCK_TOKENS, Model, ModelConfig};

/// vLLM's buckets of the time to the first token, in seconds.
const TTFT_BUCKETS: [f64; 16] =
    [0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
/// vLLM's buckets of whole requests, in seconds.
const E2E_BUCKETS: [f64; 12] = [0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 20.0, 40.0, 60.0];

/// The metrics of one engine.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    running: Gauge,
    waiting: Gauge,
    kv_usage: Gauge<f64, AtomicU64>,
    preemptions: Counter,
    /// Tokens of accepted prompts.
    pub prompt_tokens: Counter,
    /// Tokens produced.
    pub generation_tokens: Counter,
    /// Requests answered in full.
    pub succeeded: Counter,
    /// Arrival to first token, seconds.
    pub time_to_first_token: Histogram,
    /// Arrival to last token, seconds.
    pub e2e_latency: Histogram,
}

impl Metrics {
    /// All metrics at zero, labelled with the model's name.
    pub fn new(model_name: &str, config: &ModelConfig) -> Self {
        let labels = [("model_name".into(), model_name.to_owned().into()), ("engine".into(), "0".into())];
        let mut metrics = Self {
            registry: Registry::with_labels(labels.into_iter()),
            running: Gauge::default(),
            waiting: Gauge::default(),
            kv_usage: Gauge::default(),
            preemptions: Counter::default(),
            prompt_tokens: Counter::default(),
            generation_tokens: Counter::default(),
            succeeded: Counter::default(),
            time_to_first_token: Histogram::new(TTFT_BUCKETS),
            e2e_latency: Histogram::new(E2E_BUCKETS),
        };
        metrics.register(config);
        metrics
    }

    fn register(&mut self, config: &ModelConfig) {
        let registry = &mut self.registry;
        registry.register("vllm:num_requests_running", "Requests in the batch", self.running.clone());
        registry.register("vllm:num_requests_waiting", "Requests in the queue", self.waiting.clone());
        registry.register("vllm:kv_cache_usage_perc", "KV cache in use, 0 to 1", self.kv_usage.clone());
        registry.register("vllm:num_preemptions", "Preempted sequences", self.preemptions.clone());
        registry.register("vllm:prompt_tokens", "Prompt tokens", self.prompt_tokens.clone());
        registry.register("vllm:generation_tokens", "Generated tokens", self.generation_tokens.clone());
        registry.register("vllm:request_success", "Completed requests", self.succeeded.clone());
        registry.register(
            "vllm:time_to_first_token_seconds",
            "Arrival to first token",
            self.time_to_first_token.clone(),
        );
        registry.register(
            "vllm:request_prefill_time_seconds",
            "Arrival to first token: the simulator does not tell queue and prefill apart",
            self.time_to_first_token.clone(),
        );
        registry.register(
            "vllm:e2e_request_latency_seconds",
            "Arrival to last token",
            self.e2e_latency.clone(),
        );
        let cache = Info::new(vec![
            ("block_size", BLOCK_TOKENS.to_string()),
            ("num_gpu_blocks", config.kv_blocks.to_string()),
        ]);
        registry.register("vllm:cache_config", "The KV cache", cache);
    }

    /// The exposition after a look at the model.
    pub fn render(&self, model: &Model) -> Result<String, std::fmt::Error> {
        self.running.set(i64::try_from(model.running()).unwrap_or(i64::MAX));
        self.waiting.set(i64::try_from(model.waiting()).unwrap_or(i64::MAX));
        self.kv_usage.set(model.kv_usage());
        self.preemptions.inc_by(model.preemptions() - self.preemptions.get());
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}
