//! Rules of the limit of requests in flight and of the queue.

use super::Place;
use crate::{Concurrency, ConcurrencyAlgorithm, Queue};

/// More are beyond any engine.
const MOST_IN_FLIGHT: u32 = 100_000;

pub(super) fn check(concurrency: &Concurrency, at: &mut Place<'_>) {
    at.within("max", concurrency.max, 2..=MOST_IN_FLIGHT);
    at.within("min", concurrency.min, 2..=concurrency.max.clamp(2, MOST_IN_FLIGHT));
    let bounds = concurrency.min..=concurrency.max;
    if bounds.is_empty() {
        return;
    }
    at.within("initial", concurrency.initial, bounds);
    if let ConcurrencyAlgorithm::Gradient2 { headroom: Some(headroom), .. } = concurrency.algorithm {
        at.field("algorithm").field("gradient2").within("headroom", headroom, 1..=10_000);
    }
}

pub(super) fn check_queue(queue: &Queue, at: &mut Place<'_>) {
    at.within("maxLength", queue.max_length, 1..=100_000);
    if queue.tenant.len() > 8 {
        at.field("tenant").refuse(format!("{} parts are too many: write at most 8", queue.tenant.len()));
    }
}
