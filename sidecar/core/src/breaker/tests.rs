use tidegate_policy::report::{BreakerState, StageState, StageStatus};
use tidegate_policy::{
    ConsecutiveFailures, ErrorRatio, HalfOpen, HeaderName, InFlight, KeyPart, LatencyPercentile, OutOfMemory,
    Per, Ratio, SlowCallRatio, StageBreaker, StatusMatch, Timeouts, Trip as Trips,
};

use super::*;
use crate::testing::Request;

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
        failure_statuses: StatusMatch::FAILURES.to_vec(),
        backpressure_statuses: StatusMatch::BACKPRESSURE.to_vec(),
        per: None,
        stages: Vec::new(),
        open_millis: millis(60_000),
        half_open: HalfOpen { probes: 1, ramp_millis: None },
        timeout_millis: Some(millis(3000)),
        timeouts: Timeouts::default(),
        fallback: None,
        fallbacks: None,
        hooks: Vec::new(),
    }
}

fn errors() -> Trips {
    let threshold = Ratio::new(0.5).unwrap();
    let error_ratio = ErrorRatio {
        threshold,
        window_millis: Some(millis(30_000)),
        window_calls: None,
        minimum_requests: 20,
    };
    Trips { error_ratio: Some(error_ratio), ..Trips::default() }
}

fn slow() -> Trips {
    let slow_call_ratio = SlowCallRatio {
        threshold: Ratio::new(0.3).unwrap(),
        slower_than_millis: millis(1000),
        window_millis: Some(millis(10_000)),
        window_calls: None,
        minimum_requests: 10,
    };
    Trips { slow_call_ratio: Some(slow_call_ratio), ..Trips::default() }
}

fn in_a_row(count: u32) -> Trips {
    Trips { consecutive_failures: Some(ConsecutiveFailures { count }), ..Trips::default() }
}

fn call(breaker: &Breaker, now: Tick, outcome: HeadOutcome, took: u64) {
    let mut call = admit(breaker, now).unwrap();
    answer(breaker, now, &mut call, outcome, took);
    breaker.complete(now, call, FirstByte::After(Duration::from_millis(took)));
}

fn admit(breaker: &Breaker, now: Tick) -> Result<Call, Refusal> {
    let mut call =
        breaker.admit(now, PriorityClass::Medium, &Request::from("10.0.0.1").facts(), &Spread::new(1))?;
    breaker.begin(now, &mut call);
    Ok(call)
}

fn answer(breaker: &Breaker, now: Tick, call: &mut Call, outcome: HeadOutcome, took: u64) {
    breaker.responded(now, call, outcome, Duration::from_millis(took));
}

fn is_open(breaker: &Breaker) -> bool {
    breaker.status(second(1)).state == BreakerState::Open
}

#[test]
fn it_opens_when_the_share_of_failures_is_reached_with_enough_calls() {
    let breaker = Breaker::new(&policy(errors()), 7);
    for i in 0..19 {
        call(&breaker, second(1), HeadOutcome::Status(if i < 3 { 200 } else { 500 }), 10);
        assert!(!is_open(&breaker), "{} calls give no verdict", i + 1);
    }
    call(&breaker, second(1), HeadOutcome::Status(502), 10);
    assert!(is_open(&breaker));
    let status = breaker.status(second(1));
    assert_eq!(status.last_trigger_reason.unwrap(), "5xx_rate_85%_in_30s");
    assert_eq!(status.half_open_in_millis, Some(60_000));
    let refusal = admit(&breaker, second(1)).unwrap_err();
    assert_eq!((refusal.cause, refusal.observed, refusal.limit), (Cause::Breaker, 0.85, 0.5));
    assert!(refusal.retry_after >= Duration::from_mins(1));
}

#[test]
fn a_success_that_completes_the_minimum_can_open_it() {
    let breaker = Breaker::new(&policy(errors()), 7);
    (0..19).for_each(|_| call(&breaker, second(1), HeadOutcome::Failed, 10));
    call(&breaker, second(1), HeadOutcome::Status(200), 10);
    assert!(is_open(&breaker));
}

#[test]
fn it_opens_when_calls_are_slow_though_they_succeed() {
    let breaker = Breaker::new(&policy(slow()), 7);
    (0..6).for_each(|_| call(&breaker, second(1), HeadOutcome::Status(200), 10));
    (0..4).for_each(|_| call(&breaker, second(1), HeadOutcome::Status(200), 1001));
    assert!(is_open(&breaker));
    let reason = breaker.status(second(1)).last_trigger_reason.unwrap();
    assert_eq!(reason, "slow_calls_40%_over_1000ms_in_10s");
}

