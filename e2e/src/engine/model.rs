//! The model of an inference engine: continuous batching over a paged KV cache, without clock and without I/O.
//!
//! It follows vLLM's scheduler: running sequences decode one token a step, waiting ones are admitted in order of
//! arrival while the batch and the cache have room, prompts are computed in chunks of a token budget, and when the
//! cache is exhausted the youngest sequence is preempted, loses its blocks and is computed anew later.

use std::{collections::VecDeque, time::Duration};

/// Tokens of one KV-cache block, vLLM's default.
pub const BLOCK_TOKENS: u32 = 16;

/// What the simulated engine can do.
#[derive(Debug, Clone)]
pub struct ModelConfig {
    /// Size of the KV cache in blocks of [`BLOCK_TOKENS`] tokens.
    pub kv_blocks: u32,
    /// Most sequences that are computed together (vLLM's `--max-num-seqs`).
    pub max_batch: usize,
    /// Most tokens that one step computes (vLLM's `--max-num-batched-tokens`).
    pub step_tokens: u32,
    /// Most tokens of prompt and answer together.
    pub max_model_len: u32,
    /// Time of a decoding step of one sequence in an empty cache.
    pub step: Duration,
    /// Time that each prompt token adds to its step.
    pub prefill_token: Duration,
}

impl Default for ModelConfig {
    /// An 8-billion-parameter model on one data-centre GPU, in orders of magnitude.
    fn default() -> Self {
        Self {
            kv_blocks: 4096,
            max_batch: 64,
            step_tokens: 2048,
            max_model_len: 16_384,
            step: Duration::from_millis(20),
            prefill_token: Duration::from_micros(50),
        }
    }
}

/// How much a full batch adds to the time of a step, as a multiple of [`ModelConfig::step`].
const BATCH_COST: f64 = 1.0;
/// How much a full KV cache adds to it: attention reads all of the cache in use.
const CACHE_COST: f64 = 0.5;

/// A request that can never be computed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TooLong {
    /// Tokens that were asked for.
    pub requested: u32,
    /// Most tokens that the engine takes.
    pub limit: u32,
}

/// A token that a step has produced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Emitted {
    /// The sequence it belongs to.
    pub id: u64,
    /// Whether it is the sequence's last.
    pub last: bool,
}

/// One request inside the engine.
#[derive(Debug, Clone)]
struct Sequence {
    id: u64,
    prompt: u32,
    output: u32,
    generated: u32,
    computed: u32,
    blocks: u32,
}

impl Sequence {
    fn context(&self) -> u32 {
        self.prompt + self.generated
    }

    fn decoding(&self) -> bool {
        self.computed >= self.context()
    }
}

/// The scheduler's state.
#[derive(Debug)]
pub struct Model {
    config: ModelConfig,
    waiting: VecDeque<Sequence>,
    running: Vec<Sequence>,
    free_blocks: u32,
    preemptions: u64,
}

impl Model {
    /// An idle engine.
    pub fn new(config: ModelConfig) -> Self {
        let free_blocks = config.kv_blocks;
        Self { config, waiting: VecDeque::new(), running: Vec::new(), free_blocks, preemptions: 0 }
    }

    /// Queues a request of `prompt` tokens for `output` tokens; each is at least one.
    pub fn submit(&mut self, id: u64, prompt: u32, output: u32) -> Result<(), TooLong> {
        let (prompt, output) = (prompt.max(1), output.max(1));
        let limit = self.longest();
        let requested = prompt.saturating_add(output);
        if requested > limit {
            return Err(TooLong { requested, limit });
        }
        self.waiting.push_back(Sequence { id, prompt, output, generated: 0, computed: 0, blocks: 0 });
        Ok(())
    }

    /// Most tokens of prompt and answer together: the configured length, or what the whole cache holds.
    pub fn longest(&self) -> u32 {
        self.config.max_model_len.min(self.config.kv_blocks.saturating_mul(BLOCK_TOKENS).saturating_sub(1))
    }

