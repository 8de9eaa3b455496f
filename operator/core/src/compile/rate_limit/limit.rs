//! How a limit counts.

use tidegate_crds::{Algorithm, Cost, Limit};
use tidegate_policy as document;

use super::super::problems::Problems;
use super::super::scalar::{count, count32, millis, weight};
use super::MOST_REQUESTS;

/// The algorithm with its parameters, or which of the fields does not go with it.
pub(super) fn algorithm(spec: &Limit) -> Result<document::Algorithm, String> {
    check_fields(spec)?;
    Ok(match spec.algorithm {
        Algorithm::TokenBucket => {
            let burst = burst(spec)?;
            let fits = |initial| count(initial, 0, MOST_REQUESTS).map_err(|e| format!("initial {e}"));
            let initial = spec.initial.map(fits).transpose()?;
            if initial.is_some_and(|initial| initial > burst) {
                return Err(Limit::TOO_FULL.to_owned());
            }
            document::Algorithm::TokenBucket { burst, initial }
        }
        Algorithm::LeakyBucket => {
            let wait = spec.max_wait.as_ref().map(millis).transpose().map_err(|e| format!("maxWait {e}"))?;
            document::Algorithm::LeakyBucket { burst: burst(spec)?, max_wait_millis: wait }
        }
        Algorithm::SlidingWindow => {
            let written = spec.sub_windows.map(|slots| count32(slots, 1, 60)).transpose();
            let sub_windows = written.map_err(|e| format!("subWindows {e}"))?;
            document::Algorithm::SlidingWindow {
                sub_windows: sub_windows.unwrap_or_else(|| usual_parts(spec)),
            }
        }
        Algorithm::SlidingLog if spec.limit > document::Limit::MOST_LOGGED.cast_signed() => {
            return Err(Limit::LOG.to_owned());
        }
        Algorithm::SlidingLog => document::Algorithm::SlidingLog,
        Algorithm::FixedWindow => document::Algorithm::FixedWindow,
        Algorithm::Concurrency => document::Algorithm::Concurrency,
    })
}

/// Slots of a window that is not divided by its author. What is wrong about the limit or the window is told elsewhere.
fn usual_parts(spec: &Limit) -> u32 {
    let window = spec.window.as_ref().and_then(|window| millis(window).ok()).map(document::Millis::duration);
    document::Ring::usual_parts(spec.limit.try_into().unwrap_or_default(), window.unwrap_or_default())
}

/// What is counted, or what is wrong about it.
pub(super) fn cost(field: &str, spec: &Limit, problems: &mut Problems) -> Option<document::Cost> {
    let weighted = spec.cost == Cost::WeightedTokens;
    let mistakes = [
        (spec.weights.is_some() != weighted, Limit::WEIGHTS),
        (spec.on_exhausted.is_some() && spec.cost == Cost::Requests, Limit::ON_EXHAUSTED),
        (spec.cost != Cost::Requests && spec.algorithm == Algorithm::SlidingLog, Limit::LOGGED_TOKENS),
    ];
    if let Some((_, message)) = mistakes.into_iter().find(|(wrong, _)| *wrong) {
        problems.add(field, message);
        return None;
    }
    Some(match (spec.cost, &spec.weights) {
        (Cost::PromptTokens, _) => document::Cost::PromptTokens,
        (Cost::TotalTokens, _) => document::Cost::TotalTokens,
        (Cost::WeightedTokens, Some(weights)) => {
            let input = problems.keep(format!("{field}.weights.input"), weight(&weights.input));
            let cached = problems.keep(format!("{field}.weights.cached"), weight(&weights.cached));
            let output = problems.keep(format!("{field}.weights.output"), weight(&weights.output));
            document::Cost::Tokens(document::TokenWeights { input: input?, cached: cached?, output: output? })
        }
        (Cost::Requests | Cost::WeightedTokens, _) => document::Cost::Requests,
    })
}

fn check_fields(spec: &Limit) -> Result<(), String> {
    let is = |algorithms: &[Algorithm]| algorithms.contains(&spec.algorithm);
    let mistakes = [
        (spec.window.is_some() == is(&[Algorithm::Concurrency]), Limit::WINDOW),
        (spec.burst.is_some() && !is(&[Algorithm::TokenBucket, Algorithm::LeakyBucket]), Limit::BURST),
        (spec.initial.is_some() && !is(&[Algorithm::TokenBucket]), Limit::INITIAL),
        (spec.max_wait.is_some() && !is(&[Algorithm::LeakyBucket]), Limit::MAX_WAIT),
        (spec.sub_windows.is_some() && !is(&[Algorithm::SlidingWindow]), Limit::SUB_WINDOWS),
    ];
    mistakes.into_iter().find(|(wrong, _)| *wrong).map_or(Ok(()), |(_, message)| Err(message.to_owned()))
}

fn burst(spec: &Limit) -> Result<u64, String> {
    count(spec.burst.unwrap_or(spec.limit), 1, MOST_REQUESTS).map_err(|e| format!("burst {e}"))
}