#[test]
fn it_opens_after_failures_in_a_row_of_any_kind() {
    let breaker = Breaker::new(&policy(in_a_row(3)), 7);
    call(&breaker, second(1), HeadOutcome::Status(500), 10);
    call(&breaker, second(1), HeadOutcome::TimedOut, 3000);
    call(&breaker, second(1), HeadOutcome::Failed, 1);
    assert!(is_open(&breaker));
    let reason = breaker.status(second(1)).last_trigger_reason.unwrap();
    assert_eq!(reason, "consecutive_failures_3");
}

#[test]
fn a_full_queue_of_the_engine_is_backpressure_and_no_failure() {
    let breaker = Breaker::new(&policy(in_a_row(2)), 7);
    for status in [503, 429, 503, 500, 503] {
        call(&breaker, second(1), HeadOutcome::Status(status), 10);
    }
    assert!(!is_open(&breaker));
    assert_eq!(breaker.status(second(1)).consecutive_failures, 1, "it is no success either");
}

#[test]
fn an_answer_after_the_timeout_is_a_failure_where_nobody_cut_it_off() {
    let shadow = Policy { mode: Mode::Shadow, ..policy(in_a_row(1)) };
    let breaker = Breaker::new(&shadow, 7);
    assert_eq!(breaker.time_limits(), TimeLimits::default());
    call(&breaker, second(1), HeadOutcome::Status(200), 3001);
    assert!(is_open(&breaker));
}

#[test]
fn an_answer_that_breaks_off_is_a_failure_after_the_success_of_its_beginning() {
    let breaker = Breaker::new(&policy(in_a_row(2)), 7);
    let begin = || {
        let mut call = admit(&breaker, second(1)).unwrap();
        breaker.responded(second(1), &mut call, HeadOutcome::Status(200), Duration::from_millis(10));
        call
    };
    let mut calls = [begin(), begin()];
    for (call, failures) in calls.iter_mut().zip([1, 0]) {
        breaker.broke_off(second(2), call);
        assert_eq!(breaker.status(second(2)).consecutive_failures, failures);
    }
    assert!(is_open(&breaker), "two streams that stall are two failures in a row");
}

#[test]
fn a_probe_that_has_succeeded_cannot_fail_any_more() {
    let breaker = Breaker::new(&policy(in_a_row(1)), 7);
    call(&breaker, second(1), HeadOutcome::Failed, 10);
    let mut probe = admit(&breaker, second(62)).unwrap();
    breaker.responded(second(62), &mut probe, HeadOutcome::Status(200), Duration::from_millis(10));
    breaker.broke_off(second(63), &mut probe);
    assert!(!is_open(&breaker));
}

#[test]
fn an_answer_to_a_slow_upload_is_no_failure() {
    let breaker = Breaker::new(&policy(in_a_row(1)), 7);
    call(&breaker, second(1), HeadOutcome::Status(200), 60_000);
    assert!(!is_open(&breaker), "its caller did not cut it off");
}

#[test]
fn after_it_has_closed_old_failures_are_forgotten() {
    let breaker = Breaker::new(&policy(Trips { consecutive_failures: None, ..errors() }), 7);
    (0..20).for_each(|_| call(&breaker, second(1), HeadOutcome::Failed, 10));
    assert!(is_open(&breaker));
    call(&breaker, second(61), HeadOutcome::Status(200), 10);
    assert_eq!(breaker.status(second(61)).state, BreakerState::Closed);
    (0..20).for_each(|_| call(&breaker, second(61), HeadOutcome::Status(200), 10));
    assert_eq!(breaker.status(second(61)).failure_ratio, Some(0.0));
}

#[test]
fn a_new_policy_of_the_same_name_keeps_state_and_counts() {
    let breaker = Breaker::new(&policy(errors()), 7);
    (0..19).for_each(|_| call(&breaker, second(1), HeadOutcome::Failed, 10));
    let mut longer = policy(errors());
    longer.trip.error_ratio =
        errors().error_ratio.map(|t| ErrorRatio { window_millis: Some(millis(60_000)), ..t });
    let next = breaker.succeed(&longer, 7, second(2));
    call(&next, second(2), HeadOutcome::Failed, 10);
    assert!(is_open(&next));
    assert!(is_open(&breaker), "calls of the old engine meet the same state");
    let other = Policy { policy: "inference/other".to_owned(), ..policy(errors()) };
    assert!(!is_open(&next.succeed(&other, 7, second(2))));
}

