//! Scenarios that the documentation of other circuit breakers publishes, as behaviours of this one: resilience4j
//! (three states; sliding windows by count and by time; slow calls) and Failsafe (thresholds in a row, by
//! count and by time; success thresholds). Each line is a call: its outcome, and the state that follows.

use tidegate_policy::report::BreakerState;
use tidegate_policy::{
    ConsecutiveFailures, ErrorRatio, HalfOpen, Millis, Ratio, SlowCallRatio, StatusMatch, Trip as Trips,
};

use super::*;
use crate::testing::Request;
use Happens::{Backpressure, Failure, Slow, Success, Wait};

#[derive(Debug, Clone, Copy)]
enum Happens {
    Success,
    Failure,
    /// A success after two seconds.
    Slow,
    Backpressure,
    /// Seconds pass.
    Wait(u64),
}

struct Scenario {
    name: &'static str,
    trip: Trips,
    probes: u32,
    /// What happens, how often, and the state afterwards.
    steps: &'static [(Happens, u32, BreakerState)],
}

const CLOSED: BreakerState = BreakerState::Closed;
const OPEN: BreakerState = BreakerState::Open;
const HALF_OPEN: BreakerState = BreakerState::HalfOpen;

fn by_calls(threshold: f64, calls: u32, minimum: u32) -> Trips {
    let threshold = Ratio::new(threshold).unwrap();
    let ratio =
        ErrorRatio { threshold, window_millis: None, window_calls: Some(calls), minimum_requests: minimum };
    Trips { error_ratio: Some(ratio), ..Trips::default() }
}

fn by_time(threshold: f64, seconds: u64, minimum: u32) -> Trips {
    let threshold = Ratio::new(threshold).unwrap();
    let window_millis = Some(Millis::new(seconds * 1000).unwrap());
    let ratio = ErrorRatio { threshold, window_millis, window_calls: None, minimum_requests: minimum };
    Trips { error_ratio: Some(ratio), ..Trips::default() }
}

fn slow(threshold: f64, calls: u32) -> Trips {
    let ratio = SlowCallRatio {
        threshold: Ratio::new(threshold).unwrap(),
        slower_than_millis: Millis::new(1000).unwrap(),
        window_millis: None,
        window_calls: Some(calls),
        minimum_requests: calls,
    };
    Trips { slow_call_ratio: Some(ratio), ..Trips::default() }
}

fn in_a_row(count: u32) -> Trips {
    Trips { consecutive_failures: Some(ConsecutiveFailures { count }), ..Trips::default() }
}

fn scenario(
    name: &'static str,
    trip: Trips,
    probes: u32,
    steps: &'static [(Happens, u32, BreakerState)],
) -> Scenario {
    Scenario { name, trip, probes, steps }
}

fn of_windows() -> Vec<Scenario> {
    vec![
        scenario(
            "resilience4j: no verdict before the minimum of calls",
            by_calls(0.5, 10, 10),
            1,
            &[(Failure, 9, CLOSED), (Success, 1, OPEN)],
        ),
        scenario(
            "resilience4j: the failure rate equals the threshold",
            by_calls(0.5, 10, 10),
            1,
            &[(Success, 5, CLOSED), (Failure, 4, CLOSED), (Failure, 1, OPEN)],
        ),
        scenario(
            "resilience4j: the oldest call leaves a window of calls",
            by_calls(0.5, 4, 4),
            1,
            &[(Failure, 1, CLOSED), (Success, 3, CLOSED), (Failure, 1, CLOSED), (Failure, 1, OPEN)],
        ),
        scenario(
            "resilience4j: a window of time forgets",
            by_time(0.5, 10, 4),
            1,
            &[
                (Failure, 3, CLOSED),
                (Wait(11), 1, CLOSED),
                (Success, 3, CLOSED),
                (Failure, 2, CLOSED),
                (Failure, 1, OPEN),
            ],
        ),
        scenario(
            "resilience4j: slow calls open it though they succeed",
            slow(0.5, 4),
            1,
            &[(Success, 2, CLOSED), (Slow, 1, CLOSED), (Slow, 1, OPEN)],
        ),
    ]
}

