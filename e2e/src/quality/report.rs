//! The results as tables.

use std::fmt::Write as _;

use super::{
    fit,
    score::Score,
    study::{Result, Results},
};

/// Name of the policy that the others are compared with.
const REFERENCE: &str = "static concurrency, best in hindsight";

/// All tables, in Markdown.
pub fn markdown(results: &Results) -> String {
    let mut text = String::new();
    setup(results, &mut text);
    primary(results, &mut text);
    by_priority(results, &mut text);
    side_effects(results, &mut text);
    growing(results, &mut text);
    tuned(results, &mut text);
    fitted(results, &mut text);
    text
}

fn setup(results: &Results, text: &mut String) {
    let effort = results.effort;
    _ = writeln!(
        text,
        "Trace {}; saturation {:.2} requests/s; {} seeds, {} tries on {} other seeds for each policy; warm-up {} s, \
         levels of {} s, recovery {} s.\n",
        results.source,
        results.saturation,
        effort.seeds,
        effort.tries,
        effort.tuning_seeds,
        effort.warm_up.as_secs(),
        effort.level.as_secs(),
        effort.recovery.as_secs(),
    );
}

/// Mean and standard deviation over the seeds.
pub fn spread(result: &Result, of: impl Fn(&Score) -> f64) -> (f64, f64) {
    of_scores(&result.scores, of)
}

fn of_scores(scores: &[Score], of: impl Fn(&Score) -> f64) -> (f64, f64) {
    let values: Vec<f64> = scores.iter().map(of).filter(|value| value.is_finite()).collect();
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
    (mean, variance.sqrt())
}

fn cells(cells: impl Iterator<Item = String>) -> String {
    cells.collect::<Vec<_>>().join(" | ")
}

fn percent(value: f64) -> String {
    if value.is_finite() { format!("{:.0} %", value * 100.0) } else { "–".to_owned() }
}

fn primary(results: &Results, text: &mut String) {
    let bound = results.bounds.iter().sum::<f64>() / results.bounds.len().max(1) as f64;
    let reference = results.policies.iter().find(|policy| policy.name == REFERENCE);
    let reference = reference.map_or(f64::NAN, |policy| spread(policy, |score| score.goodput).0);
    _ = writeln!(
        text,
        "### Goodput\n\nGenerated tokens of requests within their objectives, weighted 4, 2, 1 by priority, per second. \
         The fluid bound is {bound:.0}.\n\n\
         | policy | goodput | of the best static limit | of the fluid bound | 1 × | 2 × | 4 × | 8 × | 17 × | 1 × again |\n\
         |---|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
    );
    let mut policies: Vec<&Result> = results.policies.iter().collect();
    policies
        .sort_by(|a, b| spread(b, |score| score.goodput).0.total_cmp(&spread(a, |score| score.goodput).0));
    for policy in policies {
        let (mean, deviation) = spread(policy, |score| score.goodput);
        let levels = cells((0..6).map(|i| format!("{:.0}", spread(policy, |score| score.by_level[i]).0)));
        _ = writeln!(
            text,
            "| {} | {mean:.0} ± {deviation:.0} | {} | {} | {levels} |",
            policy.name,
            percent(mean / reference),
            percent(mean / bound),
        );
    }
}

fn by_priority(results: &Results, text: &mut String) {
    _ = writeln!(
        text,
        "\n### By priority\n\nShare of all requests wanted that were answered within their objective, and P95 of the time to \
         the first token and of the time per token of those answered.\n\n\
         | policy | high | medium | low | TTFT P95 high | medium | low | TPOT P95 high | medium | low |\n\
         |---|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
    );
    for policy in &results.policies {
        let mean = |of: &dyn Fn(&Score) -> f64| spread(policy, of).0;
        let attained = cells((0..3).map(|i| percent(mean(&|score| score.attained[i]))));
        let first = cells((0..3).map(|i| format!("{:.1} s", mean(&|score| score.first_token_p95[i]))));
        let rest = cells((0..3).map(|i| format!("{:.0} ms", mean(&|score| score.per_token_p95[i]) * 1e3)));
        _ = writeln!(text, "| {} | {attained} | {first} | {rest} |", policy.name);
    }
}

fn side_effects(results: &Results, text: &mut String) {
    _ = writeln!(
        text,
        "\n### What else it costs\n\n\
         | policy | high refused while low admitted | wasted tokens | preemptions/min | recovery | Jain | \
         admitted when told | at most |\n|---|--:|--:|--:|--:|--:|--:|--:|"
    );
    for policy in &results.policies {
        let mean = |of: &dyn Fn(&Score) -> f64| spread(policy, of).0;
        _ = writeln!(
            text,
            "| {} | {:.1} % | {} | {:.1} | {:.0} s | {:.2} | {} | {} |",
            policy.name,
            mean(&|score| score.inverted) * 100.0,
            percent(mean(&|score| score.wasted).max(0.0)),
            mean(&|score| score.preemptions),
            mean(&|score| score.recovery),
            mean(&|score| score.fairness),
            percent(mean(&|score| score.kept_word)),
            percent(mean(&|score| score.kept_at_most)),
        );
    }
}

fn growing(results: &Results, text: &mut String) {
    _ = writeln!(
        text,
        "\n### An engine that can run out of memory\n\nThe same requests and policies, tuned for the engine above, with an \
         engine whose cache grows on demand: when it is full, the engine loses every request and is away for 30 s.\n\n\
         | policy | goodput | out of memory in a run | high attained |\n|---|--:|--:|--:|"
    );
    for policy in &results.policies {
        let (mean, deviation) = of_scores(&policy.growing, |score| score.goodput);
        let crashes = of_scores(&policy.growing, |score| score.out_of_memory).0;
        let high = percent(of_scores(&policy.growing, |score| score.attained[0]).0);
        _ = writeln!(text, "| {} | {mean:.0} ± {deviation:.0} | {crashes:.1} | {high} |", policy.name);
    }
}

fn tuned(results: &Results, text: &mut String) {
    _ = writeln!(text, "\n### Tuned to\n\n| policy | source | values |\n|---|---|---|");
    for policy in &results.policies {
        let values: Vec<String> =
            policy.values.iter().map(|(name, value)| format!("{name} {value:.2}")).collect();
        _ = writeln!(text, "| {} | {} | {} |", policy.name, policy.source, values.join(", "));
    }
}

fn fitted(results: &Results, text: &mut String) {
    _ = writeln!(
        text,
        "\n### The model beside the published table\n\nPublished value, and the model's error.\n\n\
         | offered | requests/s | TTFT mean | P50 | P90 | P99 | TPOT mean | P50 | P90 | P99 |\n\
         |--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
    );
    let mut sum = 0.0;
    for (published, modelled) in fit::PUBLISHED.iter().zip(fit::modelled(&results.config)) {
        let errors = fit::errors(published, &modelled);
        sum += errors.iter().map(|error| error.abs()).sum::<f64>();
        let values = [&[published.throughput][..], &published.ttft, &published.tpot].concat();
        let cell = |(value, error): (f64, f64)| format!("{value:.1} ({:+.0} %)", error * 100.0);
        let row = cells(values.into_iter().zip(errors).map(cell));
        _ = writeln!(text, "| {:.0}/s | {row} |", published.rate);
    }
    let mean = sum / (fit::PUBLISHED.len() * 9) as f64;
    _ = writeln!(text, "\nTimes in milliseconds. Mean absolute error: {:.1} %.", mean * 100.0);
}
