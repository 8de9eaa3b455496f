use std::collections::VecDeque;
use std::time::Duration;

use proptest::prelude::*;
use tidegate_policy::{Cost, HeaderName, Millis, OnExhausted};

use super::*;
use crate::testing::Request;

fn millis(n: u64) -> Tick {
    Tick::from_nanos(n * 1_000_000)
}

fn bucket(name: &str, limit: u64, burst: u64, key: Vec<KeyPart>) -> Limit {
    Limit {
        policy: "inference/llama".to_owned(),
        name: name.to_owned(),
        mode: Mode::Enforce,
        key,
        algorithm: Algorithm::TokenBucket { burst, initial: None },
        limit,
        window_millis: Some(Millis::new(1000).unwrap()),
        cost: Cost::Requests,
        max_keys: None,
        when: Vec::new(),
        on_exhausted: OnExhausted::EndStream,
    }
}

fn window(name: &str, limit: u64, key: Vec<KeyPart>) -> Limit {
    Limit { algorithm: Algorithm::SlidingWindow { sub_windows: 10 }, ..bucket(name, limit, 1, key) }
}

fn by_user() -> Vec<KeyPart> {
    vec![KeyPart::Header(HeaderName::new("x-api-key").unwrap())]
}

fn user(name: &str) -> Request {
    Request::from("10.0.0.1").with("x-api-key", name)
}

fn admit(limits: &Limits, now: Tick, request: &Request) -> Result<Option<Refusal>, Refusal> {
    let (mut judged, mut shadow) = (Judged::new(), None);
    limits.find(&request.facts(), &mut judged);
    limits.take(now, PriorityClass::Medium, &request.facts(), &mut judged, &mut shadow).map(|()| shadow)
}

/// Whether the request would pass, without spending.
fn would_pass(limits: &Limits, now: Tick, request: &Request) -> bool {
    let mut judged = Judged::new();
    limits.find(&request.facts(), &mut judged);
    limits.rules.iter().all(|rule| {
        !rule.is_for(&request.facts()) || rule.judge(now, 1, rule.find(judged.keys[rule.key])).is_ok()
    })
}

#[test]
fn the_rule_with_the_longest_wait_decides_and_is_named() {
    let limits =
        Limits::new(&[bucket("fast", 100, 1, vec![]), bucket("slow", 2, 1, by_user())], 1, millis(0));
    let now = millis(5000);
    admit(&limits, now, &user("ann")).unwrap();
    let refusal = admit(&limits, now, &user("ann")).unwrap_err();
    assert_eq!(refusal.rule.name, "slow");
    assert_eq!(refusal.retry_after, Duration::from_millis(500));
    assert_eq!((refusal.observed, refusal.limit), (2.0, 1.0));
    assert_eq!(admit(&limits, now, &user("bob")).unwrap_err().rule.name, "fast");
}

#[test]
fn a_request_refused_by_a_later_rule_has_spent_nothing_on_the_earlier() {
    let limits = Limits::new(&[bucket("pod", 1, 10, vec![]), bucket("user", 1, 1, by_user())], 1, millis(0));
    let now = millis(5000);
    admit(&limits, now, &user("ann")).unwrap();
    for _ in 0..100 {
        assert_eq!(admit(&limits, now, &user("ann")).unwrap_err().rule.name, "user");
    }
    let passed = (0..20).filter(|n| admit(&limits, now, &user(&format!("user-{n}"))).is_ok()).count();
    assert_eq!(passed, 9);
}

#[test]
fn a_rule_in_shadow_mode_decides_and_counts_and_never_refuses() {
    let shadow = Limit { mode: Mode::Shadow, ..bucket("user", 1, 1, by_user()) };
    let limits = Limits::new(&[shadow], 1, millis(0));
    let now = millis(5000);
    assert_eq!(admit(&limits, now, &user("ann")), Ok(None));
    let refusal = admit(&limits, now, &user("ann")).unwrap().unwrap();
    assert_eq!(refusal.retry_after, Duration::from_secs(1));
    assert_eq!(limits.status(now)[0].refused, 1);
    assert_eq!(
        admit(&limits, millis(6000), &user("ann")),
        Ok(None),
        "what it would refuse it does not count"
    );
}

