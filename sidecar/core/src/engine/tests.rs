use tidegate_policy::report::{BreakerState, TierName, TierState};
use tidegate_policy::{Mode, PriorityClass};

use super::*;
use crate::Admission;
use crate::testing::Request;
use crate::{Cause, Completion, EngineReading, GpuMemoryReading, HeadOutcome, Refusal};

fn document(json: &str) -> PolicyDocument {
    let whole = format!(r#"{{"apiVersion":"policy.tidegate.dev/v1","revision":"r1",{json}}}"#);
    PolicyDocument::from_json(whole.as_bytes()).unwrap()
}

const PRIORITY: &str = r#""priority":{"from":[{"header":"x-priority"}],"default":"Medium",
    "reservedHigh":0.2,"highAllowedFrom":[{"cidr":"10.0.0.0/8"}]}"#;

fn qps(max: u32, mode: &str) -> String {
    format!(
        r#"{PRIORITY},"tiers":{{"policy":"inference/llama","mode":"{mode}",
        "qps":{{"sampleIntervalMillis":1000,"windowMillis":300000,"max":{max}}},
        "recovery":{{"belowRatio":0.9,"holdMillis":10000}}}}"#
    )
}

fn gpu(hold: u32) -> String {
    format!(
        r#"{PRIORITY},"tiers":{{"policy":"inference/llama","mode":"Enforce",
        "gpuMemory":{{"maxUtilization":0.75,"staleAfterMillis":10000,"onStale":"Ignore"}},
        "recovery":{{"belowRatio":0.9,"holdMillis":{hold}}}}}"#
    )
}

fn breaker(more: &str) -> String {
    format!(
        r#""breaker":{{"policy":"inference/payment","mode":"Enforce","openMillis":60000,
        "halfOpen":{{"probes":1}},"timeoutMillis":3000,
        "trip":{{"consecutiveFailures":{{"count":2}}}}{more}}}"#
    )
}

const LIMIT: &str = r#""limits":[{"policy":"inference/llama","name":"per-user","mode":"Enforce",
    "key":[{"header":"x-api-key"}],"algorithm":{"tokenBucket":{"burst":1}},"limit":1,"windowMillis":1000}]"#;

fn second(n: u64) -> Tick {
    Tick::from_nanos(n * 1_000_000_000)
}

fn millis(n: u64) -> Tick {
    Tick::from_nanos(n * 1_000_000)
}

fn admit(engine: &Engine, now: Tick, request: &Request) -> Result<Admission, Refusal> {
    match engine.admit(now, &request.facts()) {
        Decision::Admit(admission) => Ok(admission),
        Decision::Refuse(refusal) => Err(refusal),
        Decision::Fallback(refusal) => panic!("sent to a fallback for {}", refusal.rule.name),
        Decision::Queue(waiting) => panic!("{waiting:?}"),
    }
}

/// A request from its arrival to its end.
fn serve(engine: &Engine, now: Tick, request: &Request, outcome: HeadOutcome) -> Result<(), Refusal> {
    let mut ticket = admit(engine, now, request)?.ticket;
    engine.responded(now, &mut ticket, outcome);
    engine.complete(now, ticket, &Completion::default());
    Ok(())
}

fn read_gpu(engine: &Engine, at: Tick, used: u64) {
    engine.observe(at, Signal::GpuMemory(GpuMemoryReading { used, total: 100, at }));
}

#[test]
fn a_pod_without_a_policy_lets_everything_pass() {
    let engine = Engine::new(&PolicyDocument::default(), 1, second(0));
    for _ in 0..10_000 {
        serve(&engine, second(1), &Request::priority("low"), HeadOutcome::Failed).unwrap();
    }
    assert_eq!(engine.snapshot(second(1)).in_flight, 0);
}

#[test]
fn a_tripped_tier_refuses_low_and_names_itself() {
    let engine = Engine::new(&document(&gpu(10_000)), 1, second(0));
    read_gpu(&engine, second(1), 80);
    let refusal = admit(&engine, second(1), &Request::priority("low")).unwrap_err();
    assert_eq!(refusal.cause, Cause::Tier(TierName::GpuMemory));
    assert_eq!(
        (refusal.rule.policy.as_str(), refusal.rule.name.as_str()),
        ("inference/llama", "tiers.gpuMemory")
    );
    assert_eq!((refusal.observed, refusal.limit), (80.0, 75.0));
    assert!((10.0..=15.0).contains(&refusal.retry_after.as_secs_f64()));
    for _ in 0..1000 {
        let _ = admit(&engine, second(1), &Request::priority("high")).unwrap();
    }
    let medium =
        (0..1000).filter(|_| admit(&engine, second(1), &Request::priority("medium")).is_ok()).count();
    assert!((1..1000).contains(&medium), "{medium} of 1000 medium");
}

