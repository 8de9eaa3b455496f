//! A model of an inference engine: a batch of bounded size, a queue before it, tokens that come slower in a fuller
//! batch, and a key-value cache that fills with the tokens in flight.

use std::collections::VecDeque;
use std::time::Duration;

use super::trace::Request;
use crate::command_line::ModelArguments;

/// Memory of the simulated GPU; half of it holds the model.
const GPU_BYTES: u64 = 80 << 30;

/// The engine at one instant.
#[derive(Debug)]
pub(crate) struct Model {
    arguments: ModelArguments,
    running: usize,
    cached: u64,
    waiting: VecDeque<usize>,
}

/// How long a request takes that begins now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Service {
    pub(crate) first_token: Duration,
    pub(crate) rest: Duration,
}

impl Model {
    pub(crate) fn new(arguments: ModelArguments) -> Self {
        Self { arguments, running: 0, cached: 0, waiting: VecDeque::new() }
    }

    pub(crate) fn enqueue(&mut self, request: usize) {
        self.waiting.push_back(request);
    }

    /// The next request that finds room, with its service time. A request larger than the cache runs alone.
    pub(crate) fn begin(&mut self, requests: &[Request]) -> Option<(usize, Service)> {
        let next = *self.waiting.front()?;
        let tokens = tokens(&requests[next]);
        let fits = self.running == 0 || self.cached + tokens <= self.arguments.cache_tokens;
        if self.running >= self.arguments.batch || !fits {
            return None;
        }
        self.waiting.pop_front();
        self.running += 1;
        self.cached += tokens;
        Some((next, self.service(&requests[next])))
    }

    fn service(&self, request: &Request) -> Service {
        let fullness = self.running as f64 / self.arguments.batch as f64;
        let token = Duration::from_secs_f64(self.arguments.token_time / 1000.0 * (1.0 + fullness));
        let prefill = Duration::from_secs_f64(request.prompt_tokens as f64 / self.arguments.prefill_rate);
        Service {
            first_token: prefill + token,
            rest: token.mul_f64(request.generated_tokens.saturating_sub(1) as f64),
        }
    }

    /// A request is done, or its client has gone.
    pub(crate) fn end(&mut self, request: usize, requests: &[Request]) {
        if let Some(place) = self.waiting.iter().position(|waiting| *waiting == request) {
            self.waiting.remove(place);
        } else {
            self.running = self.running.saturating_sub(1);
            self.cached = self.cached.saturating_sub(tokens(&requests[request]));
        }
    }

    /// Bytes of GPU memory in use, and those there are.
    pub(crate) fn gpu_memory(&self) -> (u64, u64) {
        let share = (self.cached as f64 / self.arguments.cache_tokens as f64).min(1.0);
        let cache = GPU_BYTES as f64 / 2.0 * share;
        (GPU_BYTES / 2 + cache as u64, GPU_BYTES)
    }
}

fn tokens(request: &Request) -> u64 {
    request.prompt_tokens + request.generated_tokens
}
