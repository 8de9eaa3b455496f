//! The breakers of stages.

use tidegate_crds as crd;
use tidegate_policy::{OutOfMemory, Stage, StageBreaker};

use super::problems::{Problems, optional};
use super::scalar::{count32, millis, percentile_below_all};

const MOST: i32 = 1_000_000;

pub(super) fn stages(stages: &[crd::StageBreaker], problems: &mut Problems) -> Option<Vec<StageBreaker>> {
    // All of them are looked at before the first mistake ends it.
    let stages: Vec<_> = stages.iter().enumerate().map(|(i, spec)| stage(i, spec, problems)).collect();
    stages.into_iter().collect()
}

fn stage(i: usize, spec: &crd::StageBreaker, problems: &mut Problems) -> Option<StageBreaker> {
    let field = format!("spec.stages[{i}]");
    if spec.latency.is_none() && spec.out_of_memory.is_none() {
        problems.add(field.as_str(), crd::StageBreaker::NOTHING);
    }
    let name = Stage::new(&spec.name).map_err(|error| error.to_string());
    let stage = problems.keep(format!("{field}.name"), name);
    // Without a latency the defaults of one say nothing.
    let latency = spec.latency.clone().unwrap_or_default();
    let at = |part: &str| format!("{field}.latency.{part}");
    let percentile = problems.keep(at("percentile"), percentile_below_all(&latency.percentile));
    let over = problems.keep(at("above"), millis(&latency.above));
    let window = problems.keep(at("window"), millis(&latency.window));
    let minimum = problems.keep(at("minimumRequests"), count32(latency.minimum_requests, 1, MOST));
    let out_of_memory = optional(spec.out_of_memory.as_ref(), |spec| {
        let count = problems.keep(format!("{field}.outOfMemory.count"), count32(spec.count, 1, MOST));
        let window = problems.keep(format!("{field}.outOfMemory.window"), millis(&spec.window));
        Some(OutOfMemory { count: count?, window_millis: window? })
    });
    Some(StageBreaker {
        stage: stage?,
        over_millis: over.filter(|_| spec.latency.is_some()),
        percentile: percentile?,
        window_millis: window?,
        minimum_requests: minimum?,
        out_of_memory: out_of_memory?,
        stale_after_millis: None,
    })
}
