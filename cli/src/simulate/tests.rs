use tidegate_policy::{PolicyDocument, PriorityClass};

use super::replay::{Record, Replay};
use super::trace::{self, Request};
use crate::command_line::ModelArguments;

const MODEL: ModelArguments =
    ModelArguments { batch: 64, prefill_rate: 8000.0, token_time: 20.0, cache_tokens: 200_000 };

fn document(json: &str) -> PolicyDocument {
    PolicyDocument::from_json(json.as_bytes()).unwrap()
}

fn without_policy() -> PolicyDocument {
    PolicyDocument::default()
}

/// `rate` small requests per second for `seconds`, with all classes among them.
fn steady(rate: u64, seconds: u64) -> Vec<Request> {
    let rows = (0..rate * seconds).map(|i| format!("{},10,5\n", i as f64 / rate as f64));
    trace::parse(&rows.collect::<String>()).unwrap()
}

fn replay(document: &PolicyDocument, requests: &[Request], model: ModelArguments) -> Record {
    Replay::new(document, requests, model).run()
}

fn count(record: &Record, decision: &str, class: PriorityClass) -> u64 {
    let matching =
        |((text, of), _): &(&(String, PriorityClass), &u64)| text.starts_with(decision) && *of == class;
    record.decisions.iter().filter(matching).map(|(_, count)| count).sum()
}

fn total(record: &Record, decision: &str) -> u64 {
    [PriorityClass::High, PriorityClass::Medium, PriorityClass::Low]
        .map(|class| count(record, decision, class))
        .iter()
        .sum()
}

#[test]
fn without_a_policy_every_request_is_answered() {
    let record = replay(&without_policy(), &steady(10, 5), MODEL);
    assert_eq!(total(&record, "admitted"), 50);
    assert_eq!((record.first_token.len(), record.total.len()), (50, 50));
    assert!(record.total.iter().zip(&record.first_token).all(|(total, first)| total > first));
}

#[test]
fn the_same_trace_gives_the_same_record() {
    let requests = steady(50, 10);
    let table = |()| super::table::of(&replay(&without_policy(), &requests, MODEL));
    assert_eq!(table(()), table(()));
}

#[test]
fn a_static_cap_refuses_low_and_passes_high() {
    let capped = document(
        r#"{
          "apiVersion": "policy.tidegate.dev/v1", "revision": "r",
          "priority": {"from": [{"header": "x-priority"}], "default": "Medium", "reservedHigh": 0.2,
                       "highAllowedFrom": [{"cidr": "10.0.0.0/8"}]},
          "tiers": {"policy": "ns/a", "mode": "Enforce", "recovery": {"belowRatio": 0.9, "holdMillis": 10000},
                    "qps": {"sampleIntervalMillis": 1000, "windowMillis": 300000, "max": 20}}
        }"#,
    );
    let record = replay(&capped, &steady(100, 30), MODEL);
    assert_eq!(count(&record, "refused", PriorityClass::High), 0);
    assert!(count(&record, "refused: qps-tier", PriorityClass::Low) > 400, "{:#?}", record.decisions);
    assert_eq!(record.trips.get("qps"), Some(&1));
}

#[test]
fn a_shadow_policy_refuses_nobody_and_says_whom_it_would() {
    let shadow = document(
        r#"{
          "apiVersion": "policy.tidegate.dev/v1", "revision": "r",
          "limits": [{"policy": "ns/a", "name": "all", "mode": "Shadow", "key": [],
                      "algorithm": {"tokenBucket": {"burst": 5}}, "limit": 1, "windowMillis": 60000}]
        }"#,
    );
    let record = replay(&shadow, &steady(10, 5), MODEL);
    assert_eq!(total(&record, "admitted"), 50);
    assert_eq!(total(&record, "admitted, in Shadow mode: limit (ns/a all)"), 45);
}

#[test]
fn an_engine_that_is_too_slow_runs_into_the_timeout_and_opens_the_breaker() {
    let breaker = document(
        r#"{
          "apiVersion": "policy.tidegate.dev/v1", "revision": "r",
          "breaker": {"policy": "ns/b", "mode": "Enforce", "trip": {"consecutiveFailures": {"count": 5}},
                      "openMillis": 60000, "halfOpen": {"probes": 1}, "timeoutMillis": 100,
                      "fallback": {"path": "/busy"}}
        }"#,
    );
    let slow = ModelArguments { token_time: 500.0, ..MODEL };
    let record = replay(&breaker, &steady(10, 10), slow);
    assert!(record.timed_out >= 5);
    assert_eq!(record.breaker_opened, 1);
    assert!(total(&record, "fallback: breaker-open") > 80, "{:#?}", record.decisions);
    assert_eq!(record.total.len(), 0);
}

#[test]
fn a_fuller_batch_is_slower_and_fills_the_gpu() {
    let requests = steady(100, 10);
    let calm = replay(&without_policy(), &steady(1, 10), MODEL);
    let busy = replay(&without_policy(), &requests, ModelArguments { batch: 4, cache_tokens: 1000, ..MODEL });
    let worst = |record: &Record| record.total.iter().max().copied().unwrap();
    assert!(worst(&busy) > 2 * worst(&calm), "{:?} {:?}", worst(&busy), worst(&calm));
    assert!(busy.gpu_peak > calm.gpu_peak);
}
