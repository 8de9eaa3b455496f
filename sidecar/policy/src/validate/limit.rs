//! Rules of the limits.

mod reach;
mod when;

use super::Place;
use crate::{Algorithm, Limit, PolicyDocument};

const MOST_REQUESTS: u64 = 1_000_000_000;
const MOST_KEY_PARTS: usize = 8;

pub(super) fn check(document: &PolicyDocument, at: &mut Place<'_>) {
    let limits = &document.limits;
    let most = PolicyDocument::MAX_LIMITS;
    if limits.len() > most {
        at.refuse(format!("{} rules are too many: write at most {most}", limits.len()));
    }
    for (i, limit) in limits.iter().enumerate() {
        check_limit(limit, &mut at.item(i));
    }
    check_names(limits, at);
    check_memory(document, at);
    reach::check(document, at);
}

fn check_names(limits: &[Limit], at: &mut Place<'_>) {
    for (i, limit) in limits.iter().enumerate() {
        let same = |other: &Limit| (&other.policy, &other.name) == (&limit.policy, &limit.name);
        if limits[..i].iter().any(same) {
            let message = format!("{:?} is there twice: give every limit a name of its own", limit.name);
            at.item(i).field("name").refuse(message);
        }
    }
}

/// The sum is noted where it goes over.
fn check_memory(document: &PolicyDocument, at: &mut Place<'_>) {
    let most = document.limit_memory_bytes.unwrap_or(PolicyDocument::LIMIT_MEMORY_BYTES);
    let mut sum: u64 = 0;
    for (i, limit) in document.limits.iter().enumerate() {
        let fits = sum <= most;
        sum = sum.saturating_add(limit.asked_bytes());
        if fits && sum > most {
            let message = format!(
                "{sum} bytes for the keys of this limit and those before it are too many: write a lower limit or \
                 maxKeys, or a limitMemoryBytes over {most}"
            );
            at.item(i).refuse(message);
        }
    }
}

fn check_limit(limit: &Limit, at: &mut Place<'_>) {
    at.within("limit", limit.limit, 1..=MOST_REQUESTS);
    if limit.key.len() > MOST_KEY_PARTS {
        let message = format!("{} parts are too many: write at most {MOST_KEY_PARTS}", limit.key.len());
        at.field("key").refuse(message);
    }
    if let Some(keys) = limit.max_keys {
        at.within("maxKeys", keys, 1..=Limit::MOST_KEYS);
    }
    when::check(&limit.when, &mut at.field("when"));
    check_window(limit, at);
    check_algorithm(limit, &mut at.field("algorithm"));
    if limit.algorithm == Algorithm::SlidingLog {
        check_log(limit, at);
    }
}

fn check_window(limit: &Limit, at: &mut Place<'_>) {
    match (limit.algorithm, limit.window_millis) {
        (Algorithm::Concurrency, Some(window)) => {
            let message = format!("{} has no meaning for concurrency: leave it out", window.get());
            at.field("windowMillis").refuse(message);
        }
        (Algorithm::Concurrency, None) | (_, Some(_)) => {}
        (_, None) => at.field("windowMillis").refuse("missing: write the length of the window"),
    }
}

fn check_algorithm(limit: &Limit, at: &mut Place<'_>) {
    match limit.algorithm {
        Algorithm::TokenBucket { burst, initial } => {
            let mut at = at.field("tokenBucket");
            at.within("burst", burst, 1..=MOST_REQUESTS);
            if let Some(initial) = initial.filter(|initial| (1..*initial).contains(&burst)) {
                let message = format!("{initial} does not fit the bucket: write 0 to {burst}, its burst");
                at.field("initial").refuse(message);
            }
        }
        Algorithm::LeakyBucket { burst, .. } => {
            at.field("leakyBucket").within("burst", burst, 1..=MOST_REQUESTS);
        }
        Algorithm::SlidingWindow { sub_windows } => {
            at.field("slidingWindow").within("subWindows", sub_windows, 1..=60);
        }
        Algorithm::SlidingLog | Algorithm::FixedWindow | Algorithm::Concurrency => {}
    }
}

fn check_log(limit: &Limit, at: &mut Place<'_>) {
    let most = Limit::MOST_LOGGED;
    if limit.limit > most && limit.limit <= MOST_REQUESTS {
        let message =
            format!("{} is too much for an exact log: write at most {most}, or slidingWindow", limit.limit);
        at.field("limit").refuse(message);
    }
    if !limit.cost.is_requests() {
        at.field("cost").refuse("an exact log counts requests: leave it out, or write slidingWindow");
    }
}

#[cfg(test)]
mod tests;
