//! Rules of the circuit breaker.

use super::Place;
use crate::{Breaker, Destination, Fallback, Hook, Millis, Per, Stage, StageBreaker, Timeouts, Trip};

const MOST_CALLS: u32 = 1_000_000;
/// Calls of a window of calls: their outcomes are looked through whenever one of them is bad.
const MOST_WINDOW_CALLS: u32 = 1024;
const MOST_BREAKERS: u32 = 256;
const MOST_PROBES: u32 = 1000;
const MOST_KEY_PARTS: usize = 8;
const MOST_STATUSES: usize = 64;
const MOST_FALLBACKS: usize = 8;
const MOST_HOOKS: usize = 8;
const NEVER_EXCEEDED: &str = "1 is never exceeded: write a share below 1, such as 0.95 for P95";
const LONGEST_BODY: usize = 16 * 1024;

pub(super) fn check(breaker: &Breaker, at: &mut Place<'_>) {
    if breaker.trip == Trip::default() && breaker.stages.is_empty() {
        at.field("trip").refuse(
            "nothing opens this breaker: write consecutiveFailures, errorRatio, slowCallRatio, latency or inFlight",
        );
    }
    check_trip(&breaker.trip, &mut at.field("trip"));
    check_statuses(breaker, at);
    if let Some(per) = &breaker.per {
        check_per(per, &mut at.field("per"));
    }
    let stages = breaker.stages.len();
    if stages > Stage::MOST {
        at.field("stages").refuse(format!("{stages} are too many: write at most {}", Stage::MOST));
    }
    for (i, stage) in breaker.stages.iter().enumerate() {
        check_stage(stage, &breaker.stages[..i], &mut at.field("stages").item(i));
    }
    check_fallbacks(breaker, at);
    check_hooks(&breaker.hooks, &mut at.field("hooks"));
    check_timeouts(&breaker.timeouts, &mut at.field("timeouts"));
    check_slow(breaker, &mut at.field("trip"));
    check_probes(breaker, &mut at.field("halfOpen"));
}

fn check_probes(breaker: &Breaker, at: &mut Place<'_>) {
    let probes = breaker.half_open.probes;
    at.within("probes", probes, 1..=MOST_PROBES);
    let in_flight = breaker.trip.in_flight.map(|in_flight| in_flight.max);
    if let Some(max) = in_flight.filter(|max| (1..probes).contains(max) && probes <= MOST_PROBES) {
        at.field("probes").refuse(format!(
            "{probes} together would open it again, since inFlight has a max of {max}: write at most {max}, or raise that"
        ));
    }
}

fn check_hooks(hooks: &[Hook], at: &mut Place<'_>) {
    if hooks.len() > MOST_HOOKS {
        at.refuse(format!("{} are too many: write at most {MOST_HOOKS}", hooks.len()));
    }
    for (i, hook) in hooks.iter().enumerate() {
        let mut at = at.item(i);
        let length = hook.name.chars().count();
        if !(1..=63).contains(&length) {
            at.field("name").refuse(format!("{:?} is no name: write 1 to 63 characters", hook.name));
        }
        if hooks[..i].iter().any(|other| other.name == hook.name) {
            at.field("name").refuse(format!("{:?} is there twice: write each name once", hook.name));
        }
        if hook.on.is_empty() {
            at.field("on").refuse("never: write Opened, HalfOpened, Closed or several of them");
        }
    }
}

