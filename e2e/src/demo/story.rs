//! What the demo tells, in order: calm traffic, a rise beyond what the engine can take, the way back, an engine that
//! slows down and speeds up again, a policy change under traffic, an engine that fails and recovers.

use std::time::Duration;

use crate::{
    load::{
        Mix, Planned,
        plan::{replay, with_keys},
    },
    trace::Entry,
};

/// The engine runs four times as fast as an 8-billion-parameter model on one GPU.
pub const TIME_SCALE: f64 = 0.25;
/// KV-cache blocks of the engine: few enough to fill at the rate that the policy allows.
pub const KV_BLOCKS: u32 = 2200;
/// How long the engine fails.
pub const FAILURE: Duration = Duration::from_secs(3);
/// By how much it slows down.
pub const SLOWDOWN: f64 = 12.0;
/// How long it is slow: the latency tier looks at three periods of two seconds.
pub const SLOW: Duration = Duration::from_secs(9);
/// All stages together.
pub const LENGTH: Duration = Duration::from_secs(Stage::Failing.end());

/// Requests per second when all is well.
const CALM_RATE: f64 = 5.0;
/// API keys in use, but while the policy changes.
const KEYS: usize = 500;

/// One part of the story.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// All is well.
    Calm,
    /// More and more requests.
    Rising,
    /// Few requests again.
    Recovering,
    /// The engine is slow for [`SLOW`].
    Slow,
    /// A policy is added; all requests have one API key.
    Changed,
    /// The engine fails for [`FAILURE`].
    Failing,
}

impl Stage {
    const ALL: [Self; 6] =
        [Self::Calm, Self::Rising, Self::Recovering, Self::Slow, Self::Changed, Self::Failing];

    /// When it ends, in seconds since the start.
    const fn end(self) -> u64 {
        match self {
            Self::Calm => 4,
            Self::Rising => 16,
            Self::Recovering => 23,
            Self::Slow => 42,
            Self::Changed => 46,
            Self::Failing => 56,
        }
    }

    /// The stage at a time; the last one after its end.
    pub fn at(time: Duration) -> Self {
        Self::ALL.into_iter().find(|stage| time.as_secs() < stage.end()).unwrap_or(Self::Failing)
    }

    /// What it shows.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Calm => "calm traffic",
            Self::Rising => "load rises beyond the ceilings",
            Self::Recovering => "load falls, tiers recover",
            Self::Slow => "the engine slows down, then recovers",
            Self::Changed => "a second policy is added under traffic",
            Self::Failing => "the engine fails, then recovers",
        }
    }
}

/// Requests per second by seconds since the start.
fn rate(at: f64) -> f64 {
    match Stage::at(Duration::from_secs_f64(at)) {
        Stage::Calm | Stage::Recovering => CALM_RATE,
        Stage::Rising => CALM_RATE + (at - Stage::Calm.end() as f64) * 3.0,
        Stage::Slow | Stage::Changed | Stage::Failing => 8.0,
    }
}

/// The load of the whole story.
pub fn plan(trace: &[Entry]) -> Vec<Planned> {
    let mut plan = with_keys(replay(trace, LENGTH, rate, Mix::default()), KEYS);
    for planned in plan.iter_mut().filter(|planned| Stage::at(planned.at) == Stage::Changed) {
        planned.key = Some("one-tenant".to_owned());
    }
    plan
}

/// Calm traffic as long as the story.
pub fn calm_plan(trace: &[Entry]) -> Vec<Planned> {
    with_keys(replay(trace, LENGTH, |_| CALM_RATE, Mix::default()), KEYS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_load_goes_beyond_the_ceiling_only_while_it_rises() {
        let plan = plan(&crate::trace::synthetic::generate(1, Duration::from_hours(1)));
        let in_stage = |stage| plan.iter().filter(|planned| Stage::at(planned.at) == stage).count();
        assert!(in_stage(Stage::Rising) > 200, "{}", in_stage(Stage::Rising));
        assert!(in_stage(Stage::Calm) < 50 && in_stage(Stage::Recovering) < 90);
        assert!(plan.last().unwrap().at < LENGTH);
    }
}
