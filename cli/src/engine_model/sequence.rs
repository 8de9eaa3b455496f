//! One request inside the engine.

use super::BLOCK_TOKENS;

#[derive(Debug, Clone)]
pub(super) struct Sequence {
    pub(super) id: u64,
    prompt: u32,
    output: u32,
    pub(super) generated: u32,
    /// Tokens of its context that are in the cache.
    pub(super) computed: u32,
    pub(super) blocks: u32,
    /// Its prompt is computed: it gives a token each step.
    pub(super) decodes: bool,
    /// This step computes prompts alone.
    pub(super) paused: bool,
}

impl Sequence {
    pub(super) fn new(id: u64, prompt: u32, output: u32) -> Self {
        Self { id, prompt, output, generated: 0, computed: 0, blocks: 0, decodes: false, paused: false }
    }

    pub(super) fn context(&self) -> u32 {
        self.prompt + self.generated
    }

    pub(super) fn computed_all(&self) -> bool {
        self.computed >= self.context()
    }

    pub(super) fn done(&self) -> bool {
        self.generated >= self.output
    }

    /// Tokens of its context that are not in the cache yet.
    pub(super) fn missing_tokens(&self) -> u32 {
        self.context() - self.computed
    }

    /// Blocks that it lacks for its next token.
    pub(super) fn missing_blocks(&self) -> u32 {
        blocks_for(self.context() + 1).saturating_sub(self.blocks)
    }

    /// Gives up its place in the cache; returns the blocks.
    pub(super) fn lose_place(&mut self) -> u32 {
        self.computed = 0;
        self.decodes = false;
        self.paused = false;
        std::mem::take(&mut self.blocks)
    }
}

pub(super) fn blocks_for(tokens: u32) -> u32 {
    tokens.div_ceil(BLOCK_TOKENS)
}
