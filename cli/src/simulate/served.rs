//! The engine behind the sidecar when a log has no latencies: the model of an engine, step by step in virtual time.

use std::time::Duration;

use tidegate_cli::engine_model::{BLOCK_TOKENS, Emitted, Model, ModelConfig, Overflow, Step};
use tidegate_core::{EngineReading, Tick, Tokens};

use crate::command_line::ModelArguments;

/// An engine that works.
#[derive(Debug)]
pub(crate) struct Served {
    model: Model,
    /// It is in the middle of a step.
    busy: bool,
    /// Bytes of the GPU's memory: all, those of the weights, and those of the whole cache.
    total: u64,
    weights: u64,
    cache: u64,
}

/// What becomes of a request that reaches the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Submitted {
    /// It waits for the end of the running step.
    Queued,
    /// The engine was idle: it begins a step of this length.
    Begins(Duration),
    /// It can never be computed.
    TooLong,
}

/// The engine that the arguments describe. What they leave out is as in the fitted model.
pub(crate) fn config(arguments: &ModelArguments) -> ModelConfig {
    let mut config = ModelConfig::llama_3_8b_on_rtx_4090();
    config.overflow = Overflow::Recompute;
    config.max_batch = arguments.batch.unwrap_or(config.max_batch);
    if let Some(rate) = arguments.prefill_rate {
        config.costs.prompt_token = Duration::try_from_secs_f64(1.0 / rate).unwrap_or(Duration::MAX);
    }
    if let Some(millis) = arguments.token_time {
        config.costs.step = Duration::try_from_secs_f64(millis / 1000.0).unwrap_or(Duration::MAX);
    }
    if let Some(tokens) = arguments.cache_tokens {
        config.kv_blocks = u32::try_from(tokens / u64::from(BLOCK_TOKENS)).unwrap_or(u32::MAX).max(1);
    }
    config
}

impl Served {
    pub(crate) fn new(config: ModelConfig) -> Self {
        let cache = config.gpu.block * u64::from(config.kv_blocks);
        let weights = config.gpu.weights;
        // A cache larger than the GPU's is on a larger GPU.
        let total = config.gpu.total.max(weights + cache);
        Self { model: Model::new(config), busy: false, total, weights, cache }
    }

    /// Takes a request. The model has no cache of prompts: it computes all of each.
    pub(crate) fn submit(&mut self, request: u64, tokens: Tokens) -> Submitted {
        let prompt = tokens.input.saturating_add(tokens.cached);
        if self.model.submit(request, prompt, tokens.output).is_err() {
            return Submitted::TooLong;
        }
        if self.busy {
            return Submitted::Queued;
        }
        self.begin().map_or(Submitted::Queued, Submitted::Begins)
    }

    /// Ends the running step: its tokens, and the length of the next, if there is anything to do.
    pub(crate) fn step(&mut self) -> (Vec<Emitted>, Option<Duration>) {
        let emitted = self.model.end_step();
        (emitted, self.begin())
    }

    fn begin(&mut self) -> Option<Duration> {
        let step = match self.model.begin_step() {
            Step::Takes(duration) => Some(duration),
            // A reserved cache never runs out of memory: it preempts.
            Step::Idle | Step::OutOfMemory(_) => None,
        };
        self.busy = step.is_some();
        step
    }

    /// The client of a request has gone.
    pub(crate) fn abort(&mut self, request: u64) {
        self.model.abort(request);
    }

    /// Bytes of GPU memory in use, and those there are. As of an engine that takes memory as its cache fills: to the
    /// driver a reserved cache is always full.
    pub(crate) fn gpu_memory(&self) -> (u64, u64) {
        let cache = self.cache as f64 * self.model.kv_usage();
        (self.weights + cache as u64, self.total)
    }

    /// What its metrics say.
    pub(crate) fn reading(&self, now: Tick) -> EngineReading {
        let reading = self.model.reading();
        EngineReading {
            kv_cache_usage: Some(reading.kv_usage),
            running: Some(reading.running as u64),
            waiting: Some(reading.waiting as u64),
            preemptions: reading.preemptions,
            at: now,
        }
    }
}
