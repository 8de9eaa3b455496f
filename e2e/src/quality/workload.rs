//! Who asks for what, and when: superposed copies of a recorded hour, sent by tenants and clients of several kinds.

use std::time::Duration;

use tidegate_cli::engine_model::{Model, ModelConfig, Step};
use tidegate_policy::PriorityClass;

use crate::{random::Random, trace::Entry};

/// Share of the engine's saturation that one copy of the trace asks for.
pub const BASE_LOAD: f64 = 0.65;
/// Tenants; the last [`GREEDY`] of them send most of what exceeds one copy.
pub const TENANTS: usize = 10;
/// Greedy tenants.
pub const GREEDY: usize = 2;
/// Share of the requests beyond the first copy that greedy tenants send.
const GREEDY_SHARE: f64 = 0.6;

/// One stretch of a run with the same number of copies.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Level {
    /// Copies of the trace at once.
    pub copies: u32,
    /// For how long.
    pub length: Duration,
}

/// The course of a run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// In order of time. The first is the warm-up, which is not scored; the last is the recovery.
    pub levels: Vec<Level>,
}

impl Plan {
    /// A warm-up at one copy, then 1, 2, 4, 8 and 17 copies, then one again.
    pub fn new(warm_up: Duration, level: Duration, recovery: Duration) -> Self {
        let mut levels = vec![Level { copies: 1, length: warm_up }];
        levels.extend([1, 2, 4, 8, 17].map(|copies| Level { copies, length: level }));
        levels.push(Level { copies: 1, length: recovery });
        Self { levels }
    }

    /// When each level begins, and the end of the last.
    pub fn borders(&self) -> Vec<Duration> {
        let mut borders = vec![Duration::ZERO];
        for level in &self.levels {
            borders.push(borders.last().copied().unwrap_or_default() + level.length);
        }
        borders
    }

    /// From when on requests are scored.
    pub fn scored_from(&self) -> Duration {
        self.levels.first().map_or(Duration::ZERO, |level| level.length)
    }

    /// Length of what is scored.
    pub fn scored_seconds(&self) -> f64 {
        self.end().saturating_sub(self.scored_from()).as_secs_f64()
    }

    /// When the load is back at one copy.
    pub fn recovery_from(&self) -> Duration {
        self.borders().iter().rev().nth(1).copied().unwrap_or_default()
    }

    /// The end of the last arrival.
    pub fn end(&self) -> Duration {
        self.borders().last().copied().unwrap_or_default()
    }
}

/// What a client does when it is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    /// Comes again when it was told to, or by exponential backoff when it was told nothing.
    Obedient,
    /// Comes again at once, many times, whatever it was told.
    Hammers,
    /// Never comes again.
    GivesUp,
}

/// What one user wants.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    /// Since the start of the run.
    pub at: Duration,
    /// Tokens of the prompt.
    pub prompt: u32,
    /// Tokens of the answer.
    pub output: u32,
    /// Its priority.
    pub class: PriorityClass,
    /// Who sends it.
    pub tenant: usize,
    /// What its client does when it is refused.
    pub behaviour: Behaviour,
}

/// Requests per second that the engine completes when it always has a queue of requests of the trace.
pub fn saturation(config: &ModelConfig, trace: &[Entry]) -> f64 {
    const REQUESTS: usize = 600;
    let mut model = Model::new(config.clone());
    for (id, entry) in fitting(config, trace).take(REQUESTS).enumerate() {
        // `fitting` leaves out what the model would refuse.
        let _fits = model.submit(id as u64, entry.prompt_tokens, entry.output_tokens);
    }
    let (mut now, mut done) = (Duration::ZERO, 0.0);
    while model.waiting() > 0 {
        if let Step::Takes(duration) = model.begin_step() {
            now += duration;
        }
        done += model.end_step().iter().filter(|token| token.last).count() as f64;
    }
    done / now.as_secs_f64().max(f64::MIN_POSITIVE)
}

