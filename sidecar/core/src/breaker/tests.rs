use tidegate_policy::{ConsecutiveFailures, HalfOpen, Millis, Ratio, Trip as Trips};

use super::*;

fn second(n: u64) -> Tick {
    Tick::from_nanos(n * 1_000_000_000)
}

fn millis(n: u64) -> Millis {
    Millis::new(n).unwrap()
}

fn policy(trip: Trips) -> Policy {
    Policy {
        policy: "inference/payment".to_owned(),
        mode: Mode::Enforce,
        trip,
        open_millis: millis(60_000),
        half_open: HalfOpen { probes: 1 },
        timeout_millis: Some(millis(3000)),
        fallback: None,
    }
}

fn errors() -> Trips {
    let threshold = Ratio::new(0.5).unwrap();
    let error_ratio = ErrorRatio { threshold, window_millis: millis(30_000), minimum_requests: 20 };
    Trips { error_ratio: Some(error_ratio), ..Trips::default() }
}

fn slow() -> Trips {
    let slow_call_ratio = SlowCallRatio {
        threshold: Ratio::new(0.3).unwrap(),
        slower_than_millis: millis(1000),
        window_millis: millis(10_000),
        minimum_requests: 10,
    };
    Trips { slow_call_ratio: Some(slow_call_ratio), ..Trips::default() }
}

fn in_a_row(count: u32) -> Trips {
    Trips { consecutive_failures: Some(ConsecutiveFailures { count }), ..Trips::default() }
}

fn call(breaker: &Breaker, now: Tick, outcome: HeadOutcome, took: u64) {
    let permit = breaker.admit(now, PriorityClass::Medium, &Spread::new(1)).unwrap();
    breaker.record(now, permit, outcome, Duration::from_millis(took));
}

fn is_open(breaker: &Breaker) -> bool {
    breaker.status(second(1)).state == BreakerState::Open
}

#[test]
fn it_opens_when_the_share_of_failures_is_reached_with_enough_calls() {
    let breaker = Breaker::new(&policy(errors()));
    for i in 0..19 {
        call(&breaker, second(1), HeadOutcome::Status(if i < 3 { 200 } else { 500 }), 10);
        assert!(!is_open(&breaker), "{} calls give no verdict", i + 1);
    }
    call(&breaker, second(1), HeadOutcome::Status(502), 10);
    assert!(is_open(&breaker));
    let status = breaker.status(second(1));
    assert_eq!(status.last_trigger_reason.unwrap(), "5xx_rate_85%_in_30s");
    assert_eq!(status.half_open_in_millis, Some(60_000));
    let refusal = breaker.admit(second(1), PriorityClass::High, &Spread::new(1)).unwrap_err();
    assert_eq!((refusal.cause, refusal.observed, refusal.limit), (Cause::Breaker, 0.85, 0.5));
    assert!(refusal.retry_after >= Duration::from_mins(1));
}

#[test]
fn a_success_that_completes_the_minimum_can_open_it() {
    let breaker = Breaker::new(&policy(errors()));
    (0..19).for_each(|_| call(&breaker, second(1), HeadOutcome::Failed, 10));
    call(&breaker, second(1), HeadOutcome::Status(200), 10);
    assert!(is_open(&breaker));
}

#[test]
fn it_opens_when_calls_are_slow_though_they_succeed() {
    let breaker = Breaker::new(&policy(slow()));
    (0..6).for_each(|_| call(&breaker, second(1), HeadOutcome::Status(200), 10));
    (0..4).for_each(|_| call(&breaker, second(1), HeadOutcome::Status(200), 1001));
    assert!(is_open(&breaker));
    let reason = breaker.status(second(1)).last_trigger_reason.unwrap();
    assert_eq!(reason, "slow_calls_40%_over_1000ms_in_10s");
}

#[test]
fn it_opens_after_failures_in_a_row_of_any_kind() {
    let breaker = Breaker::new(&policy(in_a_row(3)));
    call(&breaker, second(1), HeadOutcome::Status(500), 10);
    call(&breaker, second(1), HeadOutcome::TimedOut, 3000);
    call(&breaker, second(1), HeadOutcome::Failed, 1);
    assert!(is_open(&breaker));
    let reason = breaker.status(second(1)).last_trigger_reason.unwrap();
    assert_eq!(reason, "consecutive_failures_3");
}

#[test]
fn a_full_queue_of_the_engine_is_backpressure_and_no_failure() {
    let breaker = Breaker::new(&policy(in_a_row(2)));
    for status in [503, 429, 503, 500, 503] {
        call(&breaker, second(1), HeadOutcome::Status(status), 10);
    }
    assert!(!is_open(&breaker));
    assert_eq!(breaker.status(second(1)).consecutive_failures, 1, "it is no success either");
}

#[test]
fn an_answer_after_the_timeout_is_a_failure_where_nobody_cut_it_off() {
    let shadow = Policy { mode: Mode::Shadow, ..policy(in_a_row(1)) };
    let breaker = Breaker::new(&shadow);
    assert_eq!(breaker.timeout(), None);
    call(&breaker, second(1), HeadOutcome::Status(200), 3001);
    assert!(is_open(&breaker));
}

#[test]
fn after_it_has_closed_old_failures_are_forgotten() {
    let breaker = Breaker::new(&policy(Trips { consecutive_failures: None, ..errors() }));
    (0..20).for_each(|_| call(&breaker, second(1), HeadOutcome::Failed, 10));
    assert!(is_open(&breaker));
    call(&breaker, second(61), HeadOutcome::Status(200), 10);
    assert_eq!(breaker.status(second(61)).state, BreakerState::Closed);
    (0..20).for_each(|_| call(&breaker, second(61), HeadOutcome::Status(200), 10));
    assert_eq!(breaker.status(second(61)).failure_ratio, Some(0.0));
}

#[test]
fn a_new_policy_of_the_same_name_keeps_state_and_counts() {
    let breaker = Breaker::new(&policy(errors()));
    (0..19).for_each(|_| call(&breaker, second(1), HeadOutcome::Failed, 10));
    let mut longer = policy(errors());
    longer.trip.error_ratio = errors().error_ratio.map(|t| ErrorRatio { window_millis: millis(60_000), ..t });
    let next = breaker.succeed(&longer, second(2));
    call(&next, second(2), HeadOutcome::Failed, 10);
    assert!(is_open(&next));
    assert!(is_open(&breaker), "calls of the old engine meet the same state");
    let other = Policy { policy: "inference/other".to_owned(), ..policy(errors()) };
    assert!(!is_open(&next.succeed(&other, second(2))));
}
