//! Envoy's admission control filter.
//!
//! Source: <https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/admission_control_filter>, after
//! "Handling overload" in the Site Reliability Engineering book. A request is refused with the probability
//! ((n − s ÷ threshold) ÷ (n + 1))^(1 ÷ aggression), where n requests of the last 30 s had an outcome and s of them were
//! successful; never with more than 80 %. A first token later than a route's timeout would be a 504 there, so it counts
//! as a failure here.

use std::{collections::VecDeque, time::Duration};

use crate::{
    quality::policy::{Arrival, Axis, End, Finished, Kind, Policy, Verdict},
    random::Random,
};

/// For the table.
pub const KIND: Kind = Kind {
    name: "Envoy admission control",
    source: "Envoy's admission_control filter",
    axes: &[
        Axis { name: "seconds that count as failed", low: 0.5, high: 15.0 },
        Axis { name: "success rate", low: 0.5, high: 0.99 },
        Axis { name: "aggression", low: 0.5, high: 4.0 },
        Axis { name: "sampling window", low: 5.0, high: 60.0 },
    ],
    default: &[15.0, 0.95, 1.0, 30.0],
    build: |values, seed| Box::new(Filter::new(values, seed)),
};

const MOST: f64 = 0.8;

#[derive(Debug)]
struct Filter {
    timeout: Duration,
    threshold: f64,
    aggression: f64,
    window: Duration,
    outcomes: VecDeque<(Duration, bool)>,
    successes: f64,
    random: Random,
}

impl Filter {
    fn new(values: &[f64], seed: u64) -> Self {
        Self {
            timeout: Duration::from_secs_f64(values[0]),
            threshold: values[1],
            aggression: values[2],
            window: Duration::from_secs_f64(values[3]),
            outcomes: VecDeque::new(),
            successes: 0.0,
            random: Random::new(seed),
        }
    }

    fn note(&mut self, now: Duration, success: bool) {
        self.outcomes.push_back((now, success));
        self.successes += f64::from(u8::from(success));
    }

    fn forget(&mut self, now: Duration) {
        while let Some((at, success)) = self.outcomes.front().copied() {
            if now.saturating_sub(at) < self.window {
                return;
            }
            self.outcomes.pop_front();
            self.successes -= f64::from(u8::from(success));
        }
    }

    fn probability(&self) -> f64 {
        let n = self.outcomes.len() as f64;
        let excess = (n - self.successes / self.threshold).max(0.0) / (n + 1.0);
        excess.powf(1.0 / self.aggression).min(MOST)
    }
}

impl Policy for Filter {
    fn arrive(&mut self, now: Duration, _arrival: &Arrival) -> Verdict {
        self.forget(now);
        if self.random.uniform() < self.probability() {
            return Verdict::Refuse { retry_after: None };
        }
        Verdict::Admit
    }

    fn first_token(&mut self, now: Duration, _id: u64, elapsed: Duration) {
        self.note(now, elapsed <= self.timeout);
    }

    fn finish(&mut self, now: Duration, finished: &Finished) {
        if finished.end != End::Whole && finished.first_token.is_none() {
            self.note(now, false);
        }
    }

    fn describe(&mut self, _now: Duration) -> String {
        format!("refuses {:.0} %", self.probability() * 100.0)
    }
}