fn check_fallbacks(breaker: &Breaker, at: &mut Place<'_>) {
    if let (Some(_), Some(_)) = (&breaker.fallback, &breaker.fallbacks) {
        at.field("fallback").refuse("beside fallbacks: write one of them");
    }
    let Some(fallbacks) = &breaker.fallbacks else { return };
    let mut at = at.field("fallbacks");
    if fallbacks.on.is_empty() {
        at.field("on").refuse("never: write Open, ConnectFailure, Timeout, Failure or several of them");
    }
    let number = fallbacks.to.len();
    if !(1..=MOST_FALLBACKS).contains(&number) {
        at.field("to").refuse(format!("{number} are out of range: write 1 to {MOST_FALLBACKS}"));
    }
    let caches = fallbacks.to.iter().filter(|fallback| matches!(fallback, Fallback::Cache(_))).count();
    if caches > 1 {
        at.field("to").refuse("there are several caches: write one");
    }
    for (i, fallback) in fallbacks.to.iter().enumerate() {
        check_fallback(fallback, &mut at.field("to").item(i));
    }
}

fn check_fallback(fallback: &Fallback, at: &mut Place<'_>) {
    match fallback {
        Fallback::Path(_) => {}
        Fallback::Send(destination) => check_destination(destination, &mut at.field("send")),
        Fallback::Static(answer) => {
            let mut at = at.field("static");
            at.within("status", answer.status, 200..=599);
            let plain = answer.content_type.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
            if answer.content_type.len() > 128 || !answer.content_type.contains('/') || !plain {
                at.field("contentType").refuse(format!(
                    "{:?} is not a media type: write one such as \"application/json\"",
                    answer.content_type
                ));
            }
            if answer.body.len() > LONGEST_BODY {
                let message =
                    format!("{} bytes are too many: write at most {LONGEST_BODY}", answer.body.len());
                at.field("body").refuse(message);
            }
        }
        Fallback::Cache(cache) => {
            let mut at = at.field("cache");
            at.within("maxEntries", cache.max_entries, 1..=100_000);
            at.within("maxBytes", cache.max_bytes, 64 << 10..=1 << 30);
        }
    }
}

fn check_destination(destination: &Destination, at: &mut Place<'_>) {
    let Destination { url, path, model, in_cluster } = destination;
    if url.is_none() && (model.is_none() || *in_cluster) {
        at.refuse("goes nowhere else: write url, model or both");
    }
    if let (Some(url), Some(_)) = (url, path)
        && url.as_str().splitn(4, '/').count() > 3
    {
        at.field("path").refuse("the url has a path: write one of both");
    }
    if let Some(model) = model {
        let length = model.chars().count();
        if !(1..=256).contains(&length) || model.chars().any(char::is_control) {
            at.field("model")
                .refuse(format!("{model:?} is not the name of a model: write 1 to 256 characters"));
        }
    }
}

/// A limit that another one always comes before says something that does not happen.
fn check_timeouts(timeouts: &Timeouts, at: &mut Place<'_>) {
    let Some(total) = timeouts.total_millis else { return };
    let parts = [
        ("firstByteMillis", timeouts.first_byte_millis),
        ("betweenChunksMillis", timeouts.between_chunks_millis),
    ];
    for (field, part) in parts {
        if let Some(part) = part.filter(|part| *part > total) {
            let message = format!(
                "{} ms are more than the {} ms of totalMillis: write less, or leave one of both out",
                part.get(),
                total.get()
            );
            at.field(field).refuse(message);
        }
    }
}

fn check_trip(trip: &Trip, at: &mut Place<'_>) {
    if let Some(failures) = trip.consecutive_failures {
        at.field("consecutiveFailures").within("count", failures.count, 1..=MOST_CALLS);
    }
    if let Some(t) = trip.error_ratio {
        check_window(t.window_millis, t.window_calls, t.minimum_requests, &mut at.field("errorRatio"));
    }
    if let Some(t) = trip.slow_call_ratio {
        check_window(t.window_millis, t.window_calls, t.minimum_requests, &mut at.field("slowCallRatio"));
    }
    if let Some(t) = trip.latency {
        let mut at = at.field("latency");
        check_window(t.window_millis, t.window_calls, t.minimum_requests, &mut at);
        if t.percentile.get() >= 1.0 {
            at.field("percentile").refuse(NEVER_EXCEEDED);
        }
    }
    if let Some(in_flight) = trip.in_flight {
        at.field("inFlight").within("max", in_flight.max, 1..=MOST_CALLS);
    }
}

