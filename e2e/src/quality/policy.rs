//! What an admission policy sees and says, whoever wrote it.

use std::time::Duration;

use tidegate_cli::engine_model::Reading;
use tidegate_policy::PriorityClass;

/// An attempt at the gate.
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    /// Names the attempt in later calls.
    pub id: u64,
    /// Its priority.
    pub class: PriorityClass,
    /// Who sends it.
    pub tenant: usize,
    /// Tokens of its prompt.
    pub prompt: u32,
    /// Requests in the engine's own queue at this instant. Only the engine itself can know.
    pub engine_waiting: usize,
}

/// What the policy says to an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// To the engine.
    Admit,
    /// Into a queue of the policy. [`Policy::decided`] says how that ends.
    Wait,
    /// Away, perhaps with the time after which to come again.
    Refuse {
        /// What the client is told.
        retry_after: Option<Duration>,
    },
}

/// How an admitted attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// All tokens have come.
    Whole,
    /// The client has gone.
    Abandoned,
    /// The engine failed.
    Failed,
}

/// An admitted attempt at its end.
#[derive(Debug, Clone, Copy)]
pub struct Finished {
    /// Its name.
    pub id: u64,
    /// How it ended.
    pub end: End,
    /// From admission to the first token, if one came.
    pub first_token: Option<Duration>,
    /// From admission to the end.
    pub total: Duration,
    /// Tokens generated.
    pub tokens: u32,
}

/// A policy. Times are since the start of the run and never go back.
pub trait Policy {
    /// Judges an attempt.
    fn arrive(&mut self, now: Duration, arrival: &Arrival) -> Verdict;

    /// Attempts whose wait is over since the last call, and how: admitted or refused.
    fn decided(&mut self, _now: Duration) -> Vec<(u64, Verdict)> {
        Vec::new()
    }

    /// The client of an attempt that waits has gone.
    fn leaves(&mut self, _now: Duration, _id: u64) {}

    /// The first token of an admitted attempt has come, after `elapsed`.
    fn first_token(&mut self, _now: Duration, _id: u64, _elapsed: Duration) {}

    /// An admitted attempt is over.
    fn finish(&mut self, _now: Duration, _finished: &Finished) {}

    /// The engine's metrics, once a second.
    fn observe(&mut self, _now: Duration, _reading: &Reading) {}

    /// Every 100 ms.
    fn tick(&mut self, _now: Duration) {}

    /// What the policy would show an operator, for timelines.
    fn describe(&mut self, _now: Duration) -> String {
        String::new()
    }
}

/// A number that a policy is tuned by.
#[derive(Debug, Clone, Copy)]
pub struct Axis {
    /// For reports.
    pub name: &'static str,
    /// Smallest value tried.
    pub low: f64,
    /// Largest value tried.
    pub high: f64,
}

/// A policy that can be built and tuned.
pub struct Kind {
    /// For reports.
    pub name: &'static str,
    /// Where it comes from.
    pub source: &'static str,
    /// What it is tuned by; empty when there is nothing to tune.
    pub axes: &'static [Axis],
    /// The values that its authors give, tried first.
    pub default: &'static [f64],
    /// Builds it with one value for each axis.
    pub build: fn(&[f64], u64) -> Box<dyn Policy>,
}

impl std::fmt::Debug for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kind").field("name", &self.name).finish_non_exhaustive()
    }
}