#[test]
fn a_raised_limit_holds_at_once_and_the_counters_stay() {
    let limits = Limits::new(&[window("user", 5, by_user())], 1, millis(0));
    let now = millis(5000);
    for _ in 0..5 {
        admit(&limits, now, &user("ann")).unwrap();
    }
    assert!(admit(&limits, now, &user("ann")).is_err());
    let raised = limits.succeed(&[window("user", 7, by_user())], now);
    assert!(admit(&raised, now, &user("ann")).is_ok());
    assert!(admit(&raised, now, &user("ann")).is_ok());
    assert!(admit(&raised, now, &user("ann")).is_err());
    assert_eq!(raised.status(now)[0].refused, 2);
}

#[test]
fn a_window_keeps_its_counters_when_its_length_changes() {
    let limits = Limits::new(&[window("user", 5, by_user())], 1, millis(0));
    let now = millis(5000);
    for _ in 0..4 {
        admit(&limits, now, &user("ann")).unwrap();
    }
    let longer = Limit { window_millis: Some(Millis::new(60_000).unwrap()), ..window("user", 5, by_user()) };
    let longer = limits.succeed(&[longer], now);
    assert!(admit(&longer, now, &user("ann")).is_ok());
    assert!(admit(&longer, millis(30_000), &user("ann")).is_err());
}

#[test]
fn another_key_or_algorithm_is_another_rule() {
    let limits = Limits::new(&[bucket("user", 1, 1, by_user())], 1, millis(0));
    let now = millis(5000);
    admit(&limits, now, &user("ann")).unwrap();
    for next in [bucket("user", 1, 1, vec![]), window("user", 1, by_user())] {
        assert!(admit(&limits.succeed(&[next], now), now, &user("ann")).is_ok());
    }
}

fn with(algorithm: Algorithm, limit: u64) -> Limit {
    let window_millis = (algorithm != Algorithm::Concurrency).then(|| Millis::new(1000).unwrap());
    Limit { algorithm, window_millis, ..bucket("rule", limit, 1, by_user()) }
}

/// What comes of having passed all rules.
#[derive(Debug)]
struct Passed {
    wait: Duration,
    held: Held,
}

/// What the request got, when it passed.
fn enter(limits: &Limits, now: Tick, request: &Request) -> Result<Passed, Refusal> {
    let mut judged = Judged::new();
    limits.find(&request.facts(), &mut judged);
    limits.take(now, PriorityClass::Medium, &request.facts(), &mut judged, &mut None)?;
    let mut held = Held::default();
    let wait = limits.pass(now, &judged, &mut held);
    Ok(Passed { wait, held })
}

#[test]
fn at_equal_waits_a_leaky_bucket_is_named_before_a_window_before_a_token_bucket() {
    let leaky = |name: &str| Limit {
        algorithm: Algorithm::LeakyBucket { burst: 1, max_wait_millis: None },
        ..bucket(name, 1, 1, vec![])
    };
    let fixed = |name: &str| Limit { algorithm: Algorithm::FixedWindow, ..bucket(name, 1, 1, vec![]) };
    let tokens = |name: &str| bucket(name, 1, 1, vec![]);
    for (rules, first) in [
        (vec![tokens("tokens"), fixed("window"), leaky("leaky")], "leaky"),
        (vec![tokens("tokens"), fixed("window")], "window"),
        (
            vec![Limit { name: "flight".into(), ..with(Algorithm::Concurrency, 1) }, tokens("tokens")],
            "tokens",
        ),
    ] {
        let limits = Limits::new(&rules, 1, millis(0));
        enter(&limits, millis(1000), &user("ann")).unwrap();
        assert_eq!(enter(&limits, millis(1000), &user("ann")).unwrap_err().rule.name, first);
    }
}