#[test]
fn the_request_over_the_cap_trips_the_tier_before_the_sample_ends() {
    let engine = Engine::new(&document(&qps(50, "Enforce")), 1, second(0));
    for n in 0..50 {
        let _ = admit(&engine, millis(n), &Request::priority("low")).unwrap();
    }
    let refusal = admit(&engine, millis(50), &Request::priority("low")).unwrap_err();
    assert_eq!(refusal.cause, Cause::Tier(TierName::Qps));
    let tier = &engine.snapshot(millis(50)).tiers[0];
    assert_eq!((tier.state, tier.shedding), (TierState::Tripped, true));
    assert_eq!(tier.last_trigger_reason.as_deref(), Some("51.0 requests/s over the ceiling of 50.0"));
    assert_eq!(tier.last_triggered_millis_ago, Some(0));
    assert_eq!(tier.recovery_countdown_millis, Some(10_000));
}

#[test]
fn a_tier_in_shadow_mode_says_what_it_would_do_and_lets_pass() {
    let engine = Engine::new(&document(&qps(5, "Shadow")), 1, second(0));
    let mut refusals = Vec::new();
    for class in ["low", "medium", "high"].repeat(20) {
        let admission = admit(&engine, millis(1), &Request::priority(class)).unwrap();
        refusals.extend(admission.shadow.map(|refusal| (refusal.class, refusal.cause)));
    }
    assert!(refusals.contains(&(PriorityClass::Low, Cause::Tier(TierName::Qps))));
    assert!(refusals.contains(&(PriorityClass::Medium, Cause::Pressure)));
    assert!(!refusals.iter().any(|(class, _)| *class == PriorityClass::High));
    assert_eq!(engine.snapshot(millis(1)).tiers[0].mode, Mode::Shadow);
}

#[test]
fn an_open_breaker_refuses_with_its_reason_and_closes_after_a_good_probe() {
    let engine = Engine::new(&document(&breaker("")), 1, second(0));
    let request = Request::priority("medium");
    for _ in 0..2 {
        serve(&engine, second(1), &request, HeadOutcome::Status(500)).unwrap();
    }
    let refusal = admit(&engine, second(2), &request).unwrap_err();
    assert_eq!((refusal.cause, refusal.rule.name.as_str()), (Cause::Breaker, "trip.consecutiveFailures"));
    assert!(refusal.retry_after >= Duration::from_secs(59));
    let status = engine.snapshot(second(2)).breaker.unwrap();
    assert_eq!((status.state, status.half_open_in_millis), (BreakerState::Open, Some(59_000)));
    let probe = admit(&engine, second(61), &request).unwrap();
    assert!(admit(&engine, second(61), &request).is_err(), "one probe at a time");
    let mut ticket = probe.ticket;
    engine.responded(second(61), &mut ticket, HeadOutcome::Status(200));
    engine.complete(second(61), ticket, &Completion::default());
    assert_eq!(engine.snapshot(second(61)).breaker.unwrap().state, BreakerState::Closed);
    let _ = admit(&engine, second(61), &request).unwrap();
}

/// What a hundred callers are told that are refused at one instant, in seconds, from the soonest on.
fn told(engine: &Engine, now: Tick, class: &'static str) -> Vec<f64> {
    let refused = |_| admit(engine, now, &Request::priority(class)).unwrap_err();
    let mut told: Vec<f64> = (0..100).map(refused).map(|r| r.retry_after.as_secs_f64()).collect();
    told.sort_by(f64::total_cmp);
    told
}

