//! Rules of the limits.

use super::Place;
use crate::{Algorithm, Limit, PolicyDocument};

const MOST_REQUESTS: u64 = 1_000_000_000;
const MOST_KEY_PARTS: usize = 8;

pub(super) fn check(limits: &[Limit], at: &mut Place<'_>) {
    let most = PolicyDocument::MAX_LIMITS;
    if limits.len() > most {
        at.refuse(format!("{} rules are too many: write at most {most}", limits.len()));
    }
    for (i, limit) in limits.iter().enumerate() {
        check_limit(limit, &mut at.item(i));
    }
}

fn check_limit(limit: &Limit, at: &mut Place<'_>) {
    at.within("limit", limit.limit, 1..=MOST_REQUESTS);
    if limit.key.len() > MOST_KEY_PARTS {
        let message = format!("{} parts are too many: write at most {MOST_KEY_PARTS}", limit.key.len());
        at.field("key").refuse(message);
    }
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
            if let Some(initial) = initial.filter(|initial| *initial > burst) {
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