#[test]
fn permits_are_counted_by_key_and_come_back_when_the_request_ends() {
    let limits = Limits::new(&[with(Algorithm::Concurrency, 2)], 1, millis(0));
    let now = millis(5000);
    let one = enter(&limits, now, &user("ann")).unwrap();
    let two = enter(&limits, now, &user("ann")).unwrap();
    let refusal = enter(&limits, now, &user("ann")).unwrap_err();
    assert_eq!((refusal.observed, refusal.limit, refusal.retry_after), (3.0, 2.0, Duration::ZERO));
    limits.complete(now, enter(&limits, now, &user("bob")).unwrap().held, None);
    limits.complete(now, one.held, None);
    let three = enter(&limits, now, &user("ann")).unwrap();
    assert!(enter(&limits, now, &user("ann")).is_err());
    limits.cancel(two.held);
    limits.cancel(three.held);
    assert!(enter(&limits, now, &user("ann")).is_ok());
}

#[test]
fn a_permit_taken_under_one_document_comes_back_under_the_next() {
    let limits = Limits::new(&[with(Algorithm::Concurrency, 1)], 1, millis(0));
    let one = enter(&limits, millis(0), &user("ann")).unwrap();
    let next = limits.succeed(&[with(Algorithm::Concurrency, 2)], millis(1));
    let two = enter(&next, millis(1), &user("ann")).unwrap();
    assert!(enter(&next, millis(1), &user("ann")).is_err());
    limits.complete(millis(2), one.held, None);
    next.complete(millis(2), two.held, None);
    let both = [enter(&next, millis(3), &user("ann")), enter(&next, millis(3), &user("ann"))];
    assert!(both.iter().all(Result::is_ok));
    assert!(enter(&next, millis(3), &user("ann")).is_err());
}

#[test]
fn a_leaky_bucket_that_paces_lets_one_go_each_interval_and_refuses_who_would_wait_too_long() {
    let paced = Algorithm::LeakyBucket { burst: 100, max_wait_millis: Some(Millis::new(250).unwrap()) };
    let limits = Limits::new(&[with(paced, 10)], 1, millis(0));
    let wait = |at| enter(&limits, millis(at), &user("ann")).map(|passed| passed.wait.as_millis());
    assert_eq!([wait(0), wait(0), wait(0)], [Ok(0), Ok(100), Ok(200)]);
    assert_eq!(wait(0).unwrap_err().retry_after, Duration::from_millis(50));
    assert_eq!(wait(50), Ok(250));
    assert_eq!(wait(1000), Ok(0));
}

#[test]
fn a_request_that_leaves_the_queue_last_gives_its_turn_back_and_all_else_that_it_took() {
    let paced = Algorithm::LeakyBucket { burst: 100, max_wait_millis: Some(Millis::new(9000).unwrap()) };
    let limits = Limits::new(&[with(paced, 10), bucket("tokens", 1, 3, by_user())], 1, millis(0));
    let first = enter(&limits, millis(0), &user("ann")).unwrap();
    let second = enter(&limits, millis(0), &user("ann")).unwrap();
    assert_eq!(second.wait, Duration::from_millis(100));
    limits.cancel(second.held);
    let second = enter(&limits, millis(0), &user("ann")).unwrap();
    assert_eq!(second.wait, Duration::from_millis(100));
    assert!(enter(&limits, millis(0), &user("ann")).is_ok());
    assert_eq!(enter(&limits, millis(0), &user("ann")).unwrap_err().rule.name, "tokens");
    limits.complete(millis(1), first.held, None);
}

#[test]
fn a_rule_in_shadow_mode_lets_nobody_wait() {
    let paced = Algorithm::LeakyBucket { burst: 9, max_wait_millis: Some(Millis::new(9000).unwrap()) };
    let limits = Limits::new(&[Limit { mode: Mode::Shadow, ..with(paced, 1) }], 1, millis(0));
    enter(&limits, millis(0), &user("ann")).unwrap();
    assert_eq!(enter(&limits, millis(0), &user("ann")).unwrap().wait, Duration::ZERO);
}

