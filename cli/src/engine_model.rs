//! The model of an inference engine: continuous batching over a paged KV cache, without clock and without I/O.
//!
//! It follows vLLM's scheduler: running sequences decode one token a step, waiting ones are admitted in order of
//! arrival while the batch, the step's token budget and the cache have room, prompts are computed in chunks of that
//! budget or whole, and when the cache is exhausted the youngest sequence is preempted, loses its blocks and is
//! computed anew later.
//!
//! The caller owns the time: [`Model::begin_step`] says how long a step takes, [`Model::end_step`] what it produced.

mod config;
mod sequence;

use std::{collections::VecDeque, time::Duration};

pub use config::{BLOCK_TOKENS, Costs, GpuBytes, ModelConfig, Overflow, Prefill};
use sequence::{Sequence, blocks_for};

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

/// What a step does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing is to be done.
    Idle,
    /// It ends after this time.
    Takes(Duration),
    /// The cache could not grow; these requests are lost and the engine is empty.
    OutOfMemory(Vec<u64>),
}

/// What an engine tells about itself.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reading {
    /// Share of the KV cache in use, 0 to 1.
    pub kv_usage: f64,
    /// Sequences in the batch.
    pub running: usize,
    /// Requests in the queue.
    pub waiting: usize,
    /// Sequences that lost their place in the cache since the start; None of an engine that does not preempt.
    pub preemptions: Option<u64>,
    /// Tokens of prompts and answers computed since the start, those computed anew included.
    pub computed_tokens: u64,
    /// Bytes of the GPU's memory in use, as its driver sees them.
    pub gpu_used: u64,
    /// Bytes of the GPU's memory.
    pub gpu_total: u64,
}

/// The scheduler's state.
#[derive(Debug)]
pub struct Model {
    config: ModelConfig,
    waiting: VecDeque<Sequence>,
    running: Vec<Sequence>,
    free_blocks: u32,
    preemptions: u64,
    computed_tokens: u64,
}

impl Model {
    /// An idle engine.
    pub fn new(config: ModelConfig) -> Self {
        let free_blocks = config.kv_blocks;
        Self {
            config,
            waiting: VecDeque::new(),
            running: Vec::new(),
            free_blocks,
            preemptions: 0,
            computed_tokens: 0,
        }
    }

    /// Queues a request of `prompt` tokens for `output` tokens; each is at least one.
    pub fn submit(&mut self, id: u64, prompt: u32, output: u32) -> Result<(), TooLong> {
        let (prompt, output) = (prompt.max(1), output.max(1));
        let limit = self.longest();
        let requested = prompt.saturating_add(output);
        if requested > limit {
            return Err(TooLong { requested, limit });
        }
        self.waiting.push_back(Sequence::new(id, prompt, output));
        Ok(())
    }

    /// Most tokens of prompt and answer together: the configured length, or what the whole cache holds.
    pub fn longest(&self) -> u32 {
        self.config.max_model_len.min(self.config.kv_blocks.saturating_mul(BLOCK_TOKENS).saturating_sub(1))
    }

    /// Forgets a request, as when its client is gone. Unknown ids are ignored.
    pub fn abort(&mut self, id: u64) {
        if let Some(at) = self.running.iter().position(|sequence| sequence.id == id) {
            let sequence = self.running.remove(at);
            self.free_blocks += sequence.blocks;
        } else if let Some(at) = self.waiting.iter().position(|sequence| sequence.id == id) {
            self.waiting.remove(at);
        }
    }

    /// Forgets every request and returns their ids.
    pub fn abort_all(&mut self) -> Vec<u64> {
        let ids = self.waiting.drain(..).chain(self.running.drain(..)).map(|sequence| sequence.id).collect();
        self.free_blocks = self.config.kv_blocks;
        ids
    }

    /// Begins a step: preempts, allocates, admits, and says how long it takes.
    pub fn begin_step(&mut self) -> Step {
        match (self.grow(), self.config.overflow) {
            (true, Overflow::OutOfMemory) => return Step::OutOfMemory(self.abort_all()),
            (true, Overflow::Recompute) => {}
            (false, _) => self.admit(),
        }
        if self.running.is_empty() {
            return Step::Idle;
        }
        let prefilled = self.prefill();
        let decoding = self.running.iter().filter(|sequence| sequence.decodes && !sequence.paused);
        let (sequences, tokens) = decoding.fold((0_u32, 0_u64), |(sequences, tokens), sequence| {
            (sequences + 1, tokens + u64::from(sequence.context()))
        });
        self.computed_tokens += u64::from(prefilled) + u64::from(sequences);
        Step::Takes(self.step_time(sequences, tokens, prefilled))
    }

