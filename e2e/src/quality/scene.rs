//! The requests of one seed, ready to be played against any policy.

use tidegate_cli::engine_model::ModelConfig;

use super::{
    bound,
    policy::Kind,
    record::Record,
    run::Run,
    score::{Score, score},
    workload::{Plan, Request, requests, saturation},
};
use crate::trace::Entry;

/// Engine, course and requests.
#[derive(Debug)]
pub struct Scene {
    config: ModelConfig,
    plan: Plan,
    requests: Vec<Request>,
    seed: u64,
}

impl Scene {
    /// One scene for each seed.
    pub fn of_seeds(
        config: &ModelConfig,
        trace: &[Entry],
        plan: &Plan,
        seeds: impl IntoIterator<Item = u64>,
    ) -> Vec<Self> {
        let saturation = saturation(config, trace);
        let scene = |seed| Self {
            config: config.clone(),
            plan: plan.clone(),
            requests: requests(config, trace, saturation, plan, seed),
            seed,
        };
        seeds.into_iter().map(scene).collect()
    }

    /// The same requests for another engine.
    #[must_use]
    pub fn on(&self, config: &ModelConfig) -> Self {
        let (plan, requests) = (self.plan.clone(), self.requests.clone());
        Self { config: config.clone(), plan, requests, seed: self.seed }
    }

    /// Plays the scene.
    pub fn play(&self, kind: &Kind, values: &[f64]) -> Record {
        let policy = (kind.build)(values, self.seed);
        Run::new(&self.config, &self.plan, &self.requests, policy, self.seed).play()
    }

    /// Plays the scene and scores it.
    pub fn score(&self, kind: &Kind, values: &[f64]) -> Score {
        score(&self.play(kind, values))
    }

    /// Weighted tokens per second that no policy exceeds here.
    pub fn bound(&self) -> f64 {
        bound::fluid(&self.config, &self.plan, &self.requests)
    }
}
