//! `simulate`: a trace of requests against policies, in virtual time.
//!
//! ```text
//!  trace ──▶ arrivals ──▶ the sidecar's own decision engine ──▶ model of an inference engine
//!                              ▲                                     │
//!                              └──── outcomes, GPU memory, ticks ────┘        ──▶ table
//! ```

mod clients;
mod model;
mod replay;
mod table;
mod trace;

use tidegate_policy::PolicyDocument;

use crate::command_line::SimulateArguments;
use crate::compile;
use crate::refused::Refused;

pub(crate) fn run(arguments: &SimulateArguments) -> Result<String, Refused> {
    let document = compile::document(&arguments.policies)?;
    let origin = arguments.trace.display();
    let text = std::fs::read_to_string(&arguments.trace)
        .map_err(|error| Refused::of(format!("{origin}: {error}")))?;
    let requests = trace::parse(&text).map_err(|message| Refused::of(format!("{origin}: {message}")))?;
    check(arguments)?;
    let requests = trace::faster(requests, arguments.speed);
    Ok(simulate(&document, &requests, arguments))
}

fn simulate(document: &PolicyDocument, requests: &[trace::Request], arguments: &SimulateArguments) -> String {
    let record = replay::Replay::new(document, requests, arguments.model).run();
    table::of(&record)
}

fn check(arguments: &SimulateArguments) -> Result<(), Refused> {
    let model = arguments.model;
    let positive = |number: f64| number.is_finite() && number > 0.0;
    let mut refused = Refused::default();
    for (flag, valid) in [
        ("--speed", positive(arguments.speed)),
        ("--prefill-rate", positive(model.prefill_rate)),
        ("--token-time", positive(model.token_time)),
        ("--batch", model.batch > 0),
        ("--cache-tokens", model.cache_tokens > 0),
    ] {
        if !valid {
            refused.add(format!("{flag}: out of range: write a number over 0"));
        }
    }
    refused.unless_empty(())
}

#[cfg(test)]
mod tests;