#[test]
fn tokens_are_reserved_by_estimate_and_settled_by_use() {
    let tokens = |input, output| Tokens { input, cached: 0, output };
    for algorithm in [
        Algorithm::TokenBucket { burst: 1000, initial: None },
        Algorithm::SlidingWindow { sub_windows: 10 },
        Algorithm::FixedWindow,
    ] {
        let limits = Limits::new(&[Limit { cost: Cost::TotalTokens, ..with(algorithm, 1000) }], 1, millis(0));
        let now = millis(5000);
        let ask = |n| enter(&limits, now, &user("ann").estimated(tokens(n, 0)));
        let one = ask(600).unwrap();
        assert!((ask(500).unwrap_err().observed - 1100.0).abs() < 1e-9, "{algorithm:?}");
        limits.complete(now, one.held, Some(&tokens(100, 200)));
        let two = ask(700).unwrap();
        assert!(ask(1).is_err(), "{algorithm:?}");
        limits.complete(now, two.held, Some(&tokens(700, 300)));
        assert!((ask(1).unwrap_err().observed - 1301.0).abs() < 1e-9, "debt is in the way: {algorithm:?}");
        assert_eq!(ask(1001).unwrap_err().retry_after, Duration::MAX, "{algorithm:?}");
    }
}

#[test]
fn an_unfinished_request_gets_back_what_it_has_not_used() {
    let rule =
        Limit { cost: Cost::TotalTokens, ..with(Algorithm::TokenBucket { burst: 100, initial: None }, 100) };
    let limits = Limits::new(&[rule], 1, millis(0));
    let ask =
        || enter(&limits, millis(0), &user("ann").estimated(Tokens { input: 90, cached: 0, output: 0 }));
    limits.cancel(ask().unwrap().held);
    limits.complete(millis(0), ask().unwrap().held, Some(&Tokens::default()));
    limits.complete(millis(0), ask().unwrap().held, None);
    assert!(ask().is_err(), "where nobody has counted, the estimate stands");
}

#[test]
fn a_stream_is_exhausted_when_what_it_lacks_is_not_there_and_its_limit_ends_streams() {
    let used = |output| Tokens { input: 100, cached: 0, output };
    let rule = |mode, on_exhausted| Limit {
        cost: Cost::TotalTokens,
        mode,
        on_exhausted,
        ..with(Algorithm::FixedWindow, 1000)
    };
    let exhausted = |rule: Limit, output| {
        let limits = Limits::new(&[rule], 1, millis(0));
        let held = enter(&limits, millis(0), &user("ann").estimated(used(200))).unwrap().held;
        let named = limits.exhausted(millis(0), &held, &used(output));
        assert_eq!(limits.status(millis(0))[0].refused, u64::from(named.is_some()));
        limits.complete(millis(0), held, Some(&used(200)));
        named.is_some()
    };
    let ends = || rule(Mode::Enforce, OnExhausted::EndStream);
    assert!(!exhausted(ends(), 200), "all of it was reserved");
    assert!(!exhausted(ends(), 900), "the rest is there");
    assert!(exhausted(ends(), 901), "one is not");
    assert!(!exhausted(rule(Mode::Enforce, OnExhausted::Finish), 901));
    assert!(!exhausted(rule(Mode::Shadow, OnExhausted::EndStream), 901));
    assert!(!exhausted(Limit { cost: Cost::Requests, ..ends() }, 901));
}

#[test]
fn buckets_that_begin_empty_fill_up_from_the_beginning_of_the_rule_and_not_of_the_key() {
    let cold = with(Algorithm::TokenBucket { burst: 10, initial: Some(2) }, 10);
    let limits = Limits::new(std::slice::from_ref(&cold), 1, millis(5000));
    let passed = |limits: &Limits, at, name: &str| {
        (0..20).filter(|_| enter(limits, millis(at), &user(name)).is_ok()).count()
    };
    assert_eq!(passed(&limits, 5000, "ann"), 2);
    assert_eq!(passed(&limits, 5500, "bob"), 7);
    assert_eq!(passed(&limits, 5900, "cid"), 10);
    let next = limits.succeed(&[Limit { limit: 11, ..cold }], millis(6000));
    assert_eq!(passed(&next, 6000, "dan"), 10, "a change of numbers is no new beginning");
}

