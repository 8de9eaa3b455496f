//! A fixed number of requests per second: a token bucket that tells the refused when the next token comes, as
//! gateways do (Kong, `APISIX`, Envoy's local rate limit).

use std::time::Duration;

use crate::quality::policy::{Arrival, Axis, Kind, Policy, Verdict};

/// For the table.
pub const KIND: Kind = Kind {
    name: "static rate",
    source: "token bucket",
    axes: &[Axis { name: "requests/s", low: 0.5, high: 8.0 }, Axis { name: "burst", low: 1.0, high: 64.0 }],
    default: &[3.0, 5.0],
    build: |values, _| {
        Box::new(Bucket { rate: values[0], burst: values[1], tokens: values[1], at: Duration::ZERO })
    },
};

#[derive(Debug)]
struct Bucket {
    rate: f64,
    burst: f64,
    tokens: f64,
    at: Duration,
}

impl Policy for Bucket {
    fn arrive(&mut self, now: Duration, _arrival: &Arrival) -> Verdict {
        let elapsed = now.saturating_sub(self.at).as_secs_f64();
        self.tokens = (self.tokens + self.rate * elapsed).min(self.burst.max(1.0));
        self.at = now;
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return Verdict::Admit;
        }
        let missing = (1.0 - self.tokens) / self.rate;
        Verdict::Refuse { retry_after: Some(Duration::from_secs_f64(missing)) }
    }
}