    /// Forgets a request, as when its client is gone. Unknown ids are ignored.
    pub fn abort(&mut self, id: u64) {
        self.waiting.retain(|sequence| sequence.id != id);
        if let Some(at) = self.running.iter().position(|sequence| sequence.id == id) {
            let sequence = self.running.remove(at);
            self.free_blocks += sequence.blocks;
        }
    }

    /// Forgets every request and returns their ids.
    pub fn abort_all(&mut self) -> Vec<u64> {
        let ids = self.waiting.drain(..).chain(self.running.drain(..)).map(|sequence| sequence.id).collect();
        self.free_blocks = self.config.kv_blocks;
        ids
    }

    /// Begins a step: admits, preempts, allocates, and returns how long it takes. `None` when there is nothing to do.
    pub fn begin_step(&mut self) -> Option<Duration> {
        let preempted = self.grow();
        if !preempted {
            self.admit();
        }
        if self.running.is_empty() {
            return None;
        }
        let decoding = self.running.iter().filter(|sequence| sequence.decoding()).count();
        let mut budget = self.config.step_tokens.saturating_sub(u32::try_from(decoding).unwrap_or(u32::MAX));
        let mut prefilled = 0;
        for sequence in self.running.iter_mut().filter(|sequence| !sequence.decoding()) {
            let chunk = (sequence.context() - sequence.computed).min(budget);
            sequence.computed += chunk;
            budget -= chunk;
            prefilled += chunk;
        }
        Some(self.step_time() + self.config.prefill_token * prefilled)
    }

    /// Ends the step that [`Self::begin_step`] began: every sequence whose context is computed gives a token.
    pub fn end_step(&mut self) -> Vec<Emitted> {
        let mut emitted = Vec::with_capacity(self.running.len());
        for sequence in self.running.iter_mut().filter(|sequence| sequence.decoding()) {
            sequence.generated += 1;
            sequence.computed = sequence.context();
            emitted.push(Emitted { id: sequence.id, last: sequence.generated >= sequence.output });
        }
        let free_blocks = &mut self.free_blocks;
        self.running.retain(|sequence| {
            let done = sequence.generated >= sequence.output;
            *free_blocks += if done { sequence.blocks } else { 0 };
            !done
        });
        emitted
    }

    /// Sequences in the batch.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// Requests in the queue.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Share of the KV cache in use, 0 to 1.
    pub fn kv_usage(&self) -> f64 {
        f64::from(self.config.kv_blocks - self.free_blocks) / f64::from(self.config.kv_blocks.max(1))
    }

    /// Sequences that lost their place in the cache since the start.
    pub fn preemptions(&self) -> u64 {
        self.preemptions
    }

    fn step_time(&self) -> Duration {
        let batch = self.running.len() as f64 / self.config.max_batch.max(1) as f64;
        self.config.step.mul_f64(1.0 + BATCH_COST * batch + CACHE_COST * self.kv_usage())
    }

    /// Gives every running sequence the block for its next token; preempts the youngest while there is none.
    fn grow(&mut self) -> bool {
        let mut preempted = false;
        let mut at = 0;
        while at < self.running.len() {
            let missing = blocks_for(self.running[at].context() + 1).saturating_sub(self.running[at].blocks);
            if missing <= self.free_blocks {
                self.free_blocks -= missing;
                self.running[at].blocks += missing;
                at += 1;
            } else {
                self.preempt_youngest();
                preempted = true;
            }
        }
        preempted
    }

    fn preempt_youngest(&mut self) {
        if let Some(mut sequence) = self.running.pop() {
            self.free_blocks += std::mem::take(&mut sequence.blocks);
            sequence.computed = 0;
            self.preemptions += 1;
            self.waiting.push_front(sequence);
        }
    }

    fn admit(&mut self) {
        while self.running.len() < self.config.max_batch {
            let Some(blocks) = self.waiting.front().map(|next| blocks_for(next.context() + 1)) else {
                return;
            };
            if blocks > self.free_blocks {
                return;
            }
            if let Some(mut sequence) = self.waiting.pop_front() {
                self.free_blocks -= blocks;
                sequence.blocks = blocks;
                self.running.push(sequence);
            }
        }
    }
}

