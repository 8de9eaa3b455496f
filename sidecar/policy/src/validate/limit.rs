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
    let mut algorithm = at.field("algorithm");
    match limit.algorithm {
        Algorithm::TokenBucket { burst } => {
            algorithm.field("tokenBucket").within("burst", burst, 1..=MOST_REQUESTS);
        }
        Algorithm::SlidingWindow { sub_windows } => {
            algorithm.field("slidingWindow").within("subWindows", sub_windows, 1..=60);
        }
    }
}
