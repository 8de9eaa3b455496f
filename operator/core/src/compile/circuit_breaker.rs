//! The parts of a `CircuitBreakerPolicy`.

use tidegate_crds::{self as crd, CircuitBreakerPolicySpec, Duration};
use tidegate_policy::{
    Breaker, ConsecutiveFailures, ErrorRatio, FallbackPath, HalfOpen, InFlight, KeyPart, LatencyPercentile,
    Millis, Per, RelativePath, SlowCallRatio, StatusMatch, Timeouts, Trip,
};

use super::Parts;
use super::fallback::{fallbacks, hooks};
use super::problems::{Problems, optional};
use super::scalar::{count, count32, header, millis, millis_or_none, mode, percentile_below_all, ratio};
use super::stages::stages;

const MOST_CALLS: i32 = 1_000_000;
const LONGEST_TIMEOUT_MS: i64 = 3_600_000;
const MOST_WINDOW_CALLS: i32 = 1024;
const MOST_GROUPS: i32 = 256;
/// Of the time that a breaker is open: the longer an engine was gone, the more waits for it.
const RAMP_SHARE: u64 = 10;

pub(super) fn parts(policy: &str, spec: &CircuitBreakerPolicySpec, problems: &mut Problems) -> Option<Parts> {
    let trip = trip(spec, problems);
    let open = problems.keep("spec.open.duration", millis(&spec.open.duration));
    let probes = problems.keep("spec.halfOpen.probes", count32(spec.half_open.probes, 1, 1000));
    let timeout =
        optional(spec.timeout_ms, |timeout| problems.keep("spec.timeoutMs", timeout_millis(timeout)));
    let timeouts = timeouts(spec.timeouts.as_ref(), problems);
    let fallback = optional(spec.fallback_endpoint.as_ref(), |path| {
        let path = RelativePath::new(path).map_err(|error| error.to_string());
        problems.keep("spec.fallbackEndpoint", path).map(|path| FallbackPath { path })
    });
    let namespace = policy.split_once('/').map_or("default", |(namespace, _)| namespace);
    let fallbacks = fallbacks(namespace, spec, problems);
    let hooks = hooks(namespace, &spec.hooks, problems);
    let ramp = optional(spec.half_open.ramp.as_ref(), |ramp| {
        problems.keep("spec.halfOpen.ramp", millis_or_none(ramp))
    });
    let failures = statuses("spec.failureStatuses", &spec.failure_statuses, problems);
    let backpressure = statuses("spec.backpressureStatuses", &spec.backpressure_statuses, problems);
    let stages = stages(&spec.stages, problems);
    let per = optional(spec.group_by.as_ref(), |group_by| per(group_by, problems));
    let (open, ramp) = (open?, ramp?);
    let breaker = Breaker {
        policy: policy.to_owned(),
        mode: mode(spec.mode),
        trip: trip?,
        failure_statuses: failures?,
        backpressure_statuses: backpressure?,
        per: per?,
        stages: stages?,
        open_millis: open,
        half_open: HalfOpen { probes: probes?, ramp_millis: ramp.unwrap_or_else(|| tenth(open)) },
        timeout_millis: timeout?,
        timeouts: timeouts?,
        fallback: fallback?,
        fallbacks: fallbacks?,
        hooks: hooks?,
    };
    Some(Parts { breaker: Some(breaker), ..Parts::default() })
}

fn tenth(open: Millis) -> Option<Millis> {
    Millis::new(open.get() / RAMP_SHARE).ok()
}

fn statuses(field: &str, statuses: &[crd::StatusMatch], problems: &mut Problems) -> Option<Vec<StatusMatch>> {
    let parse = |(i, status): (usize, &crd::StatusMatch)| {
        let status = StatusMatch::new(status.as_str()).map_err(|error| error.to_string());
        problems.keep(format!("{field}[{i}]"), status)
    };
    // All of them are looked at before the first mistake ends it.
    let parsed: Vec<Option<StatusMatch>> = statuses.iter().enumerate().map(parse).collect();
    parsed.into_iter().collect()
}

fn per(group_by: &crd::GroupBy, problems: &mut Problems) -> Option<Per> {
    let header = problems.keep("spec.groupBy.header", header(&group_by.header));
    let max = problems.keep("spec.groupBy.max", count32(group_by.max, 1, MOST_GROUPS));
    Some(Per { key: vec![KeyPart::Header(header?)], max: max? })
}

fn timeout_millis(timeout: i64) -> Result<Millis, String> {
    Millis::new(count(timeout, 1, LONGEST_TIMEOUT_MS)?).map_err(|error| error.to_string())
}

fn timeouts(spec: Option<&crd::Timeouts>, problems: &mut Problems) -> Option<Timeouts> {
    let Some(spec) = spec else { return Some(Timeouts::default()) };
    if *spec == (crd::Timeouts { connect: None, first_byte: None, between_chunks: None, total: None }) {
        problems.add("spec.timeouts", crd::Timeouts::NOTHING);
    }
    let mut read = |field: &str, time: Option<&Duration>| {
        optional(time, |time| problems.keep(format!("spec.timeouts.{field}"), millis(time)))
    };
    let connect = read("connect", spec.connect.as_ref());
    let first_byte = read("firstByte", spec.first_byte.as_ref());
    let between_chunks = read("betweenChunks", spec.between_chunks.as_ref());
    let total = read("total", spec.total.as_ref());
    for (field, part) in [("firstByte", first_byte), ("betweenChunks", between_chunks)] {
        if let (Some(Some(part)), Some(Some(total))) = (part, total)
            && part > total
        {
            problems.add(format!("spec.timeouts.{field}"), crd::Timeouts::TOTAL);
        }
    }
    Some(Timeouts {
        connect_millis: connect?,
        first_byte_millis: first_byte?,
        between_chunks_millis: between_chunks?,
        total_millis: total?,
    })
}

