//! All policies on the same requests.

use std::{fmt::Write as _, time::Duration};

use tidegate_cli::engine_model::{ModelConfig, Overflow};

use super::{
    ours::OURS,
    peers::{PEERS, static_concurrency, static_rate},
    policy::Kind,
    record::Record,
    scene::Scene,
    score::{Score, score},
    tune::tune,
    workload::{Plan, saturation},
};
use crate::trace::Trace;

/// Seeds that policies are tuned on begin here; those that are scored begin at 0.
const TUNING_SEEDS: u64 = 1000;

/// How much is computed.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Length of the warm-up, which is not scored.
    pub warm_up: Duration,
    /// Length of each level of load.
    pub level: Duration,
    /// Length of the last level, back at one copy.
    pub recovery: Duration,
    /// Seeds that scores are taken from.
    pub seeds: u64,
    /// Seeds that policies are tuned on.
    pub tuning_seeds: u64,
    /// Tries that each policy is given.
    pub tries: usize,
}

/// Everything but the policies.
#[derive(Debug)]
pub struct Study {
    source: String,
    effort: Effort,
    saturation: f64,
    config: ModelConfig,
    scenes: Vec<Scene>,
    tuning: Vec<Scene>,
    /// The scored scenes with an engine whose cache grows on demand.
    growing: Vec<Scene>,
}

/// One policy on all seeds.
#[derive(Debug)]
pub struct Result {
    /// Its name.
    pub name: String,
    /// Where it comes from.
    pub source: &'static str,
    /// What it was tuned to: names and values.
    pub values: Vec<(&'static str, f64)>,
    /// One score for each seed.
    pub scores: Vec<Score>,
    /// The same with an engine whose cache grows on demand, so that it can run out of memory.
    pub growing: Vec<Score>,
    /// The first seed's run.
    pub first: Record,
}

/// All policies on all seeds.
#[derive(Debug)]
pub struct Results {
    /// Where the trace comes from.
    pub source: String,
    /// How much was computed.
    pub effort: Effort,
    /// The modelled engine.
    pub config: ModelConfig,
    /// Requests per second that the engine completes at most.
    pub saturation: f64,
    /// Weighted tokens per second that no policy exceeds, by seed.
    pub bounds: Vec<f64>,
    /// The policies.
    pub policies: Vec<Result>,
}

/// Policies whose name contains `only`.
pub fn kinds(only: &str) -> impl Iterator<Item = &'static Kind> {
    PEERS.into_iter().chain(OURS).filter(move |kind| kind.name.contains(only))
}

impl Study {
    /// Prepares the requests of all seeds.
    pub fn new(trace: &Trace, effort: Effort) -> Self {
        let config = ModelConfig::llama_3_8b_on_rtx_4090();
        let plan = Plan::new(effort.warm_up, effort.level, effort.recovery);
        let scenes = |first, count| Scene::of_seeds(&config, &trace.entries, &plan, first..first + count);
        let scored = scenes(0, effort.seeds);
        let growing = ModelConfig { overflow: Overflow::OutOfMemory, ..config.clone() };
        Self {
            source: trace.source.clone(),
            effort,
            saturation: saturation(&config, &trace.entries),
            growing: scored.iter().map(|scene| scene.on(&growing)).collect(),
            scenes: scored,
            tuning: scenes(TUNING_SEEDS, effort.tuning_seeds),
            config,
        }
    }

    /// Tunes and plays all policies whose name contains `only`. Says to `told` what is done.
    pub fn run(&self, only: &str, told: impl Fn(&str)) -> Results {
        let mut policies = Vec::new();
        for kind in kinds(only) {
            told(kind.name);
            let (values, _) = tune(kind, &self.tuning, self.effort.tries);
            policies.push(self.result(kind, kind.name.to_owned(), &values));
        }
        for kind in [&static_rate::KIND, &static_concurrency::KIND, &static_concurrency::SHARES] {
            if kind.name.contains(only) {
                let name = format!("{}, best in hindsight", kind.name);
                told(&name);
                let (values, _) = tune(kind, &self.scenes, self.effort.tries);
                policies.push(self.result(kind, name, &values));
            }
        }
        Results {
            source: self.source.clone(),
            effort: self.effort,
            config: self.config.clone(),
            saturation: self.saturation,
            bounds: self.scenes.iter().map(Scene::bound).collect(),
            policies,
        }
    }

    fn result(&self, kind: &Kind, name: String, values: &[f64]) -> Result {
        let mut records = self.scenes.iter().map(|scene| scene.play(kind, values));
        let first = records.next().unwrap_or_else(|| Record::new(&Plan { levels: Vec::new() }, &[]));
        let scores = std::iter::once(score(&first)).chain(records.map(|record| score(&record))).collect();
        let growing = self.growing.iter().map(|scene| scene.score(kind, values)).collect();
        let values = kind.axes.iter().map(|axis| axis.name).zip(values.iter().copied()).collect();
        Result { name, source: kind.source, values, scores, growing, first }
    }

    /// The first seed's run of a tuned policy, second by second.
    pub fn timeline(&self, kind: &Kind) -> String {
        let (values, _) = tune(kind, &self.tuning, self.effort.tries);
        let mut text = format!("{} {values:?}\n", kind.name);
        for (i, second) in self.scenes.iter().take(1).flat_map(|s| s.play(kind, &values).seconds).enumerate()
        {
            _ = writeln!(
                text,
                "{i:5} wanted {:?} admitted {:?} refused {:?} good {:?} running {} waiting {} kv {:.2} {}",
                second.wanted,
                second.admitted,
                second.refused,
                second.good,
                second.running,
                second.waiting,
                second.kv_usage,
                second.policy,
            );
        }
        text
    }
}
