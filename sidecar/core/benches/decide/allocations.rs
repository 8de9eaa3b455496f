//! Allocations of a million decisions.

use std::sync::atomic::Ordering;

use crate::allocator::ALLOCATIONS;
use crate::figure::Figure;
use crate::traffic::{Clock, FULL, Request, admit, engine, finish, introduce, uniform};

const CALLERS: u32 = 1_000;
const DECISIONS: usize = 1_000_000;

pub(crate) fn run() -> Vec<Figure> {
    let engine = engine(FULL);
    let mut clock = Clock::new();
    introduce(&engine, &mut clock, CALLERS);
    let callers = uniform(CALLERS, DECISIONS);
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    for caller in callers {
        let now = clock.next();
        finish(&engine, now, admit(&engine, now, &Request::of(caller)));
    }
    let allocations = ALLOCATIONS.load(Ordering::Relaxed) - before;
    vec![Figure::new("allocations of 10^6 full decisions", allocations as f64, "allocations").at_most(0.0)]
}
