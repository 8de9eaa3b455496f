//! A run in numbers.

use std::time::Duration;

use tidegate_policy::PriorityClass;

use super::{
    record::{CLASSES, Record, index},
    workload::TENANTS,
};

/// Tenants are compared where at least this many copies of the trace make all of them ask for more than there is.
const CROWDED: u32 = 4;
/// The system has recovered when it serves this share of the requests of [`CALM`] within their objectives again.
const RECOVERED: f64 = 0.95;
/// How many seconds in a row.
const CALM: usize = 10;
/// Seconds whose places those who come as told might have had.
const PLACES_OF: usize = 5;

/// What a token is worth.
pub fn weight(class: PriorityClass) -> f64 {
    match class {
        PriorityClass::High => 4.0,
        PriorityClass::Medium => 2.0,
        PriorityClass::Low => 1.0,
    }
}

/// One run, scored from the end of the warm-up on.
#[derive(Debug, Clone, Copy, Default)]
pub struct Score {
    /// Generated tokens of requests within their objectives, weighted by priority, per second.
    pub goodput: f64,
    /// The same in each level, in the order of the plan without the warm-up.
    pub by_level: [f64; 6],
    /// Share of the requests wanted that were answered within their objectives, by priority.
    pub attained: [f64; 3],
    /// P95 of the time to the first token of answered requests, in seconds, by priority.
    pub first_token_p95: [f64; 3],
    /// P95 of the time per output token of answered requests, in seconds, by priority.
    pub per_token_p95: [f64; 3],
    /// Refusals of high in seconds in which low was admitted, as a share of all attempts of high.
    pub inverted: f64,
    /// Share of the tokens computed that were not part of an answer within its objective.
    pub wasted: f64,
    /// Sequences that lost their place in the cache, per minute.
    pub preemptions: f64,
    /// How often the engine ran out of memory.
    pub out_of_memory: f64,
    /// Seconds from the return to one copy until requests are served again as they were before.
    pub recovery: f64,
    /// Jain's index of the tokens served to each tenant under overload: 1 is equal, 0.1 is all to one.
    pub fairness: f64,
    /// Of the obedient clients that were told when to come again, the share admitted when they came.
    pub kept_word: f64,
    /// The same if every place that their class was given within [`PLACES_OF`] seconds had gone to them.
    pub kept_at_most: f64,
}

/// Scores a run.
pub fn score(record: &Record) -> Score {
    let from = record.plan.scored_from();
    let scored = record.plan.scored_seconds();
    let mut score = Score { recovery: recovery(record), fairness: fairness(record), ..Score::default() };
    let borders = record.plan.borders();
    let mut useful = 0.0;
    for (request, outcome) in record.requests.iter().zip(&record.outcomes) {
        if !outcome.is_good() {
            continue;
        }
        // The first token comes with the prompt.
        useful += f64::from(request.prompt + request.output.saturating_sub(1));
        if request.at < from {
            continue;
        }
        let tokens = weight(request.class) * f64::from(request.output);
        score.goodput += tokens / scored;
        let level = borders.partition_point(|border| *border <= request.at).saturating_sub(2);
        if let (Some(sum), Some(at)) = (score.by_level.get_mut(level), record.plan.levels.get(level + 1)) {
            *sum += tokens / at.length.as_secs_f64();
        }
    }
    score.wasted = 1.0 - useful / record.computed_tokens.max(1) as f64;
    score.preemptions = record.preemptions as f64 / record.plan.end().as_secs_f64() * 60.0;
    score.out_of_memory = record.out_of_memory as f64;
    score.inverted = inverted(record, from);
    score.kept_word = kept_word(record);
    score.kept_at_most = kept_at_most(record);
    for class in CLASSES {
        by_class(record, class, from, &mut score);
    }
    score
}

fn by_class(record: &Record, class: PriorityClass, from: Duration, score: &mut Score) {
    let of_class = record.requests.iter().zip(&record.outcomes);
    let of_class = of_class.filter(|(request, _)| request.class == class && request.at >= from);
    let (mut wanted, mut good) = (0.0, 0.0);
    let (mut first, mut gaps) = (Vec::new(), Vec::new());
    for (_, outcome) in of_class {
        wanted += 1.0;
        good += f64::from(u8::from(outcome.is_good()));
        first.extend(outcome.first_token);
        gaps.extend(outcome.per_token);
    }
    let at = index(class);
    score.attained[at] = good / f64::max(wanted, 1.0);
    score.first_token_p95[at] = p95(first);
    score.per_token_p95[at] = p95(gaps);
}

fn p95(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let rank = (0.95 * values.len() as f64).ceil() as usize;
    values.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

fn inverted(record: &Record, from: Duration) -> f64 {
    let (mut inverted, mut attempts) = (0, 0);
    for second in record.seconds.iter().skip(from.as_secs() as usize) {
        let [high, _, low] = [0, 1, 2];
        attempts += second.admitted[high] + second.refused[high];
        if second.admitted[low] > 0 {
            inverted += second.refused[high];
        }
    }
    f64::from(inverted) / f64::from(attempts.max(1))
}

fn kept_word(record: &Record) -> f64 {
    let told = record.outcomes.iter().filter(|outcome| outcome.came_as_told);
    let (mut came, mut served) = (0.0, 0.0);
    for outcome in told {
        came += 1.0;
        served += f64::from(u8::from(outcome.served_as_told));
    }
    if came > 0.0 { served / came } else { f64::NAN }
}

fn kept_at_most(record: &Record) -> f64 {
    let (mut came, mut places) = (0.0, 0.0);
    for window in record.seconds.chunks(PLACES_OF) {
        for class in CLASSES.map(index) {
            let as_told: u32 = window.iter().map(|second| second.as_told[class]).sum();
            let admitted: u32 = window.iter().map(|second| second.admitted[class]).sum();
            came += f64::from(as_told);
            places += f64::from(as_told.min(admitted));
        }
    }
    if came > 0.0 { places / came } else { f64::NAN }
}

fn fairness(record: &Record) -> f64 {
    let mut served = [0.0; TENANTS];
    let borders = record.plan.borders();
    for (request, outcome) in record.requests.iter().zip(&record.outcomes) {
        let level = borders.partition_point(|border| *border <= request.at).saturating_sub(1);
        let crowded = record.plan.levels.get(level).is_some_and(|level| level.copies >= CROWDED);
        if crowded && outcome.is_whole() {
            served[request.tenant] += f64::from(request.prompt + request.output);
        }
    }
    let sum: f64 = served.iter().sum();
    let squares: f64 = served.iter().map(|tokens| tokens * tokens).sum();
    if squares > 0.0 { sum * sum / (TENANTS as f64 * squares) } else { 0.0 }
}

fn recovery(record: &Record) -> f64 {
    let from = record.plan.recovery_from().as_secs() as usize;
    let to = record.plan.end().as_secs() as usize;
    let sum = |values: [u32; 3]| f64::from(values.iter().sum::<u32>());
    let calm = |window: &[super::record::Second]| {
        let good: f64 = window.iter().map(|second| sum(second.good)).sum();
        let wanted: f64 = window.iter().map(|second| sum(second.wanted)).sum();
        good >= RECOVERED * wanted
    };
    let seconds = record.seconds.get(from..to.min(record.seconds.len())).unwrap_or_default();
    seconds.windows(CALM).position(calm).unwrap_or(seconds.len()) as f64
}