#[test]
fn callers_refused_together_are_told_different_times_and_none_too_early() {
    let open = Engine::new(&document(&breaker("")), 1, second(0));
    for _ in 0..2 {
        serve(&open, second(1), &Request::priority("medium"), HeadOutcome::Status(500)).unwrap();
    }
    let shedding = Engine::new(&document(&gpu(10_000)), 1, second(0));
    read_gpu(&shedding, second(1), 80);
    for (engine, class, least) in [(&open, "medium", 59.0), (&shedding, "low", 10.0)] {
        let told = told(engine, second(2), class);
        assert!(told[0] >= least, "{class} is told to come after {} s", told[0]);
        let crowd = told.windows(20).find(|some| some[19] - some[0] < least / 50.0);
        assert_eq!(crowd, None, "twenty of a hundred come back together");
    }
}

#[test]
fn the_end_of_a_tier_is_told_when_it_is_in_sight_and_else_guessed_by_how_long_it_lasts() {
    let engine = Engine::new(&document(&gpu(10_000)), 1, second(0));
    read_gpu(&engine, second(1), 80);
    for at in [100, 101] {
        read_gpu(&engine, second(at), if at == 100 { 80 } else { 20 });
        let told = told(&engine, second(at), "low");
        assert!(told[0] >= 99.0 && told[99] > 200.0, "nobody knows the end at {at} s: {told:?}");
    }
    let _ = engine.tick(second(107));
    let told = told(&engine, second(107), "low");
    assert!(told[0] >= 4.0 && told[99] <= 4.0 + 10.0 && told[99] > 12.0, "{told:?}");
}

#[test]
fn medium_under_pressure_and_low_on_its_way_back_are_told_no_time_before_one_would_pass() {
    let pressed = Engine::new(&document(&gpu(10_000)), 1, second(0));
    read_gpu(&pressed, second(1), 80);
    let ramp = gpu(2000).replace("2000", "2000,\"rampMillis\":10000");
    let recovering = Engine::new(&document(&ramp), 1, second(0));
    read_gpu(&recovering, second(1), 80);
    read_gpu(&recovering, second(2), 20);
    let _ = recovering.tick(millis(4100));
    for (engine, now, class, cause) in [
        (&pressed, second(2), "medium", Cause::Pressure),
        (&recovering, millis(4100), "low", Cause::Tier(TierName::GpuMemory)),
    ] {
        let request = Request::priority(class);
        let last = loop {
            match admit(engine, now, &request) {
                Ok(admission) => drop(admission),
                Err(refusal) => break refusal,
            }
        };
        assert_eq!(last.cause, cause);
        let told = told(engine, now, class);
        let passes = |after: &u64| admit(engine, now + Duration::from_millis(*after), &request).is_ok();
        let first = (1..60_000).find(passes).unwrap() as f64 / 1000.0;
        assert!(told[0] > first - 0.001, "told {} s, and one would pass after {first} s", told[0]);
        assert!(told[0] < first + 0.5, "told {} s, and one would pass after {first} s", told[0]);
        assert!(told[99] - told[0] > 0.4, "all come back within {} s", told[99] - told[0]);
    }
}

