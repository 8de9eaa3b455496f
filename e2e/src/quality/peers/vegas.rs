//! Vegas of Netflix' concurrency-limits.
//!
//! Source: `VegasLimit.java`, <https://github.com/Netflix/concurrency-limits>, after Brakmo and Peterson, "TCP Vegas: end
//! to end congestion avoidance on a global internet", 1995. The queue is estimated from the lowest latency seen; the
//! limit grows while it is short and shrinks while it is long. The lowest latency is forgotten now and then.

use std::time::Duration;

use super::window::{Sample, Window};
use crate::{
    quality::policy::{Arrival, Axis, End, Finished, Kind, Policy, Verdict},
    random::Random,
};

/// For the table.
pub const KIND: Kind = Kind {
    name: "Vegas",
    source: "Netflix concurrency-limits",
    axes: &[
        Axis { name: "most", low: 20.0, high: 1000.0 },
        Axis { name: "alpha", low: 1.0, high: 12.0 },
        Axis { name: "beta over alpha", low: 1.2, high: 4.0 },
    ],
    default: &[1000.0, 3.0, 2.0],
    build: |values, seed| Box::new(Vegas::new(values, seed)),
};

/// The lowest latency is forgotten after this many windows for each unit of the limit.
const PROBE: f64 = 30.0;

#[derive(Debug)]
struct Vegas {
    most: f64,
    alpha: f64,
    beta: f64,
    limit: f64,
    lowest: f64,
    windows: f64,
    jitter: f64,
    window: Window,
    in_flight: usize,
    random: Random,
}

impl Vegas {
    fn new(values: &[f64], seed: u64) -> Self {
        Self {
            most: values[0],
            alpha: values[1],
            beta: values[1] * values[2],
            limit: 20.0,
            lowest: f64::INFINITY,
            windows: 0.0,
            jitter: 1.0,
            window: Window::default(),
            in_flight: 0,
            random: Random::new(seed),
        }
    }

    fn update(&mut self, sample: Sample) {
        self.windows += 1.0;
        if self.windows > self.jitter * PROBE * self.limit || sample.latency < self.lowest {
            if sample.latency >= self.lowest {
                self.windows = 0.0;
                self.jitter = 0.5 + 0.5 * self.random.uniform();
            }
            self.lowest = sample.latency;
            return;
        }
        let step = self.limit.log10().max(1.0);
        let queue = (self.limit * (1.0 - self.lowest / sample.latency)).ceil();
        let new = if sample.dropped {
            self.limit - step
        } else if (sample.in_flight as f64) * 2.0 < self.limit {
            return;
        } else if queue <= step {
            self.limit + self.beta * step
        } else if queue < self.alpha * step {
            self.limit + step
        } else if queue > self.beta * step {
            self.limit - step
        } else {
            return;
        };
        self.limit = new.clamp(1.0, self.most);
    }
}

impl Policy for Vegas {
    fn arrive(&mut self, _now: Duration, _arrival: &Arrival) -> Verdict {
        if self.in_flight as f64 >= self.limit.floor() {
            return Verdict::Refuse { retry_after: None };
        }
        self.in_flight += 1;
        Verdict::Admit
    }

    fn finish(&mut self, now: Duration, finished: &Finished) {
        let failed = finished.end != End::Whole;
        if let Some(sample) = self.window.add(now, finished.total, self.in_flight, failed) {
            self.update(sample);
        }
        self.in_flight -= 1;
    }

    fn describe(&mut self, _now: Duration) -> String {
        format!("limit {:.0}", self.limit)
    }
}
