//! The parts of a `CircuitBreakerPolicy`.

use tidegate_crds::{self as crd, CircuitBreakerPolicySpec};
use tidegate_policy::{
    Breaker, ConsecutiveFailures, ErrorRatio, Fallback, HalfOpen, Millis, RelativePath, SlowCallRatio, Trip,
};

use super::Parts;
use super::problems::{Problems, optional};
use super::scalar::{count, count32, millis, mode, ratio};

const MOST_CALLS: i32 = 1_000_000;
const LONGEST_TIMEOUT_MS: i64 = 3_600_000;

pub(super) fn parts(policy: &str, spec: &CircuitBreakerPolicySpec, problems: &mut Problems) -> Option<Parts> {
    let trip = trip(spec, problems);
    let open = problems.keep("spec.open.duration", millis(&spec.open.duration));
    let probes = problems.keep("spec.halfOpen.probes", count32(spec.half_open.probes, 1, 1000));
    let timeout =
        optional(spec.timeout_ms, |timeout| problems.keep("spec.timeoutMs", timeout_millis(timeout)));
    let fallback = optional(spec.fallback_endpoint.as_ref(), |path| {
        let path = RelativePath::new(path).map_err(|error| error.to_string());
        problems.keep("spec.fallbackEndpoint", path).map(Fallback::Path)
    });
    let breaker = Breaker {
        policy: policy.to_owned(),
        mode: mode(spec.mode),
        trip: trip?,
        open_millis: open?,
        half_open: HalfOpen { probes: probes? },
        timeout_millis: timeout?,
        fallback: fallback?,
    };
    Some(Parts { breaker: Some(breaker), ..Parts::default() })
}

fn timeout_millis(timeout: i64) -> Result<Millis, String> {
    Millis::new(count(timeout, 1, LONGEST_TIMEOUT_MS)?).map_err(|error| error.to_string())
}

fn trip(spec: &CircuitBreakerPolicySpec, problems: &mut Problems) -> Option<Trip> {
    match &spec.trip {
        None if spec.failure_threshold.is_none() => {
            problems.add("spec", CircuitBreakerPolicySpec::NOTHING);
        }
        Some(trip) if trip.error_ratio.is_none() && trip.slow_call_ratio.is_none() => {
            problems.add("spec.trip", crd::Trip::NOTHING);
        }
        None | Some(_) => {}
    }
    let failures = optional(spec.failure_threshold, |threshold| {
        let threshold = problems.keep("spec.failureThreshold", count32(threshold, 1, MOST_CALLS));
        threshold.map(|count| ConsecutiveFailures { count })
    });
    let ratios = spec.trip.as_ref();
    let errors = ratios.and_then(|trip| trip.error_ratio.as_ref());
    let errors = optional(errors, |spec| error_ratio(spec, problems));
    let slow = ratios.and_then(|trip| trip.slow_call_ratio.as_ref());
    let slow = optional(slow, |spec| slow_call_ratio(spec, problems));
    Some(Trip { consecutive_failures: failures?, error_ratio: errors?, slow_call_ratio: slow? })
}

fn error_ratio(spec: &crd::ErrorRatio, problems: &mut Problems) -> Option<ErrorRatio> {
    let threshold = problems.keep("spec.trip.errorRatio.threshold", ratio(&spec.threshold));
    let window = problems.keep("spec.trip.errorRatio.window", millis(&spec.window));
    let minimum = count32(spec.minimum_requests, 1, MOST_CALLS);
    let minimum = problems.keep("spec.trip.errorRatio.minimumRequests", minimum);
    Some(ErrorRatio { threshold: threshold?, window_millis: window?, minimum_requests: minimum? })
}

fn slow_call_ratio(spec: &crd::SlowCallRatio, problems: &mut Problems) -> Option<SlowCallRatio> {
    let threshold = problems.keep("spec.trip.slowCallRatio.threshold", ratio(&spec.threshold));
    let slower_than = problems.keep("spec.trip.slowCallRatio.slowerThan", millis(&spec.slower_than));
    let window = problems.keep("spec.trip.slowCallRatio.window", millis(&spec.window));
    let minimum = count32(spec.minimum_requests, 1, MOST_CALLS);
    let minimum = problems.keep("spec.trip.slowCallRatio.minimumRequests", minimum);
    Some(SlowCallRatio {
        threshold: threshold?,
        slower_than_millis: slower_than?,
        window_millis: window?,
        minimum_requests: minimum?,
    })
}