#[test]
fn an_open_breaker_with_a_fallback_sends_there() {
    let engine =
        Engine::new(&document(&breaker(r#","fallback":{"path":"/fallback/payment"}"#)), 1, second(0));
    let request = Request::priority("medium");
    for _ in 0..2 {
        serve(&engine, second(1), &request, HeadOutcome::Status(500)).unwrap();
    }
    match engine.admit(second(2), &request.facts()) {
        Decision::Fallback(refusal) => assert_eq!(refusal.cause, Cause::Breaker),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_breaker_in_shadow_mode_opens_and_lets_pass() {
    let json = breaker("").replace("Enforce", "Shadow");
    let engine = Engine::new(&document(&json), 1, second(0));
    for _ in 0..2 {
        serve(&engine, second(1), &Request::priority("low"), HeadOutcome::Failed).unwrap();
    }
    let admission = admit(&engine, second(2), &Request::priority("low")).unwrap();
    assert_eq!(admission.shadow.unwrap().cause, Cause::Breaker);
    assert_eq!((admission.wait, engine.time_limits()), (Duration::ZERO, TimeLimits::default()));
}

#[test]
fn a_probe_comes_back_when_a_later_rule_refuses_or_nobody_waited_for_the_answer() {
    let engine = Engine::new(&document(&format!("{LIMIT},{}", breaker(""))), 1, second(0));
    let user = |name: &str| Request::from("10.0.0.1").with("x-api-key", name);
    for name in ["ann", "bob"] {
        serve(&engine, second(1), &user(name), HeadOutcome::Failed).unwrap();
    }
    let first = admit(&engine, second(61), &user("ann")).unwrap();
    engine.complete(second(61), first.ticket, &Completion::default());
    assert_eq!(admit(&engine, second(61), &user("ann")).unwrap_err().cause, Cause::Limit);
    assert!(admit(&engine, second(61), &user("bob")).is_ok(), "the probe was free again");
}

#[test]
fn a_document_that_changes_keeps_what_was_counted_and_tickets_of_both_engines_end() {
    let old = Engine::new(&document(&format!("{LIMIT},{}", breaker(""))), 1, second(0));
    let user = Request::from("10.0.0.1").with("x-api-key", "ann");
    let early = admit(&old, second(1), &user).unwrap();
    let new = old.succeed(&document(&format!("{LIMIT},{}", breaker(""))), second(1));
    assert_eq!(admit(&new, second(1), &user).unwrap_err().cause, Cause::Limit);
    assert_eq!(new.snapshot(second(1)).in_flight, 1);
    let mut ticket = early.ticket;
    old.responded(second(1), &mut ticket, HeadOutcome::Failed);
    old.complete(second(1), ticket, &Completion::default());
    serve(&new, second(2), &user, HeadOutcome::Failed).unwrap();
    let status = new.snapshot(second(2));
    assert_eq!((status.in_flight, status.breaker.unwrap().state), (0, BreakerState::Open));
    assert_eq!(status.limits[0].refused, 1);
}

#[test]
fn a_lower_cap_acts_on_the_running_sample_at_once() {
    let old = Engine::new(&document(&qps(1000, "Enforce")), 1, second(0));
    for n in 0..100 {
        let _ = admit(&old, millis(n), &Request::priority("low")).unwrap();
    }
    let new = old.succeed(&document(&qps(50, "Enforce")), millis(100));
    assert!(admit(&new, millis(101), &Request::priority("low")).is_err());
    let freed = new.succeed(&PolicyDocument::default(), millis(102));
    let _ = admit(&freed, millis(102), &Request::priority("low")).unwrap();
    assert!(freed.snapshot(millis(102)).pressure <= 0.0);
}

#[test]
fn the_latency_tier_measures_what_its_policy_names() {
    let tier = |signal: &str| {
        format!(
            r#"{PRIORITY},"tiers":{{"policy":"inference/llama","mode":"Enforce",
            "latency":{{"signal":"{signal}","percentile":0.99,"periodMillis":1000,"periods":1,
            "minimumSamples":5,"maxMillis":100000}},"recovery":{{"belowRatio":0.9,"holdMillis":1000}}}}"#
        )
    };
    for (signal, expected) in
        [("TotalLatency", 900.0), ("TimeToFirstToken", 100.0), ("TimePerOutputToken", 40.0)]
    {
        let engine = Engine::new(&document(&tier(signal)), 1, second(0));
        for _ in 0..10 {
            let mut ticket = admit(&engine, millis(0), &Request::priority("low")).unwrap().ticket;
            engine.responded(millis(50), &mut ticket, HeadOutcome::Status(200));
            let completion =
                Completion { first_byte: Some(millis(100)), events: 21, whole: true, tokens: None };
            engine.complete(millis(900), ticket, &completion);
            let mut failed = admit(&engine, millis(0), &Request::priority("low")).unwrap().ticket;
            engine.responded(millis(1), &mut failed, HeadOutcome::Status(500));
            engine.complete(
                millis(1),
                failed,
                &Completion { first_byte: Some(millis(1)), events: 0, whole: true, tokens: None },
            );
        }
        engine.tick(millis(1000));
        let value = engine.snapshot(millis(1000)).tiers[0].value.unwrap();
        assert!((value - expected).abs() < expected * 0.01, "{signal}: {value} ms");
    }
}

#[test]
fn the_engines_own_load_is_told_with_its_age_and_outlives_a_change_of_policy() {
    let before = Engine::new(&PolicyDocument::default(), 1, second(0));
    assert_eq!(before.snapshot(second(1)).engine, None);
    let reading = EngineReading {
        kv_cache_usage: Some(0.19),
        running: None,
        waiting: Some(90),
        preemptions: None,
        at: second(1),
    };
    before.observe(second(1), Signal::Engine(reading));
    let after = before.succeed(&PolicyDocument::default(), second(2));
    let load = after.snapshot(millis(3_500)).engine.unwrap();
    assert_eq!((load.kv_cache_usage, load.waiting, load.running), (Some(0.19), Some(90), None));
    assert_eq!(load.age_millis, 2_500);
}

/// A latency tier of one second whose periods of a second trip it at once.
const QUICK_LATENCY: &str = r#""latency":{"signal":"TimeToFirstToken","percentile":0.99,"periodMillis":1000,
    "periods":1,"minimumSamples":5,"maxMillis":1000}"#;

#[test]
fn an_engine_that_hangs_sheds_low_though_it_completes_nothing() {
    let tiers = format!(
        r#"{PRIORITY},"tiers":{{"policy":"inference/llama","mode":"Enforce",{QUICK_LATENCY},
        "recovery":{{"belowRatio":0.9,"holdMillis":2000}}}}"#
    );
    let engine = Engine::new(&document(&tiers), 1, second(0));
    let mut hung: Vec<_> = (0..20)
        .map(|_| {
            let mut ticket = admit(&engine, millis(10), &Request::priority("medium")).unwrap().ticket;
            engine.responded(millis(20), &mut ticket, HeadOutcome::Status(200));
            ticket
        })
        .collect();
    let mut answered = admit(&engine, millis(10), &Request::priority("medium")).unwrap().ticket;
    engine.first_byte(millis(20), &mut answered);
    for n in 1..=40 {
        engine.tick(millis(n * 100));
    }
    let tier = &engine.snapshot(millis(4000)).tiers[0];
    assert_eq!((tier.state, tier.overdue), (TierState::Tripped, Some(20)), "heads alone are no tokens");
    assert!(admit(&engine, millis(4000), &Request::priority("low")).is_err());
    hung.push(answered);
    for ticket in hung {
        engine.complete(millis(4000), ticket, &Completion::default());
    }
    for n in 41..=80 {
        engine.tick(millis(n * 100));
    }
    let _ = admit(&engine, millis(8000), &Request::priority("low")).unwrap();
}

