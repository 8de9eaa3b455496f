//! What a request in flight holds of the limits.

use std::cell::RefCell;

use super::key::Key;
use super::table::Receipt;

/// Lists that a thread keeps for its next requests.
const KEPT: usize = 1024;

std::thread_local! {
    static FREE: RefCell<Vec<Vec<Hold>>> = const { RefCell::new(Vec::new()) };
}

/// What is to be given back or settled when the request ends. Empty under limits that count each request as one.
#[derive(Debug, Default)]
pub(crate) struct Held(Vec<Hold>);

/// What it holds of one rule.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hold {
    /// Number of the rule.
    pub(crate) rule: usize,
    pub(crate) key: Key,
    pub(crate) receipt: Receipt,
    pub(crate) cost: u32,
}

impl Held {
    /// Adds one. A thread allocates for this only until it has as many lists as it has had requests in flight.
    pub(crate) fn push(&mut self, hold: Hold) {
        if self.0.capacity() == 0 {
            self.0 = FREE.with_borrow_mut(Vec::pop).unwrap_or_default();
        }
        self.0.push(hold);
    }

    /// What there is, as long as it is held.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Hold> {
        self.0.iter()
    }

    /// All of it, once.
    pub(crate) fn release(mut self, mut each: impl FnMut(Hold)) {
        self.0.drain(..).for_each(&mut each);
        if self.0.capacity() > 0 {
            FREE.with_borrow_mut(|free| {
                if free.len() < KEPT {
                    free.push(self.0);
                }
            });
        }
    }
}
