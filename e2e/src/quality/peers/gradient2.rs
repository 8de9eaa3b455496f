//! Gradient2 of Netflix' concurrency-limits.
//!
//! Source: `Gradient2Limit.java` and `ExpAvgMeasurement.java`, <https://github.com/Netflix/concurrency-limits>. The limit
//! moves by the ratio of a long exponential average of the latency to the last window's, plus room for a queue.

use std::time::Duration;

use super::window::{Sample, Window};
use crate::quality::policy::{Arrival, Axis, End, Finished, Kind, Policy, Verdict};

const AXES: &[Axis] = &[
    Axis { name: "most", low: 20.0, high: 400.0 },
    Axis { name: "least", low: 1.0, high: 20.0 },
    Axis { name: "tolerance", low: 1.0, high: 3.0 },
    Axis { name: "queue", low: 1.0, high: 16.0 },
];
const DEFAULT: &[f64] = &[200.0, 20.0, 1.5, 4.0];

/// With the time to the first token as its latency.
pub const FED_FIRST_TOKEN: Kind = Kind {
    name: "Gradient2, fed TTFT",
    source: "Netflix concurrency-limits",
    axes: AXES,
    default: DEFAULT,
    build: |values, _| Box::new(Gradient2::new(values, true)),
};

/// With the whole request as its latency, as the library does.
pub const FED_TOTAL: Kind = Kind {
    name: "Gradient2, fed total latency",
    source: "Netflix concurrency-limits",
    axes: AXES,
    default: DEFAULT,
    build: |values, _| Box::new(Gradient2::new(values, false)),
};

const SMOOTHING: f64 = 0.2;
const LONG_WINDOW: f64 = 600.0;
const WARM_UP: f64 = 10.0;

#[derive(Debug)]
struct Gradient2 {
    most: f64,
    least: f64,
    tolerance: f64,
    queue: f64,
    by_first_token: bool,
    limit: f64,
    long: Average,
    window: Window,
    in_flight: usize,
}

/// An exponential average that is a plain mean at first.
#[derive(Debug, Default)]
struct Average {
    count: f64,
    sum: f64,
    value: f64,
}

impl Average {
    fn add(&mut self, sample: f64) -> f64 {
        if self.count < WARM_UP {
            self.count += 1.0;
            self.sum += sample;
            self.value = self.sum / self.count;
        } else {
            let factor = 2.0 / (LONG_WINDOW + 1.0);
            self.value = self.value * (1.0 - factor) + sample * factor;
        }
        self.value
    }
}

impl Gradient2 {
    fn new(values: &[f64], by_first_token: bool) -> Self {
        let [most, least, tolerance, queue] = [values[0], values[1], values[2], values[3]];
        Self {
            most,
            least,
            tolerance,
            queue,
            by_first_token,
            limit: 20.0,
            long: Average::default(),
            window: Window::default(),
            in_flight: 0,
        }
    }

    fn sample(&mut self, now: Duration, latency: Duration, dropped: bool) {
        if let Some(sample) = self.window.add(now, latency, self.in_flight, dropped) {
            self.update(sample);
        }
    }

    fn update(&mut self, sample: Sample) {
        let long = self.long.add(sample.latency);
        // So that the average comes down again after a long overload.
        if long / sample.latency > 2.0 {
            self.long.value *= 0.95;
        }
        // The limit does not grow where nobody uses it.
        if (sample.in_flight as f64) < self.limit / 2.0 {
            return;
        }
        let gradient = (self.tolerance * long / sample.latency).clamp(0.5, 1.0);
        let new = self.limit * gradient + self.queue;
        let new = self.limit * (1.0 - SMOOTHING) + new * SMOOTHING;
        self.limit = new.clamp(self.least, self.most);
    }
}

impl Policy for Gradient2 {
    fn arrive(&mut self, _now: Duration, _arrival: &Arrival) -> Verdict {
        if self.in_flight as f64 >= self.limit.floor() {
            return Verdict::Refuse { retry_after: None };
        }
        self.in_flight += 1;
        Verdict::Admit
    }

    fn first_token(&mut self, now: Duration, _id: u64, elapsed: Duration) {
        if self.by_first_token {
            self.sample(now, elapsed, false);
        }
    }

    fn finish(&mut self, now: Duration, finished: &Finished) {
        let failed = finished.end != End::Whole;
        if !self.by_first_token || finished.first_token.is_none() {
            self.sample(now, finished.total, failed);
        }
        self.in_flight -= 1;
    }

    fn describe(&mut self, _now: Duration) -> String {
        format!("limit {:.0}", self.limit)
    }
}
