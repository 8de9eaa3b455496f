//! What trips a breaker.

use std::time::Duration;

use tidegate_policy::{Millis, StageBreaker, StatusMatch, Trip};

use super::window::{Counts, Length};

/// The conditions that count calls in windows.
pub(super) const WINDOWED: usize = 3;

/// The conditions, in the order of their names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    ConsecutiveFailures,
    ErrorRatio,
    SlowCallRatio,
    Latency,
    InFlight,
}

impl Kind {
    pub(super) const ALL: [Self; 5] =
        [Self::ConsecutiveFailures, Self::ErrorRatio, Self::SlowCallRatio, Self::Latency, Self::InFlight];

    /// Name of its rule.
    pub(super) const fn rule(self) -> &'static str {
        match self {
            Self::ConsecutiveFailures => "trip.consecutiveFailures",
            Self::ErrorRatio => "trip.errorRatio",
            Self::SlowCallRatio => "trip.slowCallRatio",
            Self::Latency => "trip.latency",
            Self::InFlight => "trip.inFlight",
        }
    }
}

/// Why a trip happened.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Cut {
    /// Where its rule stands among those of the breaker.
    pub(super) rule: usize,
    pub(super) observed: f64,
    pub(super) limit: f64,
    pub(super) reason: String,
}

/// A condition over the calls of a window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Windowed {
    kind: Kind,
    pub(super) length: Length,
    minimum: u32,
    /// The share of bad calls, or the percentile.
    threshold: f64,
    /// What makes a call bad; None: a failure.
    pub(super) slower_than: Option<Duration>,
}

impl Windowed {
    /// The conditions of a policy that count in windows: errors, slow calls, latency.
    pub(super) fn all(trip: &Trip) -> [Option<Self>; WINDOWED] {
        let errors = trip.error_ratio.map(|t| Self {
            kind: Kind::ErrorRatio,
            length: length(t.window_millis, t.window_calls),
            minimum: t.minimum_requests,
            threshold: t.threshold.get(),
            slower_than: None,
        });
        let slow = trip.slow_call_ratio.map(|t| Self {
            kind: Kind::SlowCallRatio,
            length: length(t.window_millis, t.window_calls),
            minimum: t.minimum_requests,
            threshold: t.threshold.get(),
            slower_than: Some(t.slower_than_millis.duration()),
        });
        let latency = trip.latency.map(|t| Self {
            kind: Kind::Latency,
            length: length(t.window_millis, t.window_calls),
            minimum: t.minimum_requests,
            threshold: t.percentile.get(),
            slower_than: Some(t.over_millis.duration()),
        });
        [errors, slow, latency]
    }

    /// The latency that a stage may have.
    pub(super) fn of_stage(stage: &StageBreaker) -> Option<Self> {
        stage.over_millis.map(|over| Self {
            kind: Kind::Latency,
            length: Length::Time(stage.window_millis.duration()),
            minimum: stage.minimum_requests,
            threshold: stage.percentile.get(),
            slower_than: Some(over.duration()),
        })
    }

    /// The same over any number of calls.
    pub(super) fn at_once(self) -> Self {
        Self { minimum: 1, ..self }
    }

    /// Whether what the windows of both have counted means the same.
    pub(super) fn counts_like(&self, other: &Self) -> bool {
        self.kind == other.kind && self.slower_than == other.slower_than
    }

    /// Whether a breaker with these counts trips, and why.
    pub(super) fn cut(&self, counts: Counts, failures: &[StatusMatch]) -> Option<Cut> {
        if counts.calls < u64::from(self.minimum) {
            return None;
        }
        let observed = counts.ratio()?;
        let limit = match self.kind {
            Kind::Latency => 1.0 - self.threshold,
            _ => self.threshold,
        };
        let reached = match self.kind {
            Kind::Latency => exceeds(counts, self.threshold),
            _ => observed >= limit,
        };
        reached.then(|| Cut {
            rule: self.kind as usize,
            observed,
            limit,
            reason: self.reason(observed, failures),
        })
    }

    fn reason(&self, observed: f64, failures: &[StatusMatch]) -> String {
        let share = format!("{:.0}%", observed * 100.0);
        let window = window(self.length);
        let over = self.slower_than.unwrap_or_default().as_millis();
        match self.kind {
            Kind::SlowCallRatio => format!("slow_calls_{share}_over_{over}ms_in_{window}"),
            Kind::Latency => {
                let percentile = (self.threshold * 1e6).round() / 1e4;
                format!("p{percentile}_over_{over}ms_by_{share}_in_{window}")
            }
            _ if failures == StatusMatch::FAILURES => format!("5xx_rate_{share}_in_{window}"),
            _ => format!("error_rate_{share}_in_{window}"),
        }
    }
}

/// Whether the percentile by nearest rank lies over what makes a call bad: it does when fewer than ⌈p·n⌉ of the n
/// calls are good.
fn exceeds(counts: Counts, percentile: f64) -> bool {
    // A product such as 0.07 × 100 may lie above the whole number that it is.
    let rank = (percentile * counts.calls as f64 - 1e-6).ceil() as u64;
    counts.calls.saturating_sub(counts.bad) < rank
}

fn length(time: Option<Millis>, calls: Option<u32>) -> Length {
    match (time, calls) {
        (Some(time), _) => Length::Time(time.duration()),
        (None, Some(calls)) => Length::Calls(calls),
        // A document without either does not validate.
        (None, None) => Length::Calls(1),
    }
}

fn window(length: Length) -> String {
    match length {
        Length::Calls(calls) => format!("{calls}_calls"),
        Length::Time(time) => seconds(time),
    }
}

/// Whole seconds as `30s`, anything else as `1500ms`.
pub(super) fn seconds(time: Duration) -> String {
    match time.as_millis() {
        millis if millis.is_multiple_of(1000) => format!("{}s", millis / 1000),
        millis => format!("{millis}ms"),
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Oracle: the percentile by nearest rank of the sorted latencies.
        #[test]
        fn a_percentile_is_over_its_ceiling_when_the_sorted_latencies_say_so(
            mut latencies in proptest::collection::vec(0u64..2000, 1..300),
            percent in 1u64..100,
            ceiling in 0u64..2000,
        ) {
            let bad = latencies.iter().filter(|l| **l > ceiling).count() as u64;
            latencies.sort_unstable();
            let calls = latencies.len() as u64;
            let rank = (percent * calls).div_ceil(100).max(1);
            let expected = latencies[rank as usize - 1] > ceiling;
            prop_assert_eq!(exceeds(Counts { calls, bad }, percent as f64 / 100.0), expected);
        }
    }
}