fn trip(spec: &CircuitBreakerPolicySpec, problems: &mut Problems) -> Option<Trip> {
    match &spec.trip {
        None if spec.failure_threshold.is_none() && spec.stages.is_empty() => {
            problems.add("spec", CircuitBreakerPolicySpec::NOTHING);
        }
        Some(crd::Trip { error_ratio: None, slow_call_ratio: None, latency: None, in_flight: None }) => {
            problems.add("spec.trip", crd::Trip::NOTHING);
        }
        None | Some(_) => {}
    }
    let failures = optional(spec.failure_threshold, |threshold| {
        let threshold = problems.keep("spec.failureThreshold", count32(threshold, 1, MOST_CALLS));
        threshold.map(|count| ConsecutiveFailures { count })
    });
    let trips = spec.trip.as_ref();
    let errors = trips.and_then(|trip| trip.error_ratio.as_ref());
    let errors = optional(errors, |spec| error_ratio(spec, problems));
    let slow = trips.and_then(|trip| trip.slow_call_ratio.as_ref());
    let slow = optional(slow, |spec| slow_call_ratio(spec, problems));
    let latency = trips.and_then(|trip| trip.latency.as_ref());
    let latency = optional(latency, |spec| latency_percentile(spec, problems));
    let in_flight = trips.and_then(|trip| trip.in_flight.as_ref());
    let in_flight = optional(in_flight, |spec| {
        let max = problems.keep("spec.trip.inFlight.max", count32(spec.max, 1, MOST_CALLS));
        max.map(|max| InFlight { max })
    });
    Some(Trip {
        consecutive_failures: failures?,
        error_ratio: errors?,
        slow_call_ratio: slow?,
        latency: latency?,
        in_flight: in_flight?,
    })
}

fn error_ratio(spec: &crd::ErrorRatio, problems: &mut Problems) -> Option<ErrorRatio> {
    let field = "spec.trip.errorRatio";
    let threshold = problems.keep(format!("{field}.threshold"), ratio(&spec.threshold));
    let window =
        window(field, (spec.window.as_ref(), spec.window_calls, spec.minimum_requests), "30s", problems);
    let (window_millis, window_calls, minimum_requests) = window?;
    Some(ErrorRatio { threshold: threshold?, window_millis, window_calls, minimum_requests })
}

fn slow_call_ratio(spec: &crd::SlowCallRatio, problems: &mut Problems) -> Option<SlowCallRatio> {
    let field = "spec.trip.slowCallRatio";
    let threshold = problems.keep(format!("{field}.threshold"), ratio(&spec.threshold));
    let slower_than = problems.keep(format!("{field}.slowerThan"), millis(&spec.slower_than));
    let window =
        window(field, (spec.window.as_ref(), spec.window_calls, spec.minimum_requests), "10s", problems);
    let (window_millis, window_calls, minimum_requests) = window?;
    Some(SlowCallRatio {
        threshold: threshold?,
        slower_than_millis: slower_than?,
        window_millis,
        window_calls,
        minimum_requests,
    })
}

fn latency_percentile(spec: &crd::LatencyPercentile, problems: &mut Problems) -> Option<LatencyPercentile> {
    let field = "spec.trip.latency";
    let percentile = problems.keep(format!("{field}.percentile"), percentile_below_all(&spec.percentile));
    let over = problems.keep(format!("{field}.over"), millis(&spec.over));
    let window =
        window(field, (spec.window.as_ref(), spec.window_calls, spec.minimum_requests), "30s", problems);
    let (window_millis, window_calls, minimum_requests) = window?;
    Some(LatencyPercentile {
        percentile: percentile?,
        over_millis: over?,
        window_millis,
        window_calls,
        minimum_requests,
    })
}

type Window = (Option<Millis>, Option<u32>, u32);

/// A window as a time or as a number of calls, and its minimum.
fn window(
    field: &str,
    (time, calls, minimum): (Option<&Duration>, Option<i32>, i32),
    default: &str,
    problems: &mut Problems,
) -> Option<Window> {
    if let (Some(_), Some(_)) = (time, calls) {
        problems.add(field, crd::Trip::ONE_WINDOW);
    }
    let default = Duration::from(default);
    let time = time.or(calls.is_none().then_some(&default));
    let time = optional(time, |time| problems.keep(format!("{field}.window"), millis(time)));
    let most = calls.unwrap_or(MOST_CALLS).clamp(1, MOST_CALLS);
    let calls = optional(calls, |calls| {
        problems.keep(format!("{field}.windowCalls"), count32(calls, 1, MOST_WINDOW_CALLS))
    });
    let minimum = problems.keep(format!("{field}.minimumRequests"), count32(minimum, 1, most));
    Some((time?, calls?, minimum?))
}
