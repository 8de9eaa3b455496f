use std::io::Write as _;
use std::time::Duration;

use k8s_openapi::jiff::tz::TimeZone;
use tidegate_policy::PolicyDocument;

use super::log::Log;
use super::report::{ByClass, Report};
use super::{plot, replay, table};
use crate::command_line::{Arguments, Command, SimulateArguments};

fn arguments(more: &[&str]) -> SimulateArguments {
    let words = ["kubectl-tidegate", "simulate", "-f", "policy.yaml", "--log", "log.csv"];
    let parsed = <Arguments as clap::Parser>::parse_from(words.iter().chain(more));
    match parsed.command {
        Command::Simulate(arguments) => arguments,
        other => panic!("{other:?}"),
    }
}

fn document(rules: &str) -> PolicyDocument {
    let json = format!(r#"{{"apiVersion": "policy.tidegate.dev/v1", "revision": "r" {rules}}}"#);
    PolicyDocument::from_json(json.as_bytes()).unwrap()
}

fn open(text: &str) -> Log {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    Log::open(file.path(), TimeZone::UTC).unwrap()
}

fn simulate(rules: &str, log: &str, more: &[&str]) -> Report {
    replay(&document(rules), &open(log), &arguments(more)).unwrap()
}

/// A log of these lines.
fn lines(lines: impl Iterator<Item = String>) -> String {
    lines.fold(String::new(), |text, line| text + &line + "\n")
}

/// `rate` small requests per second for `seconds`, with all classes among them.
fn steady(rate: u64, seconds: u64) -> String {
    lines((0..rate * seconds).map(|i| format!("{},10,5", i as f64 / rate as f64)))
}

/// Requests of the decisions that begin so.
fn count(report: &Report, decision: &str) -> ByClass {
    let rows = report.decisions.iter().filter(|row| row.label().starts_with(decision));
    rows.fold(ByClass::default(), |sum, row| ByClass {
        high: sum.high + row.requests.high,
        medium: sum.medium + row.requests.medium,
        low: sum.low + row.requests.low,
    })
}

const CAP: &str = r#",
  "priority": {"from": [{"header": "x-priority"}], "default": "Medium", "reservedHigh": 0.2,
               "highAllowedFrom": [{"cidr": "10.0.0.0/8"}]},
  "tiers": {"policy": "ns/a", "mode": "Enforce", "recovery": {"belowRatio": 0.9, "holdMillis": 10000},
            "qps": {"sampleIntervalMillis": 1000, "windowMillis": 300000, "max": 20}}"#;

const PER_KEY: &str = r#",
  "limits": [{"policy": "ns/a", "name": "per-key", "mode": "Enforce", "key": [{"header": "x-api-key"}],
              "algorithm": {"tokenBucket": {"burst": 5}}, "limit": 1, "windowMillis": 60000}]"#;

const BREAKER: &str = r#",
  "breaker": {"policy": "ns/b", "mode": "Enforce", "trip": {"consecutiveFailures": {"count": 5}},
              "openMillis": 60000, "halfOpen": {"probes": 1}, "timeoutMillis": 100, "fallback": {"path": "/busy"}}"#;

#[test]
fn without_a_policy_every_request_is_answered() {
    let report = simulate("", &steady(10, 5), &[]);
    assert_eq!(count(&report, "admitted").all(), 50);
    assert!(report.latencies[1].p50 > report.latencies[0].p50);
}

#[test]
fn a_key_of_the_log_is_kept_though_another_could_claim_high() {
    let claimed = CAP.replace(r#"{"cidr": "10.0.0.0/8"}"#, r#"{"header": "x-api-key", "value": "alice"}"#);
    let log = lines((0..20).map(|i| format!("{},{},high", i * 100, if i < 10 { "alice" } else { "bob" })));
    let report = simulate(&format!("{claimed}{PER_KEY}"), &format!("time,key,priority\n{log}"), &[]);
    let admitted = count(&report, "admitted");
    assert_eq!((admitted.high, admitted.medium), (10, 10), "{:#?}", report.decisions);
}

#[test]
fn the_same_log_gives_the_same_report_and_plot() {
    let once = || simulate(CAP, &steady(50, 30), &[]);
    let told = |report: &Report| (table::of(report), plot::of(report).unwrap());
    assert_eq!(told(&once()), told(&once()));
}

#[test]
fn a_static_cap_refuses_low_and_passes_high() {
    let report = simulate(CAP, &steady(100, 30), &[]);
    assert_eq!(count(&report, "refused").high, 0);
    assert!(count(&report, "refused: qps-tier").low > 400, "{:#?}", report.decisions);
    assert_eq!((report.tiers[0].name, report.tiers[0].trips), ("qps", 1));
    assert!(report.series.points.iter().any(|point| point.shedding == ["qps"]));
}

#[test]
fn steps_over_time_add_up_to_the_decisions() {
    let report = simulate(CAP, &steady(100, 30), &["--step", "0.7"]);
    assert_eq!(report.series.points.len(), 43);
    for (i, row) in report.decisions.iter().enumerate() {
        let sum: u64 = report.series.points.iter().map(|point| point.requests[i].all()).sum();
        assert_eq!(sum, row.requests.all(), "{}", row.label());
    }
}

#[test]
fn a_shadow_policy_refuses_nobody_and_says_whom_it_would() {
    let shadow = PER_KEY.replace("Enforce", "Shadow").replace(r#"{"header": "x-api-key"}"#, "");
    let report = simulate(&shadow, &steady(10, 5), &[]);
    assert_eq!(count(&report, "admitted").all(), 50);
    assert_eq!(count(&report, "admitted, in Shadow mode: limit (ns/a per-key)").all(), 45);
}

#[test]
fn the_key_column_is_the_key_that_a_limit_counts_by() {
    let rows = (0..30).map(|i| format!("{}.5,{}", i, if i % 3 == 0 { "bob" } else { "alice" }));
    let log = format!("time,key\n{}", lines(rows));
    let report = simulate(PER_KEY, &log, &["--top", "1"]);
    let keys: Vec<_> =
        report.keys.iter().map(|row| (row.key.as_str(), row.requests, row.admitted, row.refused)).collect();
    assert_eq!(keys, [("x-api-key=alice", 20, 5, 15), ("all other keys", 10, 5, 5)]);
    assert!(report.notes.iter().any(|note| note.starts_with("no tokens in the log")), "{:?}", report.notes);
    assert!(!report.notes.iter().any(|note| note.starts_with("no key")), "{:?}", report.notes);
}

#[test]
fn a_column_named_as_a_header_is_that_header_and_others_are_told() {
    let rows = (0..30).map(|i| format!("{i},k{},x,high", i % 2));
    let log = format!("time,X-Api-Key,x-colour,x-priority\n{}", lines(rows));
    let report = simulate(PER_KEY, &log, &[]);
    assert_eq!(report.keys.iter().map(|row| row.admitted).collect::<Vec<_>>(), [5, 5]);
    assert!(report.notes.contains(&"columns that nothing reads: x-colour".to_owned()), "{:?}", report.notes);
    assert_eq!(count(&report, "admitted").medium, 10, "nobody may claim high");
}

#[test]
fn a_column_named_as_a_claim_is_that_claim() {
    let by_claim = PER_KEY.replace(r#"{"header": "x-api-key"}"#, r#"{"jwtClaim": "Sub"}"#);
    assert_ne!(by_claim, PER_KEY);
    let rows = (0..30).map(|i| format!("{i},k{}", i % 2));
    let report = simulate(&by_claim, &format!("time,jwt.Sub\n{}", lines(rows)), &[]);
    assert_eq!(report.keys.iter().map(|row| row.admitted).collect::<Vec<_>>(), [5, 5]);
    assert!(report.keys.iter().all(|row| row.key.starts_with("Sub=k")), "{:?}", report.keys);
}

#[test]
fn an_engine_that_is_too_slow_runs_into_the_timeout_and_opens_the_breaker() {
    let report = simulate(BREAKER, &steady(10, 10), &["--token-time", "500"]);
    assert!(report.timed_out >= 5);
    assert_eq!(report.breaker.as_ref().unwrap().trips, 1);
    assert!(count(&report, "fallback: breaker-open").all() > 80, "{:#?}", report.decisions);
    assert_eq!(report.latencies[1].worst, None);
}

#[test]
fn recorded_answers_are_the_engines_answers() {
    let breaker = BREAKER.replace(r#""timeoutMillis": 100, "#, "");
    let rows = (0..20).map(|i| format!("{i},{},0.25,0.5", if i < 10 { 200 } else { 500 }));
    let log = format!("time,status,ttft,total\n{}20,,,\n", lines(rows));
    let report = simulate(&breaker, &log, &[]);
    assert_eq!(report.latencies[0].p99.map(|seconds| (seconds * 100.0).round()), Some(25.0));
    assert_eq!(count(&report, "fallback: breaker-open").all(), 6, "after five failures");
    assert_eq!(report.gpu_memory_peak, None);
    let note = "1 requests have no latencies: each is answered as the one before it";
    assert!(report.notes.contains(&note.to_owned()), "{:?}", report.notes);
}

#[test]
fn a_fuller_batch_is_slower_and_fills_the_gpu() {
    let calm = simulate("", &steady(1, 10), &[]);
    let busy = simulate("", &steady(100, 10), &["--batch", "4", "--cache-tokens", "1000"]);
    assert!(busy.latencies[1].worst.unwrap() > 2.0 * calm.latencies[1].worst.unwrap());
    assert!(busy.gpu_memory_peak > calm.gpu_memory_peak);
}

#[test]
fn speed_compresses_time() {
    let report = simulate("", &steady(1, 11), &["--speed", "10"]);
    assert!(report.seconds < Duration::from_secs(2).as_secs_f64(), "{}", report.seconds);
}

#[test]
fn a_step_that_would_fill_the_memory_is_refused() {
    let log = open("0,1,1\n31536000,1,1\n");
    let refused = replay(&document(""), &log, &arguments(&["--step", "0.001"])).unwrap_err();
    assert!(
        refused.lines().any(|line| line.starts_with("--step: 0.001 is out of range: write 315.36")),
        "{refused:?}"
    );
}