fn blocks_for(tokens: u32) -> u32 {
    tokens.div_ceil(BLOCK_TOKENS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small(kv_blocks: u32, max_batch: usize) -> Model {
        Model::new(ModelConfig { kv_blocks, max_batch, ..ModelConfig::default() })
    }

    /// Steps until idle; returns for each sequence the step of its first and of its last token.
    fn drain(model: &mut Model) -> Vec<(u64, usize, usize)> {
        let mut seen: Vec<(u64, usize, usize)> = Vec::new();
        for step in 0..100_000 {
            if model.begin_step().is_none() {
                return seen;
            }
            for token in model.end_step() {
                match seen.iter_mut().find(|(id, ..)| *id == token.id) {
                    Some((.., last)) => *last = step,
                    None => seen.push((token.id, step, step)),
                }
            }
        }
        panic!("the engine never became idle: {model:?}");
    }

    #[test]
    fn a_request_gives_exactly_its_output_tokens_and_frees_its_blocks() {
        let mut model = small(100, 8);
        model.submit(1, 40, 25).unwrap();
        let mut tokens = 0;
        let mut peak = 0.0_f64;
        while model.begin_step().is_some() {
            peak = peak.max(model.kv_usage());
            tokens += model.end_step().len();
        }
        assert_eq!(tokens, 25);
        assert!((peak - 0.05).abs() < 1e-9, "65 tokens are 5 blocks of 100, not {peak}");
        assert!(model.kv_usage().abs() < f64::EPSILON);
    }

    #[test]
    fn a_step_takes_longer_in_a_fuller_batch_and_a_fuller_cache() {
        let step_of = |sequences: u64, prompt: u32| {
            let mut model = small(1000, 64);
            for id in 0..sequences {
                model.submit(id, prompt, 50).unwrap();
            }
            model.begin_step();
            model.end_step();
            model.begin_step().unwrap()
        };
        let alone = step_of(1, 16);
        let batched = step_of(32, 16);
        let cached = step_of(1, 8000);
        assert!(batched > alone.mul_f64(1.4), "{batched:?} after {alone:?}");
        assert!(cached > alone.mul_f64(1.2), "{cached:?} after {alone:?}");
    }

    #[test]
    fn a_full_cache_makes_requests_wait_although_the_batch_has_room() {
        let mut model = small(10, 8);
        model.submit(1, 100, 20).unwrap();
        model.submit(2, 100, 20).unwrap();
        model.begin_step();
        assert_eq!((model.running(), model.waiting()), (1, 1));
        let seen = drain(&mut model);
        assert_eq!(seen.len(), 2, "the second one runs when the first is done");
        assert!(seen[1].1 > seen[0].2);
    }

    #[test]
    fn an_exhausted_cache_preempts_the_youngest_which_still_completes() {
        let mut model = small(10, 8);
        model.submit(1, 60, 40).unwrap();
        model.submit(2, 60, 40).unwrap();
        let seen = drain(&mut model);
        assert!(model.preemptions() > 0);
        assert_eq!(seen.len(), 2);
        assert!(seen[0].2 < seen[1].2, "the oldest is never the one that loses its place");
        assert!(model.kv_usage().abs() < f64::EPSILON);
    }

    #[test]
    fn a_long_prompt_is_computed_in_chunks_while_others_decode() {
        let mut model = small(1000, 8);
        model.submit(1, 16, 50).unwrap();
        model.begin_step();
        model.end_step();
        model.submit(2, 5000, 5).unwrap();
        let seen = drain(&mut model);
        let long = seen.iter().find(|(id, ..)| *id == 2).unwrap();
        assert_eq!(long.1, 2, "5000 tokens take three steps of 2048");
    }

    #[test]
    fn an_aborted_request_gives_its_blocks_back() {
        let mut model = small(10, 8);
        model.submit(1, 100, 20).unwrap();
        model.begin_step();
        model.abort(1);
        assert!(model.kv_usage().abs() < f64::EPSILON);
        assert!(model.begin_step().is_none());
    }

    #[test]
    fn what_can_never_fit_is_refused_at_once() {
        let mut model = small(10, 8);
        assert_eq!(model.submit(1, 150, 20), Err(TooLong { requested: 170, limit: 159 }));
    }
}
