//! A fixed number of requests in flight (nginx `limit_conn`, Envoy `max_requests`, `TGI` `--max-concurrent-requests`),
//! for all together or with a share for each priority in the manner of Netflix' partitioned limiter.

use std::{collections::HashSet, time::Duration};

use crate::quality::{
    policy::{Arrival, Axis, Finished, Kind, Policy, Verdict},
    record::index,
};

/// One limit for all.
pub const KIND: Kind = Kind {
    name: "static concurrency",
    source: "fixed limit of requests in flight",
    axes: &[Axis { name: "in flight", low: 4.0, high: 256.0 }],
    default: &[64.0],
    build: |values, _| Box::new(Limit::new(values[0], [1.0, 1.0, 1.0])),
};

/// Medium and low may only use a part of it.
pub const SHARES: Kind = Kind {
    name: "static concurrency, shares by priority",
    source: "Netflix concurrency-limits, partitioned limiter",
    axes: &[
        Axis { name: "in flight", low: 4.0, high: 256.0 },
        Axis { name: "share of medium", low: 0.3, high: 1.0 },
        Axis { name: "share of low", low: 0.1, high: 0.8 },
    ],
    default: &[64.0, 0.8, 0.5],
    build: |values, _| Box::new(Limit::new(values[0], [1.0, values[1], values[2].min(values[1])])),
};

#[derive(Debug)]
struct Limit {
    most: f64,
    /// Of the limit, by priority: a request passes while fewer than this share of it are in flight.
    shares: [f64; 3],
    in_flight: HashSet<u64>,
}

impl Limit {
    fn new(limit: f64, shares: [f64; 3]) -> Self {
        Self { most: limit, shares, in_flight: HashSet::new() }
    }
}

impl Policy for Limit {
    fn arrive(&mut self, _now: Duration, arrival: &Arrival) -> Verdict {
        let allowed = (self.most * self.shares[index(arrival.class)]).max(1.0) as usize;
        if self.in_flight.len() >= allowed {
            return Verdict::Refuse { retry_after: None };
        }
        self.in_flight.insert(arrival.id);
        Verdict::Admit
    }

    fn finish(&mut self, _now: Duration, finished: &Finished) {
        self.in_flight.remove(&finished.id);
    }
}
