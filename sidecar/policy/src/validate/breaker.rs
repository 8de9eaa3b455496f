//! Rules of the circuit breaker.

use super::Place;
use crate::{Breaker, Trip};

const MOST_CALLS: u32 = 1_000_000;

pub(super) fn check(breaker: &Breaker, at: &mut Place<'_>) {
    check_trip(&breaker.trip, &mut at.field("trip"));
    at.field("halfOpen").within("probes", breaker.half_open.probes, 1..=1000);
}

fn check_trip(trip: &Trip, at: &mut Place<'_>) {
    if *trip == Trip::default() {
        at.refuse("nothing opens this breaker: write consecutiveFailures, errorRatio or slowCallRatio");
    }
    if let Some(failures) = trip.consecutive_failures {
        at.field("consecutiveFailures").within("count", failures.count, 1..=MOST_CALLS);
    }
    if let Some(errors) = trip.error_ratio {
        at.field("errorRatio").within("minimumRequests", errors.minimum_requests, 1..=MOST_CALLS);
    }
    if let Some(slow) = trip.slow_call_ratio {
        at.field("slowCallRatio").within("minimumRequests", slow.minimum_requests, 1..=MOST_CALLS);
    }
}