#[test]
fn what_a_tier_shed_comes_back_by_degrees_and_a_refused_one_spends_nothing() {
    let engine =
        Engine::new(&document(&gpu(2000).replace("2000", "2000,\"rampMillis\":10000")), 1, second(0));
    let low = Request::priority("low");
    let mut passed = Vec::new();
    for n in 0..200u64 {
        let now = millis(n * 100);
        if n % 10 == 0 {
            read_gpu(&engine, now, if (30..50).contains(&n) { 80 } else { 20 });
        }
        engine.tick(now);
        let of_this = (0..5).filter(|_| admit(&engine, now, &low).map(|a| a.ticket).is_ok()).count();
        passed.push(of_this);
    }
    let second = |n: usize| passed[n * 10..n * 10 + 10].iter().sum::<usize>();
    assert_eq!((second(2), second(3), second(6)), (50, 0, 0), "{passed:?}");
    assert!((1..=6).contains(&second(7)), "a trickle at first: {passed:?}");
    assert!(second(9) > second(7) && second(12) > second(9), "{passed:?}");
    assert_eq!(second(18), 50, "{passed:?}");
}

#[test]
fn a_group_that_only_comes_refused_takes_no_breaker_from_others() {
    let one = r#""limits":[{"policy":"a/a","name":"one","mode":"Enforce","key":[],"limit":1,"algorithm":"concurrency"}]"#;
    let groups = r#","per":{"key":[{"header":"x-canary"}],"max":4}"#;
    let engine = Engine::new(&document(&format!("{one},{}", breaker(groups))), 1, second(0));
    let tracked = || engine.snapshot(second(0)).breaker.unwrap().groups.unwrap().tracked;
    let of = |canary: &str| Request::from("10.0.0.1").with("x-canary", canary);
    let v1 = admit(&engine, second(0), &of("v1")).unwrap();
    (0..9).for_each(|n| assert!(admit(&engine, second(0), &of(&format!("made up {n}"))).is_err()));
    assert_eq!(tracked(), 1);
    engine.complete(second(0), v1.ticket, &Completion::default());
    engine.complete(second(0), admit(&engine, second(0), &of("v2")).unwrap().ticket, &Completion::default());
    assert_eq!(tracked(), 2);
}

mod concurrency_limits;
mod places;
