use std::collections::VecDeque;
use std::time::Duration;

use proptest::prelude::*;
use tidegate_policy::{Algorithm, HeaderName, Millis};

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
        algorithm: Algorithm::TokenBucket { burst },
        limit,
        window_millis: Millis::new(1000).unwrap(),
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
    let mut judged = Judged::new();
    limits.judge(now, PriorityClass::Medium, &request.facts(), &mut judged)?;
    limits.commit(now, PriorityClass::Medium, &mut judged)
}

/// Whether the request would pass, without spending.
fn would_pass(limits: &Limits, now: Tick, request: &Request) -> bool {
    limits.judge(now, PriorityClass::Medium, &request.facts(), &mut Judged::new()).is_ok()
}

#[test]
fn the_rule_with_the_longest_wait_decides_and_is_named() {
    let limits = Limits::new(&[bucket("fast", 100, 1, vec![]), bucket("slow", 2, 1, by_user())], 1);
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
    let limits = Limits::new(&[bucket("pod", 1, 10, vec![]), bucket("user", 1, 1, by_user())], 1);
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
    let limits = Limits::new(&[shadow], 1);
    let now = millis(5000);
    assert_eq!(admit(&limits, now, &user("ann")), Ok(None));
    let refusal = admit(&limits, now, &user("ann")).unwrap().unwrap();
    assert_eq!(refusal.retry_after, Duration::from_secs(1));
    assert_eq!(limits.status()[0].refused, 1);
    assert_eq!(
        admit(&limits, millis(6000), &user("ann")),
        Ok(None),
        "what it would refuse it does not count"
    );
}

#[test]
fn a_raised_limit_holds_at_once_and_the_counters_stay() {
    let limits = Limits::new(&[window("user", 5, by_user())], 1);
    let now = millis(5000);
    for _ in 0..5 {
        admit(&limits, now, &user("ann")).unwrap();
    }
    assert!(admit(&limits, now, &user("ann")).is_err());
    let raised = limits.succeed(&[window("user", 7, by_user())], now);
    assert!(admit(&raised, now, &user("ann")).is_ok());
    assert!(admit(&raised, now, &user("ann")).is_ok());
    assert!(admit(&raised, now, &user("ann")).is_err());
    assert_eq!(raised.status()[0].refused, 2);
}

#[test]
fn a_window_keeps_its_counters_when_its_length_changes() {
    let limits = Limits::new(&[window("user", 5, by_user())], 1);
    let now = millis(5000);
    for _ in 0..4 {
        admit(&limits, now, &user("ann")).unwrap();
    }
    let longer = Limit { window_millis: Millis::new(60_000).unwrap(), ..window("user", 5, by_user()) };
    let longer = limits.succeed(&[longer], now);
    assert!(admit(&longer, now, &user("ann")).is_ok());
    assert!(admit(&longer, millis(30_000), &user("ann")).is_err());
}

#[test]
fn another_key_or_algorithm_is_another_rule() {
    let limits = Limits::new(&[bucket("user", 1, 1, by_user())], 1);
    let now = millis(5000);
    admit(&limits, now, &user("ann")).unwrap();
    for next in [bucket("user", 1, 1, vec![]), window("user", 1, by_user())] {
        assert!(admit(&limits.succeed(&[next], now), now, &user("ann")).is_ok());
    }
}

proptest! {
    /// Law: a refusal leaves every later verdict as it would have been without it.
    #[test]
    fn a_refusal_leaves_every_later_verdict_unchanged(
        requests in proptest::collection::vec((0u64..300, 0u8..3), 1..300),
    ) {
        let rules = [window("pod", 6, vec![]), bucket("user", 3, 2, by_user()), window("slow", 4, by_user())];
        let (all, admitted_only) = (Limits::new(&rules, 1), Limits::new(&rules, 1));
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
        let limits = Limits::new(&rules, 1);
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
        let limits = Limits::new(&[window("pod", 9, vec![]), window("user", 4, by_user())], 1);
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
