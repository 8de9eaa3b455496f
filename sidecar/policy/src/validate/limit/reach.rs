//! Limits that another one of the same policy leaves nothing to decide.
//!
//! What several policies ask of a pod adds up, and that one of them is stricter is as it should be. Within one policy
//! a limit that can never decide is a mistake: somebody believes in a number that does not hold. That is so when
//! another limit counts the same requests, or more of them together, and admits so few that this one is never
//! reached. Of two with the same key only those of one algorithm are compared, since layers of different ones, a wide
//! one over a narrow one, are a way of writing a policy.

use super::super::Place;
use crate::{Algorithm, Concurrency, KeyPart, Limit, Mode, PolicyDocument};

pub(super) fn check(document: &PolicyDocument, at: &mut Place<'_>) {
    let limits = &document.limits;
    for (i, limit) in limits.iter().enumerate() {
        if let Some(concurrency) = document.concurrency.as_ref().filter(|all| never_as_many(all, limit)) {
            let message = format!(
                "{} is never reached, since concurrency lets at most {} be in flight together: write less, raise \
                 concurrency.max, or leave this limit out",
                limit.limit, concurrency.max
            );
            at.item(i).field("limit").refuse(message);
        }
        // Of two that hide each other the first may stay.
        let by = limits.iter().enumerate().find(|(j, by)| hides(by, limit) && !(*j > i && hides(limit, by)));
        if let Some((_, by)) = by {
            let message = format!(
                "{} is never reached, since {:?} admits less of the same requests: lower this, raise that, or leave \
                 this limit out",
                limit.limit, by.name
            );
            at.item(i).field("limit").refuse(message);
        }
    }
}

/// Whether there are never as many requests in flight in the pod as `limit` lets one key have.
fn never_as_many(all: &Concurrency, limit: &Limit) -> bool {
    limit.algorithm == Algorithm::Concurrency
        && all.policy == limit.policy
        && (all.mode, limit.mode) == (Mode::Enforce, Mode::Enforce)
        && u64::from(all.max) <= limit.limit
}

/// Whether nothing that `by` admits is ever refused by `limit`.
fn hides(by: &Limit, limit: &Limit) -> bool {
    by.policy == limit.policy
        && by.name != limit.name
        && (by.mode, limit.mode) == (Mode::Enforce, Mode::Enforce)
        && by.cost == limit.cost
        && counts_more(by, limit)
        && is_stricter(by, limit)
}

/// Whether all requests that count together for `limit` do so for `by` too.
fn counts_more(by: &Limit, limit: &Limit) -> bool {
    // It is for no fewer requests: each of its conditions is one of the other's too.
    if !by.when.iter().all(|condition| limit.when.contains(condition)) {
        return false;
    }
    let has = |key: &[KeyPart], parts: &[KeyPart]| parts.iter().all(|part| key.contains(part));
    let same = has(&by.key, &limit.key);
    let kind = std::mem::discriminant::<Algorithm>;
    has(&limit.key, &by.key) && (!same || kind(&limit.algorithm) == kind(&by.algorithm))
}

fn is_stricter(by: &Limit, limit: &Limit) -> bool {
    match limit.algorithm {
        Algorithm::Concurrency => by.algorithm == Algorithm::Concurrency && by.limit <= limit.limit,
        Algorithm::TokenBucket { burst, initial } if initial.is_none_or(|initial| initial >= burst) => {
            fits_bucket(by, limit, burst)
        }
        Algorithm::LeakyBucket { burst, max_wait_millis: None } => fits_bucket(by, limit, burst),
        // One has something to decide until it is full; the other decides about each request when it goes.
        Algorithm::TokenBucket { .. } | Algorithm::LeakyBucket { .. } => false,
        Algorithm::FixedWindow | Algorithm::SlidingLog => fits_window(by, limit, 0),
        Algorithm::SlidingWindow { sub_windows } => fits_window(by, limit, sub_windows),
    }
}

/// Whether a bucket never lacks what `by` admits: neither at once nor in the long run.
fn fits_bucket(by: &Limit, limit: &Limit, burst: u64) -> bool {
    let (Some(bys), Some(own)) = (millis(by), millis(limit)) else { return false };
    at_once(by) <= u128::from(burst) && u128::from(by.limit) * own <= u128::from(limit.limit) * bys
}

/// Whether no window ever holds more than its limit of what `by` admits.
fn fits_window(by: &Limit, limit: &Limit, sub_windows: u32) -> bool {
    let (Some(bys), Some(own)) = (millis(by), millis(limit)) else { return false };
    // In a ring a request counts for up to one part of the window longer.
    let own = own + own.checked_div(u128::from(sub_windows)).unwrap_or(0) + 1;
    let most = match by.algorithm {
        Algorithm::TokenBucket { burst, .. } | Algorithm::LeakyBucket { burst, .. } => {
            u128::from(burst) + (u128::from(by.limit) * own).div_ceil(bys)
        }
        Algorithm::SlidingWindow { .. } | Algorithm::SlidingLog => u128::from(by.limit) * own.div_ceil(bys),
        Algorithm::FixedWindow => u128::from(by.limit) * (own.div_ceil(bys) + 1),
        Algorithm::Concurrency => return false,
    };
    most <= u128::from(limit.limit)
}

/// What a key can have admitted at about one instant.
fn at_once(limit: &Limit) -> u128 {
    u128::from(match limit.algorithm {
        Algorithm::TokenBucket { burst, .. } | Algorithm::LeakyBucket { burst, .. } => burst,
        Algorithm::FixedWindow => limit.limit.saturating_mul(2),
        Algorithm::SlidingWindow { .. } | Algorithm::SlidingLog | Algorithm::Concurrency => limit.limit,
    })
}

fn millis(limit: &Limit) -> Option<u128> {
    limit.window_millis.map(|window| u128::from(window.get()))
}