fn with(trip: Trips) -> Breaker {
    Breaker::new(&policy(trip), 7)
}

fn reason(breaker: &Breaker) -> String {
    breaker.status(second(1)).last_trigger_reason.unwrap()
}

#[test]
fn a_stream_is_judged_by_its_first_byte_and_not_by_its_end() {
    let breaker = with(slow());
    for _ in 0..20 {
        let mut call = admit(&breaker, second(1)).unwrap();
        answer(&breaker, second(1), &mut call, HeadOutcome::Status(200), 5);
        breaker.first_byte(second(1), &mut call, FirstByte::After(Duration::from_millis(200)));
        breaker.complete(second(90), call, FirstByte::After(Duration::from_mins(1)));
    }
    assert!(!is_open(&breaker), "a stream may take as long as it likes once it has begun");
    for _ in 0..20 {
        let mut call = admit(&breaker, second(1)).unwrap_or_else(|_| panic!("closed"));
        answer(&breaker, second(1), &mut call, HeadOutcome::Status(200), 5);
        breaker.first_byte(second(1), &mut call, FirstByte::After(Duration::from_millis(1001)));
        breaker.complete(second(1), call, FirstByte::After(Duration::from_millis(1001)));
        if is_open(&breaker) {
            return;
        }
    }
    panic!("a head that came at once hid a slow first token");
}

#[test]
fn a_client_that_gives_up_is_a_slow_call_only_when_it_had_waited_long_enough() {
    let gave_up = |breaker: &Breaker, after: u64| {
        let mut call = admit(breaker, second(1)).unwrap();
        answer(breaker, second(1), &mut call, HeadOutcome::Status(200), 5);
        breaker.complete(second(1), call, FirstByte::LaterThan(Duration::from_millis(after)));
    };
    let breaker = with(slow());
    (0..100).for_each(|_| gave_up(&breaker, 999));
    assert!(!is_open(&breaker));
    (0..10).for_each(|_| gave_up(&breaker, 1001));
    assert!(is_open(&breaker));
}

fn p95(minimum: u32) -> Trips {
    let latency = LatencyPercentile {
        percentile: Ratio::new(0.95).unwrap(),
        over_millis: millis(800),
        window_millis: Some(millis(30_000)),
        window_calls: None,
        minimum_requests: minimum,
    };
    Trips { latency: Some(latency), ..Trips::default() }
}

#[test]
fn it_opens_when_the_95th_percentile_is_over_its_ceiling() {
    let breaker = with(p95(20));
    (0..95).for_each(|_| call(&breaker, second(1), HeadOutcome::Status(200), 800));
    (0..5).for_each(|_| call(&breaker, second(1), HeadOutcome::Status(200), 801));
    assert!(!is_open(&breaker), "95 of 100 took no longer");
    call(&breaker, second(1), HeadOutcome::Status(200), 801);
    assert!(is_open(&breaker));
    assert_eq!(reason(&breaker), "p95_over_800ms_by_6%_in_30s");
    assert_eq!(admit(&breaker, second(1)).unwrap_err().rule.name, "trip.latency");
}

#[test]
fn it_opens_when_a_request_arrives_while_as_many_as_allowed_are_in_flight() {
    let trip = Trips { in_flight: Some(InFlight { max: 2 }), ..Trips::default() };
    let breaker = with(trip);
    let [one, two] = [(); 2].map(|()| admit(&breaker, second(1)).unwrap());
    breaker.complete(second(1), one, FirstByte::LaterThan(Duration::ZERO));
    let three = admit(&breaker, second(1)).unwrap();
    let refusal = admit(&breaker, second(1)).unwrap_err();
    assert_eq!((refusal.rule.name.as_str(), refusal.observed, refusal.limit), ("trip.inFlight", 3.0, 2.0));
    assert!(is_open(&breaker));
    assert_eq!(reason(&breaker), "in_flight_3_over_2");
    for call in [two, three] {
        breaker.complete(second(2), call, FirstByte::LaterThan(Duration::ZERO));
    }
    assert!(admit(&breaker, second(61)).is_ok(), "places come back");
}