fn of_states() -> Vec<Scenario> {
    vec![
        scenario(
            "resilience4j: it waits, half-opens for as many as permitted, and closes",
            by_calls(0.5, 2, 2),
            3,
            &[
                (Failure, 2, OPEN),
                (Wait(59), 1, OPEN),
                (Wait(1), 1, OPEN),
                (Success, 2, HALF_OPEN),
                (Success, 1, CLOSED),
            ],
        ),
        scenario(
            "resilience4j: ignored outcomes are neither success nor failure",
            by_calls(0.5, 2, 2),
            1,
            &[(Failure, 1, CLOSED), (Backpressure, 50, CLOSED), (Failure, 1, OPEN)],
        ),
        scenario(
            "resilience4j: after it has closed the window is empty",
            by_calls(0.5, 2, 2),
            1,
            &[
                (Failure, 2, OPEN),
                (Wait(60), 1, OPEN),
                (Success, 1, CLOSED),
                (Failure, 1, CLOSED),
                (Failure, 1, OPEN),
            ],
        ),
    ]
}

fn of_failsafe() -> Vec<Scenario> {
    vec![
        scenario(
            "Failsafe: failures in a row",
            in_a_row(3),
            1,
            &[(Failure, 2, CLOSED), (Success, 1, CLOSED), (Failure, 2, CLOSED), (Failure, 1, OPEN)],
        ),
        scenario(
            "Failsafe: three of five",
            by_calls(0.6, 5, 5),
            1,
            &[(Failure, 2, CLOSED), (Success, 3, CLOSED), (Failure, 2, CLOSED), (Failure, 1, OPEN)],
        ),
        scenario(
            "Failsafe: one failure in the half-open state opens it again",
            in_a_row(1),
            2,
            &[
                (Failure, 1, OPEN),
                (Wait(60), 1, OPEN),
                (Success, 1, HALF_OPEN),
                (Failure, 1, OPEN),
                (Wait(59), 1, OPEN),
                (Wait(1), 1, OPEN),
                (Success, 2, CLOSED),
            ],
        ),
    ]
}

fn breaker(scenario: &Scenario) -> Breaker {
    let policy = Policy {
        policy: "a/b".to_owned(),
        mode: Mode::Enforce,
        trip: scenario.trip,
        failure_statuses: StatusMatch::FAILURES.to_vec(),
        backpressure_statuses: StatusMatch::BACKPRESSURE.to_vec(),
        per: None,
        stages: Vec::new(),
        open_millis: Millis::new(60_000).unwrap(),
        half_open: HalfOpen { probes: scenario.probes, ramp_millis: None },
        timeout_millis: None,
        timeouts: tidegate_policy::Timeouts::default(),
        fallback: None,
        fallbacks: None,
        hooks: Vec::new(),
    };
    Breaker::new(&policy, 7)
}

fn call(breaker: &Breaker, now: Tick, status: u16, took: Duration) {
    let facts = Request::from("10.0.0.1");
    let admitted = breaker.admit(now, PriorityClass::Medium, &facts.facts(), &Spread::new(1));
    let mut call = admitted.unwrap_or_else(|refusal| panic!("{refusal:?}"));
    breaker.responded(now, &mut call, HeadOutcome::Status(status), took);
    breaker.complete(now, call, FirstByte::After(took));
}

#[test]
fn published_scenarios_of_other_breakers_end_in_the_same_states() {
    for scenario in [of_windows(), of_states(), of_failsafe()].into_iter().flatten() {
        let breaker = breaker(&scenario);
        let mut now = Tick::from_nanos(1_000_000_000);
        for (n, (happens, times, state)) in scenario.steps.iter().enumerate() {
            for _ in 0..*times {
                match happens {
                    Success => call(&breaker, now, 200, Duration::from_millis(1)),
                    Slow => call(&breaker, now, 200, Duration::from_secs(2)),
                    Failure => call(&breaker, now, 500, Duration::from_millis(1)),
                    Backpressure => call(&breaker, now, 503, Duration::from_millis(1)),
                    Wait(seconds) => now = now + Duration::from_secs(*seconds),
                }
            }
            assert_eq!(breaker.status(now).state, *state, "{}: step {n}", scenario.name);
        }
    }
}