proptest! {
    /// Law: a refusal leaves every later verdict as it would have been without it.
    #[test]
    fn a_refusal_leaves_every_later_verdict_unchanged(
        requests in proptest::collection::vec((0u64..300, 0u8..3), 1..300),
    ) {
        let rules = [window("pod", 6, vec![]), bucket("user", 3, 2, by_user()), window("slow", 4, by_user())];
        let (all, admitted_only) = (Limits::new(&rules, 1, millis(0)), Limits::new(&rules, 1, millis(0)));
        let mut now = 5000;
        for (gap, name) in requests {
            now += gap;
            let request = user(&name.to_string());
            if admit(&all, millis(now), &request).is_ok() {
                prop_assert!(admit(&admitted_only, millis(now), &request).is_ok());
            } else {
                prop_assert!(!would_pass(&admitted_only, millis(now), &request));
            }
        }
    }

    /// Law: with several rules, Retry-After is the first instant at which the request passes.
    #[test]
    fn retry_after_is_exact_over_several_rules(
        requests in proptest::collection::vec((0u64..100, 0u8..3), 1..200),
    ) {
        let rules = [window("pod", 6, vec![]), bucket("user", 3, 2, by_user())];
        let limits = Limits::new(&rules, 1, millis(0));
        let mut now = 5000;
        for (gap, name) in requests {
            now += gap;
            let request = user(&name.to_string());
            if let Err(refusal) = admit(&limits, millis(now), &request) {
                let at = millis(now) + refusal.retry_after;
                let just_before = Tick::from_nanos(at.as_nanos() - 1);
                prop_assert!(!would_pass(&limits, just_before, &request));
                prop_assert!(would_pass(&limits, at, &request));
            }
        }
    }

    #[test]
    fn every_rule_holds_in_every_trailing_window(
        requests in proptest::collection::vec((0u64..200, 0u8..3), 1..300),
    ) {
        let limits = Limits::new(&[window("pod", 9, vec![]), window("user", 4, by_user())], 1, millis(0));
        let mut logs: [VecDeque<u64>; 4] = Default::default();
        let mut now = 5000;
        for (gap, name) in requests {
            now += gap;
            if admit(&limits, millis(now), &user(&name.to_string())).is_ok() {
                for (log, limit) in [(3, 9), (name as usize, 4)] {
                    logs[log].push_back(now);
                    logs[log].retain(|&t| t + 1000 > now);
                    prop_assert!(logs[log].len() <= limit);
                }
            }
        }
    }
}

#[test]
fn a_limit_neither_counts_nor_refuses_requests_that_it_is_not_for() {
    let of = |tier: &str, most: u64| Limit {
        when: vec![tidegate_policy::Condition {
            of: tidegate_policy::Subject::JwtClaim("tier".to_owned()),
            is: tidegate_policy::Match::In(vec![tier.to_owned()]),
        }],
        ..bucket(tier, most, most, by_user())
    };
    let limits = Limits::new(&[of("gold", 3), of("silver", 1)], 1, millis(0));
    let now = millis(5000);
    let (gold, silver) = (user("ann").claiming("tier", &["gold"]), user("ann").claiming("tier", &["silver"]));
    for _ in 0..3 {
        assert!(admit(&limits, now, &gold).is_ok());
    }
    assert_eq!(admit(&limits, now, &gold).unwrap_err().rule.name, "gold");
    assert!(admit(&limits, now, &silver).is_ok(), "nothing of hers as silver is spent");
    assert_eq!(admit(&limits, now, &silver).unwrap_err().rule.name, "silver");
    for _ in 0..20 {
        assert!(admit(&limits, now, &user("ann")).is_ok(), "no limit is for her without a tier");
    }
    let next = limits.succeed(&[of("gold", 3), Limit { when: vec![], ..of("silver", 1) }], now);
    assert_eq!(admit(&next, now, &user("ann")).unwrap_err().rule.name, "silver", "counted as before");
}
