//! What happened in a run, request by request and second by second.

use std::time::Duration;

use tidegate_cli::engine_model::Reading;
use tidegate_policy::PriorityClass;

use super::{
    policy::{End, Finished},
    workload::{Behaviour, Plan, Request},
};

/// Priorities, in the order of every array by priority.
pub const CLASSES: [PriorityClass; 3] = [PriorityClass::High, PriorityClass::Medium, PriorityClass::Low];

/// The place of a priority in such an array.
pub fn index(class: PriorityClass) -> usize {
    match class {
        PriorityClass::High => 0,
        PriorityClass::Medium => 1,
        PriorityClass::Low => 2,
    }
}

/// What a user of this priority was promised: the longest time to the first token, counted from the attempt that
/// was admitted, and the longest mean time per token after it.
pub fn objective(class: PriorityClass) -> (Duration, Duration) {
    match class {
        PriorityClass::High => (Duration::from_secs(2), Duration::from_millis(150)),
        PriorityClass::Medium => (Duration::from_secs(5), Duration::from_millis(200)),
        PriorityClass::Low => (Duration::from_secs(10), Duration::from_millis(250)),
    }
}

/// How a request went for the user who wanted it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Outcome {
    /// Attempts that were refused.
    pub refusals: u32,
    /// It was refused at first, was told when to come again, and did.
    pub came_as_told: bool,
    /// Such a request was admitted at its second attempt.
    pub served_as_told: bool,
    /// Seconds from the last admission to the first token.
    pub first_token: Option<f64>,
    /// Mean seconds per token after the first.
    pub per_token: Option<f64>,
    /// How it ended.
    pub ending: Ending,
}

/// How a request ended for its user.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Ending {
    /// It was never admitted, or the run was over first.
    #[default]
    Unserved,
    /// The client gave up waiting or the engine failed after admission.
    Lost,
    /// All tokens came, but not within the objective.
    Late,
    /// All tokens came within the objective.
    Good,
}

impl Outcome {
    /// All tokens came within the objective.
    pub fn is_good(&self) -> bool {
        self.ending == Ending::Good
    }

    /// All tokens came.
    pub fn is_whole(&self) -> bool {
        matches!(self.ending, Ending::Good | Ending::Late)
    }
}

/// One second of a run.
#[derive(Debug, Clone, Default)]
pub struct Second {
    /// First attempts, by priority.
    pub wanted: [u32; 3],
    /// Attempts admitted.
    pub admitted: [u32; 3],
    /// Attempts refused.
    pub refused: [u32; 3],
    /// Attempts decided of those who came for the first time as they were told.
    pub as_told: [u32; 3],
    /// First attempts of this second that were answered within their objective in the end.
    pub good: [u32; 3],
    /// Sequences in the engine's batch.
    pub running: usize,
    /// Requests in the engine's queue.
    pub waiting: usize,
    /// Share of the KV cache in use.
    pub kv_usage: f64,
    /// What the policy said of itself.
    pub policy: String,
}

/// A run.
#[derive(Debug, Clone)]
pub struct Record {
    /// The course of the run.
    pub plan: Plan,
    /// What was wanted.
    pub requests: Vec<Request>,
    /// What became of it, in the same order.
    pub outcomes: Vec<Outcome>,
    /// Second by second.
    pub seconds: Vec<Second>,
    /// Sequences that lost their place in the cache.
    pub preemptions: u64,
    /// Tokens that the engine computed.
    pub computed_tokens: u64,
    /// How often the engine ran out of memory.
    pub out_of_memory: u64,
}

impl Record {
    /// Before the first event.
    pub fn new(plan: &Plan, requests: &[Request]) -> Self {
        let mut record = Self {
            plan: plan.clone(),
            requests: requests.to_vec(),
            outcomes: vec![Outcome::default(); requests.len()],
            seconds: Vec::new(),
            preemptions: 0,
            computed_tokens: 0,
            out_of_memory: 0,
        };
        for request in requests {
            record.second(request.at).wanted[index(request.class)] += 1;
        }
        record
    }

    fn second(&mut self, at: Duration) -> &mut Second {
        let second = at.as_secs() as usize;
        if second >= self.seconds.len() {
            self.seconds.resize(second + 1, Second::default());
        }
        &mut self.seconds[second]
    }

    /// An attempt was refused.
    pub fn refused(&mut self, now: Duration, request: usize) {
        let outcome = &mut self.outcomes[request];
        let as_told = u32::from(outcome.came_as_told && outcome.refusals == 1);
        outcome.refusals += 1;
        let class = index(self.requests[request].class);
        let second = self.second(now);
        second.refused[class] += 1;
        second.as_told[class] += as_told;
    }

    /// The client will come again.
    pub fn comes_again(&mut self, request: usize, attempt: u32, told: Option<Duration>) {
        let obeys = self.requests[request].behaviour == Behaviour::Obedient;
        if attempt == 0 && told.is_some() && obeys {
            self.outcomes[request].came_as_told = true;
        }
    }

    /// An attempt was admitted.
    pub fn admitted(&mut self, now: Duration, request: usize, attempt: u32) {
        let outcome = &mut self.outcomes[request];
        outcome.served_as_told = outcome.came_as_told && attempt == 1;
        let as_told = u32::from(outcome.served_as_told);
        let class = index(self.requests[request].class);
        let second = self.second(now);
        second.admitted[class] += 1;
        second.as_told[class] += as_told;
    }

    /// An admitted attempt is over.
    pub fn finished(&mut self, request: usize, finished: &Finished) {
        let wanted = self.requests[request];
        let outcome = &mut self.outcomes[request];
        outcome.first_token = finished.first_token.map(|first| first.as_secs_f64());
        let gaps = finished.tokens.saturating_sub(1);
        let rest = finished.first_token.map(|first| finished.total.saturating_sub(first));
        let per_token = rest.filter(|_| gaps > 0).map(|rest| rest / gaps);
        outcome.per_token = per_token.map(|time| time.as_secs_f64());
        let (first_within, token_within) = objective(wanted.class);
        let in_time = finished.first_token.is_some_and(|first| first <= first_within)
            && per_token.is_none_or(|time| time <= token_within);
        outcome.ending = match finished.end {
            End::Whole if in_time => Ending::Good,
            End::Whole => Ending::Late,
            End::Abandoned | End::Failed => Ending::Lost,
        };
        if outcome.is_good() {
            self.second(wanted.at).good[index(wanted.class)] += 1;
        }
    }

    /// The engine's metrics were read.
    pub fn read(&mut self, now: Duration, reading: &Reading, policy: String) {
        let second = self.second(now);
        second.running = reading.running;
        second.waiting = reading.waiting;
        second.kv_usage = reading.kv_usage;
        second.policy = policy;
    }

    /// The run is over.
    pub fn close(&mut self, reading: &Reading) {
        self.preemptions = reading.preemptions.unwrap_or_default();
        self.computed_tokens = reading.computed_tokens;
    }
}
