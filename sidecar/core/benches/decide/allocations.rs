//! Allocations of a million decisions.

use crate::allocator::allocations;
use crate::figure::Figure;
use crate::traffic::{Clock, FULL, Request, admit, engine, finish, introduce, uniform};

const CALLERS: u32 = 1_000;
const DECISIONS: usize = 1_000_000;

pub(crate) fn run() -> Vec<Figure> {
    let engine = engine(FULL);
    let mut clock = Clock::new();
    introduce(&engine, &mut clock, CALLERS);
    let callers = uniform(CALLERS, DECISIONS);
    let before = allocations();
    for caller in callers {
        let now = clock.next();
        finish(&engine, now, admit(&engine, now, &Request::of(caller)));
    }
    let allocated = allocations() - before;
    vec![Figure::new("allocations of 10^6 full decisions", allocated as f64, "allocations").at_most(0.0)]
}