#[test]
fn a_window_of_calls_looks_at_the_last_ones_however_long_ago() {
    let mut trip = errors();
    trip.error_ratio = trip.error_ratio.map(|t| ErrorRatio {
        window_millis: None,
        window_calls: Some(4),
        minimum_requests: 4,
        ..t
    });
    let breaker = with(trip);
    for (at, status) in [(1, 500), (10_000, 200), (20_000, 200), (30_000, 200), (40_000, 500)] {
        call(&breaker, second(at), HeadOutcome::Status(status), 1);
        assert!(!is_open(&breaker), "at {at}");
    }
    call(&breaker, second(50_000), HeadOutcome::Status(500), 1);
    assert!(is_open(&breaker));
    assert_eq!(reason(&breaker), "5xx_rate_50%_in_4_calls");
}

#[test]
fn which_statuses_count_is_the_policys_to_say() {
    let statuses = |text: &[&str]| text.iter().map(|t| StatusMatch::new(t).unwrap()).collect::<Vec<_>>();
    let policy = Policy {
        failure_statuses: statuses(&["4xx", "503"]),
        backpressure_statuses: statuses(&["429"]),
        ..policy(in_a_row(3))
    };
    let breaker = Breaker::new(&policy, 7);
    for status in [500, 429, 200, 404, 429, 503] {
        call(&breaker, second(1), HeadOutcome::Status(status), 1);
    }
    assert!(!is_open(&breaker));
    assert_eq!(breaker.status(second(1)).consecutive_failures, 2);
    call(&breaker, second(1), HeadOutcome::Status(400), 1);
    assert!(is_open(&breaker));
}

#[test]
fn conditions_work_together_and_the_one_that_opened_it_is_named() {
    let trip = Trips { latency: p95(20).latency, error_ratio: errors().error_ratio, ..in_a_row(5) };
    let failing = with(trip);
    (0..5).for_each(|_| call(&failing, second(1), HeadOutcome::Failed, 1));
    assert_eq!(admit(&failing, second(1)).unwrap_err().rule.name, "trip.consecutiveFailures");
    let every_other = with(trip);
    for n in 0..20 {
        call(&every_other, second(1), HeadOutcome::Status(if n % 2 == 0 { 200 } else { 500 }), 1);
    }
    assert_eq!(admit(&every_other, second(1)).unwrap_err().rule.name, "trip.errorRatio");
    let slow = with(trip);
    (0..20).for_each(|_| call(&slow, second(1), HeadOutcome::Status(200), 900));
    assert_eq!(admit(&slow, second(1)).unwrap_err().rule.name, "trip.latency");
}

#[test]
fn a_slow_probe_opens_it_again() {
    let breaker = with(slow());
    (0..10).for_each(|_| call(&breaker, second(1), HeadOutcome::Status(200), 1001));
    call(&breaker, second(61), HeadOutcome::Status(200), 1001);
    assert_eq!(breaker.status(second(61)).half_open_in_millis, Some(60_000));
    call(&breaker, second(121), HeadOutcome::Status(200), 10);
    assert_eq!(breaker.status(second(121)).state, BreakerState::Closed);
}

#[test]
fn a_probe_whose_client_gave_up_comes_back() {
    let breaker = with(slow());
    (0..10).for_each(|_| call(&breaker, second(1), HeadOutcome::Status(200), 1001));
    let mut probe = admit(&breaker, second(61)).unwrap();
    assert!(admit(&breaker, second(61)).is_err());
    answer(&breaker, second(61), &mut probe, HeadOutcome::Status(200), 5);
    breaker.complete(second(61), probe, FirstByte::LaterThan(Duration::from_millis(10)));
    assert!(admit(&breaker, second(61)).is_ok());
}

#[test]
fn backpressure_of_a_probe_is_no_verdict() {
    let breaker = with(in_a_row(1));
    call(&breaker, second(1), HeadOutcome::Failed, 1);
    call(&breaker, second(61), HeadOutcome::Status(503), 1);
    assert_eq!(breaker.status(second(61)).state, BreakerState::HalfOpen);
    call(&breaker, second(61), HeadOutcome::Status(200), 1);
    assert_eq!(breaker.status(second(61)).state, BreakerState::Closed);
}

fn by_canary(max: u32) -> Policy {
    let per = Per { key: vec![KeyPart::Header(HeaderName::new("x-canary").unwrap())], max };
    Policy { per: Some(per), ..policy(in_a_row(2)) }
}