/// What is waited for no longer than a timeout is never slower than that.
fn check_slow(breaker: &Breaker, at: &mut Place<'_>) {
    let Timeouts { first_byte_millis, total_millis, .. } = breaker.timeouts;
    let first = first_byte_millis.or(breaker.timeout_millis);
    let Some(longest) = first.into_iter().chain(total_millis).min() else { return };
    let slow = [
        ("slowCallRatio", "slowerThanMillis", breaker.trip.slow_call_ratio.map(|t| t.slower_than_millis)),
        ("latency", "overMillis", breaker.trip.latency.map(|t| t.over_millis)),
    ];
    for (condition, field, than) in slow {
        if let Some(than) = than.filter(|than| *than > longest) {
            at.field(condition).field(field).refuse(format!(
                "{} ms are never reached, since an answer is not waited for longer than {} ms: write at most that, or \
                 raise the timeout",
                than.get(),
                longest.get()
            ));
        }
    }
}

fn check_window(time: Option<Millis>, calls: Option<u32>, minimum: u32, at: &mut Place<'_>) {
    match (time, calls) {
        (None, None) => at.refuse("no window: write windowMillis or windowCalls"),
        (Some(_), Some(calls)) => {
            at.field("windowCalls").refuse(format!("{calls} beside windowMillis: write one of them"));
        }
        _ => {}
    }
    if let Some(calls) = calls {
        at.within("windowCalls", calls, 1..=MOST_WINDOW_CALLS);
    }
    match calls {
        Some(calls) if minimum > calls => at.field("minimumRequests").refuse(format!(
            "{minimum} are more than the window's {calls} calls and never come together: write 1 to {calls}"
        )),
        _ => at.within("minimumRequests", minimum, 1..=MOST_CALLS),
    }
}

fn check_statuses(breaker: &Breaker, at: &mut Place<'_>) {
    for (field, statuses) in [
        ("failureStatuses", &breaker.failure_statuses),
        ("backpressureStatuses", &breaker.backpressure_statuses),
    ] {
        if statuses.len() > MOST_STATUSES {
            let message = format!("{} statuses are too many: write at most {MOST_STATUSES}", statuses.len());
            at.field(field).refuse(message);
        }
    }
    for (i, status) in breaker.failure_statuses.iter().enumerate() {
        if breaker.backpressure_statuses.contains(status) {
            let message = format!(
                "{:?} is in backpressureStatuses too: write it in one of both",
                String::from(*status)
            );
            at.field("failureStatuses").item(i).refuse(message);
        }
    }
}

fn check_per(per: &Per, at: &mut Place<'_>) {
    let parts = per.key.len();
    if !(1..=MOST_KEY_PARTS).contains(&parts) {
        at.field("key").refuse(format!("{parts} parts are out of range: write 1 to {MOST_KEY_PARTS}"));
    }
    at.within("max", per.max, 1..=MOST_BREAKERS);
}

fn check_stage(stage: &StageBreaker, before: &[StageBreaker], at: &mut Place<'_>) {
    if before.iter().any(|other| other.stage == stage.stage) {
        let message = format!("{:?} has a breaker already: write each stage once", stage.stage.as_str());
        at.field("stage").refuse(message);
    }
    if stage.over_millis.is_none() && stage.out_of_memory.is_none() {
        at.refuse("nothing opens this breaker: write overMillis, outOfMemory or both");
    }
    if stage.percentile.get() >= 1.0 {
        at.field("percentile").refuse(NEVER_EXCEEDED);
    }
    at.within("minimumRequests", stage.minimum_requests, 1..=MOST_CALLS);
    if let Some(out_of_memory) = stage.out_of_memory {
        at.field("outOfMemory").within("count", out_of_memory.count, 1..=MOST_CALLS);
    }
}
