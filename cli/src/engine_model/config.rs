//! What an engine can do, and how long its steps take.

use std::time::Duration;

/// Tokens of one KV-cache block, vLLM's default.
pub const BLOCK_TOKENS: u32 = 16;

/// What the modelled engine can do.
#[derive(Debug, Clone)]
pub struct ModelConfig {
    /// Size of the KV cache in blocks of [`BLOCK_TOKENS`] tokens.
    pub kv_blocks: u32,
    /// Most sequences that are computed together (vLLM's `--max-num-seqs`).
    pub max_batch: usize,
    /// Most tokens that one step computes (vLLM's `--max-num-batched-tokens`).
    pub step_tokens: u32,
    /// Most tokens of prompt and answer together (vLLM's `--max-model-len`).
    pub max_model_len: u32,
    /// How prompts are computed.
    pub prefill: Prefill,
    /// What happens when a sequence needs a block and none is free.
    pub overflow: Overflow,
    /// How long a step takes.
    pub costs: Costs,
    /// The GPU's memory.
    pub gpu: GpuBytes,
}

/// How prompts are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prefill {
    /// In pieces that share the token budget of a step with the decoding sequences (vLLM's chunked prefill,
    /// after Sarathi-Serve).
    Chunked,
    /// In one piece, in steps without decoding (vLLM without chunked prefill).
    Whole,
}

/// What happens when a sequence needs a block and none is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overflow {
    /// The cache was reserved at start; the youngest sequence loses its blocks and is computed anew (vLLM).
    Recompute,
    /// The cache grows on demand: the allocation fails and the engine loses every request.
    OutOfMemory,
}

/// The time of a step is linear in what it computes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Costs {
    /// A step on its own: reading the weights, launching kernels.
    pub step: Duration,
    /// Each decoding sequence: sampling, detokenising, its share of the matrix products.
    pub sequence: Duration,
    /// Each cached token that a decoding sequence attends to. Nanoseconds, as it is far below one step of a clock.
    pub cached_token_nanos: f64,
    /// Each token of a prompt.
    pub prompt_token: Duration,
}

/// The GPU's memory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GpuBytes {
    /// All there is.
    pub total: u64,
    /// Weights, activations and the runtime.
    pub weights: u64,
    /// One block of the KV cache.
    pub block: u64,
}

impl Default for ModelConfig {
    /// An 8-billion-parameter model on one data-centre GPU, in orders of magnitude.
    fn default() -> Self {
        Self {
            kv_blocks: 4096,
            max_batch: 64,
            step_tokens: 2048,
            max_model_len: 16_384,
            prefill: Prefill::Chunked,
            overflow: Overflow::Recompute,
            costs: Costs {
                step: Duration::from_millis(20),
                sequence: Duration::from_nanos(312_500),
                cached_token_nanos: 150.0,
                prompt_token: Duration::from_micros(50),
            },
            gpu: GpuBytes { total: 80 << 30, weights: 20 << 30, block: 2 << 20 },
        }
    }
}

impl ModelConfig {
    /// Llama-3-8B in 16 bits on one `GeForce` RTX 4090 under vLLM 0.8.5 with its defaults.
    ///
    /// The costs are fitted to a published table of latencies and throughputs; `docs/protection-quality.md` shows
    /// the fit. The cache is what 90 % of 23.5 GiB leave beside 15 GiB of weights and 1.2 GiB of activations, at
    /// 128 KiB for each token (32 layers × 8 key-value heads × 128 dimensions × 2 × 2 bytes).
    pub fn llama_3_8b_on_rtx_4090() -> Self {
        Self {
            kv_blocks: 2560,
            max_batch: 256,
            step_tokens: 2048,
            max_model_len: 8192,
            prefill: Prefill::Chunked,
            overflow: Overflow::Recompute,
            costs: Costs {
                step: Duration::from_micros(19_050),
                sequence: Duration::from_micros(71),
                cached_token_nanos: 73.0,
                prompt_token: Duration::from_nanos(91_300),
            },
            gpu: GpuBytes { total: 24_080 << 20, weights: 16_600 << 20, block: 2 << 20 },
        }
    }
}
