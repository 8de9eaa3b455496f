//! Allocations of a million decisions.
#![allow(unsafe_code)] // the allocator's interface

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::figure::Figure;
use crate::traffic::{Clock, FULL, Request, admit, engine, finish, introduce, uniform};

const CALLERS: u32 = 1_000;
const DECISIONS: usize = 1_000_000;

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

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