/// Requests that the engine can compute at all.
fn fitting<'a>(config: &ModelConfig, trace: &'a [Entry]) -> impl Iterator<Item = &'a Entry> {
    let longest = Model::new(config.clone()).longest();
    trace.iter().filter(move |entry| entry.prompt_tokens.saturating_add(entry.output_tokens) <= longest)
}

/// The requests of a run. Equal seeds give equal requests.
///
/// Each copy is the trace from a random hour hand on, thinned by independent draws to [`BASE_LOAD`] of `saturation`;
/// so every copy keeps the trace's burstiness and lengths, and no two are alike.
pub fn requests(
    config: &ModelConfig,
    trace: &[Entry],
    saturation: f64,
    plan: &Plan,
    seed: u64,
) -> Vec<Request> {
    let entries: Vec<Entry> = fitting(config, trace).copied().collect();
    let hour = entries.last().map_or(Duration::ZERO, |entry| entry.at) + Duration::from_millis(100);
    let rate = entries.len() as f64 / hour.as_secs_f64();
    let kept = BASE_LOAD * saturation / rate;
    let random = Random::new(seed);
    let copies = plan.levels.iter().map(|level| level.copies).max().unwrap_or_default();
    let mut requests = Vec::new();
    for copy in 0..copies {
        let mut random = random.fork(u64::from(copy));
        let offset = hour.mul_f64(random.uniform());
        for entry in &entries {
            let at = entry.at.checked_sub(offset).unwrap_or_else(|| (entry.at + hour).saturating_sub(offset));
            // A trace with fewer requests than one copy needs is repeated.
            let times = kept.floor() as usize + usize::from(random.uniform() < kept.fract());
            for _ in 0..times {
                let request = request(at, entry, copy, &mut random);
                if active(plan, copy, at) {
                    requests.push(request);
                }
            }
        }
    }
    requests.sort_by_key(|request| request.at);
    requests
}

fn active(plan: &Plan, copy: u32, at: Duration) -> bool {
    let borders = plan.borders();
    let level = borders.partition_point(|border| *border <= at);
    plan.levels.get(level.wrapping_sub(1)).is_some_and(|level| copy < level.copies)
}

fn request(at: Duration, entry: &Entry, copy: u32, random: &mut Random) -> Request {
    let greedy = copy > 0 && random.uniform() < GREEDY_SHARE;
    let (first, count) = if greedy { (TENANTS - GREEDY, GREEDY) } else { (0, TENANTS - GREEDY) };
    // In the first copy all tenants are alike.
    let (first, count) = if copy == 0 { (0, TENANTS) } else { (first, count) };
    let tenant = first + (random.uniform() * count as f64) as usize;
    let greedy = tenant >= TENANTS - GREEDY;
    Request {
        at,
        prompt: entry.prompt_tokens,
        output: entry.output_tokens,
        class: class(greedy, random),
        tenant,
        behaviour: behaviour(greedy, random),
    }
}

/// Greedy tenants are not entitled to high.
fn class(greedy: bool, random: &mut Random) -> PriorityClass {
    let shares = if greedy { [0.0, 0.5, 0.5] } else { [0.15, 0.55, 0.3] };
    let [high, medium, low] = shares;
    let classes = [(PriorityClass::High, high), (PriorityClass::Medium, medium), (PriorityClass::Low, low)];
    random.pick(&classes).unwrap_or(PriorityClass::Medium)
}

fn behaviour(greedy: bool, random: &mut Random) -> Behaviour {
    let [obeys, hammers, gives_up] = if greedy { [0.3, 0.5, 0.2] } else { [0.6, 0.1, 0.3] };
    let kinds = [(Behaviour::Obedient, obeys), (Behaviour::Hammers, hammers), (Behaviour::GivesUp, gives_up)];
    random.pick(&kinds).unwrap_or(Behaviour::GivesUp)
}
