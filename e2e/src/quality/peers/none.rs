//! No policy: everything passes.

use std::time::Duration;

use crate::quality::policy::{Arrival, Kind, Policy, Verdict};

/// For the table.
pub const KIND: Kind = Kind {
    name: "none",
    source: "no admission control",
    axes: &[],
    default: &[],
    build: |_, _| Box::new(Nothing),
};

#[derive(Debug)]
struct Nothing;

impl Policy for Nothing {
    fn arrive(&mut self, _now: Duration, _arrival: &Arrival) -> Verdict {
        Verdict::Admit
    }
}
