//! Additive increase, multiplicative decrease.
//!
//! Source: `AIMDLimit.java` of <https://github.com/Netflix/concurrency-limits>, after Chiu and Jain, "Analysis of the
//! increase and decrease algorithms for congestion avoidance in computer networks", 1989. Fed the time to the first
//! token, which grows with the engine's queue and not with the answer.

use std::time::Duration;

use crate::quality::policy::{Arrival, Axis, End, Finished, Kind, Policy, Verdict};

/// For the table.
pub const KIND: Kind = Kind {
    name: "AIMD",
    source: "Netflix concurrency-limits",
    axes: &[
        Axis { name: "seconds that count as too slow", low: 0.2, high: 8.0 },
        Axis { name: "backoff", low: 0.5, high: 0.98 },
        Axis { name: "least", low: 1.0, high: 20.0 },
        Axis { name: "most", low: 20.0, high: 400.0 },
    ],
    default: &[5.0, 0.9, 20.0, 200.0],
    build: |values, _| {
        Box::new(Aimd {
            timeout: Duration::from_secs_f64(values[0]),
            backoff: values[1],
            least: values[2],
            most: values[3],
            limit: 20.0,
            in_flight: 0,
        })
    },
};

#[derive(Debug)]
struct Aimd {
    timeout: Duration,
    backoff: f64,
    least: f64,
    most: f64,
    limit: f64,
    in_flight: usize,
}

impl Aimd {
    fn sample(&mut self, latency: Duration, dropped: bool) {
        if dropped || latency > self.timeout {
            self.limit *= self.backoff;
        } else if self.in_flight as f64 * 2.0 >= self.limit {
            self.limit += 1.0;
        }
        self.limit = self.limit.clamp(self.least, self.most);
    }
}

impl Policy for Aimd {
    fn arrive(&mut self, _now: Duration, _arrival: &Arrival) -> Verdict {
        if self.in_flight as f64 >= self.limit.floor() {
            return Verdict::Refuse { retry_after: None };
        }
        self.in_flight += 1;
        Verdict::Admit
    }

    fn first_token(&mut self, _now: Duration, _id: u64, elapsed: Duration) {
        self.sample(elapsed, false);
    }

    fn finish(&mut self, _now: Duration, finished: &Finished) {
        if finished.end != End::Whole {
            self.sample(finished.total, true);
        }
        self.in_flight -= 1;
    }

    fn describe(&mut self, _now: Duration) -> String {
        format!("limit {:.0}", self.limit)
    }
}
