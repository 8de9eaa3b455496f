//! Sentinel's BBR, triggered by engine use instead of the machine's load.
//!
//! Source: `SystemRuleManager.java` of <https://github.com/alibaba/Sentinel>: while the trigger is over its threshold,
//! a request is refused when more are in flight than (highest throughput of a bucket) × (lowest latency of a bucket),
//! which is Little's law for a system without a queue. The trigger here is the use of the KV cache, or any queue.

use std::{collections::VecDeque, time::Duration};

use tidegate_cli::engine_model::Reading;

use crate::quality::policy::{Arrival, Axis, End, Finished, Kind, Policy, Verdict};

/// For the table.
pub const KIND: Kind = Kind {
    name: "Sentinel BBR",
    source: "Sentinel's system rule",
    axes: &[
        Axis { name: "KV use that triggers", low: 0.3, high: 0.98 },
        Axis { name: "window", low: 1.0, high: 30.0 },
        Axis { name: "buckets", low: 2.0, high: 20.0 },
    ],
    default: &[0.8, 1.0, 2.0],
    build: |values, _| Box::new(Bbr::new(values)),
};

#[derive(Debug)]
struct Bbr {
    trigger: f64,
    bucket: Duration,
    most_buckets: usize,
    /// Number of the bucket, answers, sum of latencies.
    buckets: VecDeque<(u64, f64, f64)>,
    over: bool,
    in_flight: usize,
}

impl Bbr {
    fn new(values: &[f64]) -> Self {
        let count = values[2].round().max(2.0);
        Self {
            trigger: values[0],
            bucket: Duration::from_secs_f64(values[1] / count),
            most_buckets: count as usize,
            buckets: VecDeque::new(),
            over: false,
            in_flight: 0,
        }
    }

    fn number(&self, now: Duration) -> u64 {
        (now.as_nanos() / self.bucket.as_nanos().max(1)) as u64
    }

    fn capacity(&mut self, now: Duration) -> f64 {
        let number = self.number(now);
        while self.buckets.front().is_some_and(|(at, ..)| at + self.most_buckets as u64 <= number) {
            self.buckets.pop_front();
        }
        let answers = self.buckets.iter().map(|(_, answers, _)| *answers).fold(0.0, f64::max);
        let latencies = self.buckets.iter().map(|(_, answers, sum)| sum / answers);
        let lowest = latencies.fold(f64::INFINITY, f64::min);
        if lowest.is_finite() { answers / self.bucket.as_secs_f64() * lowest } else { 0.0 }
    }
}

impl Policy for Bbr {
    fn arrive(&mut self, now: Duration, _arrival: &Arrival) -> Verdict {
        if self.over && self.in_flight > 1 && self.in_flight as f64 > self.capacity(now) {
            return Verdict::Refuse { retry_after: None };
        }
        self.in_flight += 1;
        Verdict::Admit
    }

    fn finish(&mut self, now: Duration, finished: &Finished) {
        self.in_flight -= 1;
        if finished.end != End::Whole {
            return;
        }
        let (number, latency) = (self.number(now), finished.total.as_secs_f64());
        match self.buckets.back_mut() {
            Some((at, answers, sum)) if *at == number => {
                *answers += 1.0;
                *sum += latency;
            }
            _ => self.buckets.push_back((number, 1.0, latency)),
        }
    }

    fn observe(&mut self, _now: Duration, reading: &Reading) {
        self.over = reading.kv_usage > self.trigger || reading.waiting > 0;
    }

    fn describe(&mut self, now: Duration) -> String {
        let capacity = self.capacity(now);
        format!("triggered {}, capacity {capacity:.0}", self.over)
    }
}
