//! The engine's own cap on its queue: a request that finds the queue full is refused at once (`SGLang`'s
//! `--max-queued-requests`, Triton's `max_queue_size`). Only the engine itself knows the queue at every instant.

use std::time::Duration;

use crate::quality::policy::{Arrival, Axis, Kind, Policy, Verdict};

/// For the table.
pub const KIND: Kind = Kind {
    name: "engine's queue cap",
    source: "SGLang --max-queued-requests",
    axes: &[Axis { name: "queued", low: 1.0, high: 128.0 }],
    default: &[16.0],
    build: |values, _| Box::new(Cap { longest: values[0] as usize }),
};

#[derive(Debug)]
struct Cap {
    longest: usize,
}

impl Policy for Cap {
    fn arrive(&mut self, _now: Duration, arrival: &Arrival) -> Verdict {
        if arrival.engine_waiting >= self.longest {
            return Verdict::Refuse { retry_after: None };
        }
        Verdict::Admit
    }
}
