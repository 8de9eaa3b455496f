//! `simulate`: a log of requests against policies, in virtual time.
//!
//! ```text
//!  log ──▶ arrivals ──▶ the sidecar's own decision engine ──▶ recorded latencies, or a model of an inference engine
//!                              ▲                                     │
//!                              └──── outcomes, GPU memory, ticks ────┘        ──▶ table, plot, JSON, YAML
//! ```

mod clients;
mod log;
mod notes;
mod plot;
mod record;
mod replay;
mod report;
mod served;
mod table;

use std::path::Path;
use std::time::Duration;

use tidegate_policy::PolicyDocument;

use crate::command_line::SimulateArguments;
use crate::refused::Refused;
use crate::{compile, print};
use clients::Clients;
use log::{Log, Request};
use record::Record;
use replay::{Answers, Replay};
use report::Report;
use served::Served;

/// Steps of a replay whose step nobody chose are at most so many,
const STEPS: u64 = 60;
/// and that of one that somebody chose so many.
const MAX_STEPS: u64 = 100_000;
/// Lengths of a step that a person can read off, in milliseconds.
const STEP_LENGTHS: [u64; 17] = [
    100, 200, 500, 1_000, 2_000, 5_000, 10_000, 15_000, 30_000, 60_000, 120_000, 300_000, 600_000, 1_800_000,
    3_600_000, 21_600_000, 86_400_000,
];

pub(crate) fn run(arguments: &SimulateArguments) -> Result<String, Refused> {
    check(arguments)?;
    let document = compile::document(&arguments.policies)?;
    let log = Log::open(&arguments.log, log::zone(&arguments.utc_offset)?)?;
    let report = replay(&document, &log, arguments)?;
    if let Some(file) = &arguments.plot {
        let svg = plot::of(&report)?;
        std::fs::write(file, svg).map_err(|error| Refused::of(format!("{}: {error}", file.display())))?;
    }
    print::form(arguments.output, &report, || table::of(&report))
}

fn replay(document: &PolicyDocument, log: &Log, arguments: &SimulateArguments) -> Result<Report, Refused> {
    let clients = Clients::new(document, &log.survey);
    let answers = match log.survey.first_answer {
        Some(first) => Answers::Recorded(first),
        None => Answers::Modelled(Box::new(Served::new(served::config(&arguments.model)))),
    };
    let span = log.span.div_f64(arguments.speed);
    let step = step(span, arguments)?;
    let steps = span.as_nanos() / step.as_nanos() + 1;
    let record = Record::new(step, steps as usize, document.limits.len())?;
    let faster = |request: Result<Request, Refused>| {
        request.map(|request| Request { at: request.at.div_f64(arguments.speed), ..request })
    };
    let replay = Replay::new(document, &clients, answers, record);
    let record = replay.run(log.requests()?.map(faster))?;
    let start = log.start.map(|start| start.to_string());
    let notes = notes::of(log, document, &clients);
    Ok(Report::new(&record, document, arguments.top, start, notes))
}

/// The step that was asked for, or the shortest of those that give few enough.
fn step(span: Duration, arguments: &SimulateArguments) -> Result<Duration, Refused> {
    let Some(seconds) = arguments.step else {
        let lengths = STEP_LENGTHS.map(Duration::from_millis);
        let fits = |length: &Duration| span.as_nanos() / length.as_nanos() < u128::from(STEPS);
        let longest = Duration::from_millis(STEP_LENGTHS[STEP_LENGTHS.len() - 1]);
        return Ok(lengths.into_iter().find(fits).unwrap_or(longest));
    };
    let least = span.as_secs_f64() / MAX_STEPS as f64;
    let step = Duration::try_from_secs_f64(seconds).unwrap_or_default();
    if step.is_zero() || seconds < least {
        let least = least.max(0.001);
        return Err(Refused::of(format!(
            "--step: {seconds} is out of range: write {least:.3} seconds or more"
        )));
    }
    Ok(step)
}

fn check(arguments: &SimulateArguments) -> Result<(), Refused> {
    let model = arguments.model;
    let positive = |number: f64| number.is_finite() && number > 0.0;
    let mut refused = Refused::default();
    for (flag, valid) in [
        ("--speed", positive(arguments.speed)),
        ("--prefill-rate", model.prefill_rate.is_none_or(positive)),
        ("--token-time", model.token_time.is_none_or(positive)),
        ("--batch", model.batch != Some(0)),
        ("--cache-tokens", model.cache_tokens != Some(0)),
    ] {
        if !valid {
            refused.add(format!("{flag}: out of range: write a number over 0"));
        }
    }
    let standard_input = Path::new("-");
    if arguments.log == standard_input
        && arguments.policies.filenames.iter().any(|file| file == standard_input)
    {
        refused.add("--log and --filename are both standard input: write one of them to a file");
    }
    refused.unless_empty(())
}

#[cfg(test)]
mod tests;