fn of_canary(breaker: &Breaker, canary: &str, outcome: HeadOutcome) -> bool {
    let request = Request::from("10.0.0.1").with("x-canary", canary);
    let Ok(mut call) = breaker.admit(second(1), PriorityClass::Medium, &request.facts(), &Spread::new(1))
    else {
        return false;
    };
    breaker.begin(second(1), &mut call);
    answer(breaker, second(1), &mut call, outcome, 1);
    breaker.complete(second(1), call, FirstByte::After(Duration::from_millis(1)));
    true
}

#[test]
fn a_canary_that_fails_opens_its_own_breaker_alone() {
    let breaker = Breaker::new(&by_canary(8), 7);
    (0..2).for_each(|_| assert!(of_canary(&breaker, "v2", HeadOutcome::Failed)));
    assert!(!of_canary(&breaker, "v2", HeadOutcome::Status(200)));
    assert!(of_canary(&breaker, "v1", HeadOutcome::Status(200)));
    call(&breaker, second(1), HeadOutcome::Status(200), 1);
    let status = breaker.status(second(1));
    assert_eq!(status.state, BreakerState::Open, "the one that lets least pass");
    let groups = status.groups.unwrap();
    assert_eq!((groups.tracked, groups.open, groups.half_open), (3, 1, 0));
}

#[test]
fn groups_beyond_the_most_share_one_breaker() {
    let breaker = Breaker::new(&by_canary(2), 7);
    assert!(
        of_canary(&breaker, "a", HeadOutcome::Status(200))
            && of_canary(&breaker, "b", HeadOutcome::Status(200))
    );
    assert!(of_canary(&breaker, "c", HeadOutcome::Failed) && of_canary(&breaker, "d", HeadOutcome::Failed));
    assert!(!of_canary(&breaker, "e", HeadOutcome::Status(200)), "c, d and e share one");
    assert!(
        of_canary(&breaker, "a", HeadOutcome::Status(200))
            && of_canary(&breaker, "b", HeadOutcome::Status(200))
    );
}

#[test]
fn groups_keep_their_state_when_the_policy_changes() {
    let breaker = Breaker::new(&by_canary(8), 7);
    (0..2).for_each(|_| assert!(of_canary(&breaker, "v2", HeadOutcome::Failed)));
    let next = breaker.succeed(&Policy { open_millis: millis(10_000), ..by_canary(8) }, 7, second(1));
    assert!(
        !of_canary(&next, "v2", HeadOutcome::Status(200)) && of_canary(&next, "v1", HeadOutcome::Status(200))
    );
}

fn with_stage() -> Policy {
    let stage = StageBreaker {
        stage: Stage::new("attention").unwrap(),
        over_millis: Some(millis(800)),
        percentile: Ratio::new(0.99).unwrap(),
        window_millis: millis(30_000),
        minimum_requests: 3,
        out_of_memory: Some(OutOfMemory { count: 3, window_millis: millis(60_000) }),
        stale_after_millis: Some(millis(10_000)),
    };
    Policy { stages: vec![stage], ..policy(Trips::default()) }
}

fn took(millis: u64) -> StageReading {
    StageReading::Took(Duration::from_millis(millis))
}

fn stage(breaker: &Breaker, now: Tick) -> StageStatus {
    breaker.status(now).stages[0].clone()
}

#[test]
fn a_stage_without_a_source_has_no_signal_and_lets_everything_pass() {
    let breaker = Breaker::new(&with_stage(), 7);
    assert_eq!(stage(&breaker, second(1)).state, StageState::NoSignal);
    call(&breaker, second(1), HeadOutcome::Failed, 1);
    assert!(admit(&breaker, second(1)).is_ok());
    breaker.observe(second(1), 0, StageReading::OutOfMemory);
    assert_eq!(stage(&breaker, second(1)).state, StageState::NoSignal, "that tells nothing of its times");
    breaker.observe(second(1), 0, StageReading::Counted { times: 0, over: 0 });
    assert_eq!(stage(&breaker, second(1)).state, StageState::Closed);
    assert_eq!(
        stage(&breaker, second(11)).state,
        StageState::NoSignal,
        "nothing was heard of it for too long"
    );
}