    /// Ends the step that [`Self::begin_step`] began: every sequence whose context is computed gives a token.
    pub fn end_step(&mut self) -> Vec<Emitted> {
        let mut emitted = Vec::with_capacity(self.running.len());
        for sequence in self.running.iter_mut().filter(|sequence| sequence.computed_all()) {
            if std::mem::take(&mut sequence.paused) {
                continue;
            }
            sequence.generated += 1;
            sequence.computed = sequence.context();
            sequence.decodes = true;
            emitted.push(Emitted { id: sequence.id, last: sequence.done() });
        }
        let free_blocks = &mut self.free_blocks;
        self.running.retain(|sequence| {
            let done = sequence.done();
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

    /// What the engine's metrics and the GPU's driver would say now.
    pub fn reading(&self) -> Reading {
        let gpu = self.config.gpu;
        let (blocks, preemptions) = match self.config.overflow {
            Overflow::Recompute => (self.config.kv_blocks, Some(self.preemptions)),
            Overflow::OutOfMemory => (self.config.kv_blocks - self.free_blocks, None),
        };
        Reading {
            kv_usage: self.kv_usage(),
            running: self.running(),
            waiting: self.waiting(),
            preemptions,
            computed_tokens: self.computed_tokens,
            gpu_used: gpu.weights + gpu.block * u64::from(blocks),
            gpu_total: gpu.total,
        }
    }

    fn step_time(&self, sequences: u32, tokens: u64, prefilled: u32) -> Duration {
        let costs = self.config.costs;
        let attention = Duration::from_nanos((costs.cached_token_nanos * tokens as f64) as u64);
        costs.step + costs.sequence * sequences + attention + costs.prompt_token * prefilled
    }

    /// Gives every running sequence the block for its next token. While there is none, preempts the youngest, or
    /// stops where the cache grows on demand. True if the cache was exhausted.
    fn grow(&mut self) -> bool {
        let mut exhausted = false;
        let mut at = 0;
        while at < self.running.len() {
            let missing = self.running[at].missing_blocks();
            if missing <= self.free_blocks {
                self.free_blocks -= missing;
                self.running[at].blocks += missing;
                at += 1;
                continue;
            }
            exhausted = true;
            if self.config.overflow == Overflow::OutOfMemory {
                return true;
            }
            self.preempt_youngest();
        }
        exhausted
    }

    fn preempt_youngest(&mut self) {
        if let Some(mut sequence) = self.running.pop() {
            self.free_blocks += sequence.lose_place();
            self.preemptions += 1;
            self.waiting.push_front(sequence);
        }
    }

    /// Takes waiting requests in order while batch, token budget and cache have room.
    fn admit(&mut self) {
        let mut budget = i64::from(self.config.step_tokens);
        budget -=
            self.running.iter().map(|sequence| i64::from(sequence.missing_tokens().max(1))).sum::<i64>();
        while self.running.len() < self.config.max_batch && budget > 0 {
            let Some(next) = self.waiting.front() else { return };
            let blocks = blocks_for(next.context() + 1);
            // Where the cache grows on demand nobody looks whether there is room.
            if blocks > self.free_blocks && self.config.overflow == Overflow::Recompute {
                return;
            }
            budget -= i64::from(next.context());
            if let Some(mut sequence) = self.waiting.pop_front() {
                sequence.blocks = blocks.min(self.free_blocks);
                self.free_blocks -= sequence.blocks;
                self.running.push(sequence);
            }
        }
    }

    /// Computes prompts within the token budget; returns how many tokens.
    fn prefill(&mut self) -> u32 {
        let decoding = self.running.iter().filter(|sequence| sequence.decodes).count();
        let decoding = u32::try_from(decoding).unwrap_or(u32::MAX);
        let whole = self.config.prefill == Prefill::Whole;
        let full = self.config.step_tokens;
        let mut budget = if whole { full } else { full.saturating_sub(decoding) };
        let mut prefilled = 0;
        for sequence in self.running.iter_mut().filter(|sequence| !sequence.decodes) {
            let missing = sequence.missing_tokens();
            // A prompt longer than the budget is computed alone.
            let chunk = match whole {
                true if missing > budget && prefilled > 0 => 0,
                true => missing,
                false => missing.min(budget),
            };
            sequence.computed += chunk;
            budget = budget.saturating_sub(chunk);
            prefilled += chunk;
        }
        if whole && prefilled > 0 {
            self.running.iter_mut().for_each(|sequence| sequence.paused = sequence.decodes);
        }
        prefilled
    }
}

#[cfg(test)]
mod tests;
