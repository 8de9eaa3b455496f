//! What a request in flight holds of the limits.

use std::cell::RefCell;

use super::key::Key;
use super::table::Receipt;

/// Lists that a thread keeps for its next requests.
const KEPT: usize = 1024;

std::thread_local! {
    #[allow(clippy::vec_box)] // what is spared is the box too
    static FREE: RefCell<Vec<Box<List>>> = const { RefCell::new(Vec::new()) };
}

/// What is to be given back or settled when the request ends. Nothing under limits that count each request as one, and
/// seldom more than one thing, which has its place here.
#[derive(Debug, Default)]
pub(crate) struct Held {
    first: Option<Hold>,
    more: Option<Box<List>>,
}

#[derive(Debug, Default)]
struct List(Vec<Hold>);

/// What it holds of one rule.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hold {
    pub(crate) key: Key,
    pub(crate) receipt: Receipt,
    pub(crate) cost: u32,
    /// Number of the rule.
    pub(crate) rule: u32,
}

impl Held {
    /// Adds one.
    #[inline]
    pub(crate) fn push(&mut self, hold: Hold) {
        if self.first.is_none() {
            self.first = Some(hold);
        } else {
            self.push_more(hold);
        }
    }

    /// Adds one to the list. A thread allocates for this only until it has as many lists as it has had requests in
    /// flight.
    #[inline(never)]
    fn push_more(&mut self, hold: Hold) {
        let free = || FREE.with_borrow_mut(Vec::pop).unwrap_or_default();
        self.more.get_or_insert_with(free).0.push(hold);
    }

    /// What there is, as long as it is held.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Hold> {
        self.first.iter().chain(self.more.iter().flat_map(|list| &list.0))
    }

    /// All of it, once.
    #[inline]
    pub(crate) fn release(self, mut each: impl FnMut(&Hold)) {
        if let Some(first) = &self.first {
            each(first);
        }
        let Some(mut list) = self.more else { return };
        list.0.iter().for_each(each);
        list.0.clear();
        FREE.with_borrow_mut(|free| {
            if free.len() < KEPT {
                free.push(list);
            }
        });
    }
}