#[test]
fn a_slow_stage_opens_its_breaker_and_a_probe_tries_it() {
    let breaker = Breaker::new(&with_stage(), 7);
    breaker.observe(second(1), 0, took(801));
    breaker.observe(second(1), 0, took(800));
    assert!(admit(&breaker, second(1)).is_ok(), "two times are no verdict");
    breaker.observe(second(1), 0, took(800));
    assert!(admit(&breaker, second(1)).is_ok(), "what is not over makes it no worse");
    breaker.observe(second(1), 0, took(900));
    let refusal = admit(&breaker, second(1)).unwrap_err();
    assert_eq!((refusal.rule.name.as_str(), refusal.observed), ("stages.attention.latency", 0.5));
    let status = stage(&breaker, second(1));
    assert_eq!(status.last_trigger_reason.unwrap(), "attention_p99_over_800ms_by_50%_in_30s");
    breaker.observe(second(2), 0, took(900));
    let mut probe = admit(&breaker, second(61)).unwrap();
    assert!(admit(&breaker, second(61)).is_err(), "one probe at a time");
    breaker.observe(second(61), 0, took(900));
    assert_eq!(stage(&breaker, second(61)).state, StageState::Open, "still slow");
    answer(&breaker, second(61), &mut probe, HeadOutcome::Status(200), 1);
    breaker.complete(second(61), probe, FirstByte::After(Duration::from_millis(1)));
    assert_eq!(stage(&breaker, second(61)).state, StageState::Open);
    let mut probe = admit(&breaker, second(122)).unwrap();
    breaker.observe(second(122), 0, took(1));
    answer(&breaker, second(122), &mut probe, HeadOutcome::Status(200), 1);
    breaker.complete(second(122), probe, FirstByte::After(Duration::from_millis(1)));
    assert!((0..10).all(|_| admit(&breaker, second(122)).is_ok()));
    assert_eq!(stage(&breaker, second(122)).over_ratio, None, "it begins anew");
}

#[test]
fn times_of_a_stage_that_are_told_as_counts_count_in_proportion() {
    let breaker = Breaker::new(&with_stage(), 7);
    breaker.observe(second(1), 0, StageReading::Counted { times: 1_000_000, over: 9_000 });
    assert!(admit(&breaker, second(1)).is_ok(), "0.9 % are over, and a P99 leaves 1 %");
    breaker.observe(second(1), 0, StageReading::Counted { times: 1_000_000, over: 1_000_000 });
    assert!(admit(&breaker, second(1)).is_err());
    assert!((stage(&breaker, second(1)).over_ratio.unwrap() - 0.5).abs() < 0.01);
}

#[test]
fn a_stage_that_runs_out_of_memory_too_often_opens_its_breaker() {
    let breaker = Breaker::new(&with_stage(), 7);
    breaker.observe(second(1), 0, StageReading::OutOfMemory);
    breaker.observe(second(2), 0, StageReading::OutOfMemory);
    assert_eq!(stage(&breaker, second(2)).out_of_memory, Some(2));
    breaker.observe(second(120), 0, StageReading::OutOfMemory);
    assert!(admit(&breaker, second(120)).is_ok(), "two of them have left the window");
    breaker.observe(second(121), 0, StageReading::OutOfMemory);
    breaker.observe(second(121), 0, StageReading::OutOfMemory);
    let refusal = admit(&breaker, second(121)).unwrap_err();
    assert_eq!((refusal.rule.name.as_str(), refusal.observed), ("stages.attention.outOfMemory", 3.0));
    assert_eq!(stage(&breaker, second(121)).last_trigger_reason.unwrap(), "attention_out_of_memory_3_in_60s");
}

#[test]
fn a_stage_of_the_next_policy_keeps_its_state_and_what_still_means_the_same() {
    let breaker = Breaker::new(&with_stage(), 7);
    breaker.observe(second(1), 0, took(900));
    breaker.observe(second(1), 0, took(900));
    let mut next = with_stage();
    next.stages.insert(0, StageBreaker { stage: Stage::new("decode").unwrap(), ..next.stages[0].clone() });
    let breaker = breaker.succeed(&next, 8, second(2));
    assert_eq!(breaker.status(second(2)).stages[0].over_ratio, None);
    assert_eq!(breaker.status(second(2)).stages[1].over_ratio, Some(1.0));
    breaker.observe(second(2), 1, took(900));
    assert!(admit(&breaker, second(2)).is_err());
    next.stages[1].over_millis = Some(millis(10_000));
    let breaker = breaker.succeed(&next, 9, second(3));
    assert_eq!(breaker.status(second(3)).stages[1].state, StageState::Open);
    assert_eq!(breaker.status(second(3)).stages[1].over_ratio, None, "900 ms are no longer over");
}
