//! What no policy can exceed: requests as a fluid.
//!
//! A step costs its fixed time, and something for each sequence, cached token and prompt token. The fixed time is
//! shared by at most what fits into the cache, so each token that a sequence keeps there for one step costs at least
//! its share of it. So every request has a least cost in engine time, whatever it is batched with. An engine that knew
//! everything beforehand would take the requests with the most weighted tokens for that time first, in pieces, until
//! the time of the level is used up. Work may be put off by as long as the most patient client waits.

use std::time::Duration;

use tidegate_cli::engine_model::{BLOCK_TOKENS, ModelConfig};

use super::{
    client::PATIENCE,
    score::weight,
    workload::{Plan, Request},
};

/// Weighted tokens per second that no policy exceeds, over all levels after the warm-up.
pub fn fluid(config: &ModelConfig, plan: &Plan, requests: &[Request]) -> f64 {
    let borders = plan.borders();
    let levels = borders.windows(2).skip(1);
    let tokens: f64 = levels.map(|ends| level(config, requests, ends[0], ends[1])).sum();
    tokens / plan.scored_seconds()
}

fn level(config: &ModelConfig, requests: &[Request], from: Duration, to: Duration) -> f64 {
    let inside = requests.iter().filter(|request| (from..to).contains(&request.at));
    let mut worth: Vec<(f64, f64)> = inside
        .map(|request| (weight(request.class) * f64::from(request.output), cost(config, request)))
        .collect();
    worth.sort_by(|(tokens, cost), (others, dearer)| (others / dearer).total_cmp(&(tokens / cost)));
    let mut left = (to.saturating_sub(from) + PATIENCE).as_secs_f64();
    let mut sum = 0.0;
    for (tokens, cost) in worth {
        let share = (left / cost).clamp(0.0, 1.0);
        sum += tokens * share;
        left -= cost * share;
    }
    sum
}

/// The least engine time of a request, in seconds.
fn cost(config: &ModelConfig, request: &Request) -> f64 {
    let costs = config.costs;
    let (prompt, output) = (f64::from(request.prompt), f64::from(request.output));
    let cached = (prompt + output / 2.0) * output;
    let cache = f64::from(config.kv_blocks) * f64::from(BLOCK_TOKENS);
    let step = costs.step.as_secs_f64() * cached / cache;
    let attention = costs.cached_token_nanos * 1e-9 * cached;
    costs.prompt_token.as_secs_f64() * prompt + costs.sequence.as_secs_f64() * output + attention + step
}
