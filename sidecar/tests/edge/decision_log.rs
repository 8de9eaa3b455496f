//! Lines about decisions.

use serde_json::{Value, json};
use tidegate_policy::PolicyDocument;

use crate::engine::Engine;
use crate::nobody::nobody;
use crate::policy_file::{File, one_request};
use crate::sidecar::Sidecar;

const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn start(file: &File, upstream: std::net::SocketAddr, more: &[&str]) -> Sidecar {
    let path = file.path().display().to_string();
    let mut arguments = vec!["--policy-file", path.as_str()];
    arguments.extend(more);
    let sidecar = Sidecar::start(upstream, &arguments);
    sidecar.await_status("the document", |status| status["revision"] == "r1");
    sidecar
}

fn decision(sidecar: &Sidecar, verdict: &str) -> Value {
    sidecar.line("a decision", |line| line["verdict"] == verdict)
}

#[test]
fn a_rejection_is_one_line_with_who_what_and_how_much_and_nothing_secret() {
    let engine = Engine::start();
    let sidecar = start(&File::new(&one_request("r1")), engine.address, &["--service-name=llama"]);
    let headers = [
        ("traceparent", TRACEPARENT),
        ("x-request-id", "r-1"),
        ("authorization", "Bearer secret"),
        ("x-api-key", "secret"),
    ];
    for status in [200, 429] {
        assert_eq!(sidecar.request("/v1/completions?key=secret", &headers).unwrap().status, status);
    }
    let line = decision(&sidecar, "refused");
    for (field, value) in [
        ("level", json!("INFO")),
        ("event", json!("rate_limit_rejected")),
        ("service", json!("llama")),
        ("client_ip", json!("127.0.0.1")),
        ("request_id", json!("r-1")),
        ("trace_id", json!("4bf92f3577b34da6a3ce929d0e0e4736")),
        ("limit_quota", json!(1.0)),
        ("current_usage", json!(2.0)),
        ("decision", json!("REFUSED")),
        ("cause", json!("limit")),
        ("reason", json!("limit_2_over_1")),
        ("policy", json!("tests/one")),
        ("rule", json!("one")),
        ("observed", json!(2.0)),
        ("limit", json!(1.0)),
        ("priority", json!("medium")),
        ("route", json!("/v1/completions")),
        ("dropped", json!(0)),
    ] {
        assert_eq!(line[field], value, "{field}");
    }
    assert!(line["timestamp"].as_str().is_some_and(|time| time.ends_with('Z')));
    assert!(sidecar.lines().iter().all(|line| !line.to_string().contains("secret")));
}

#[test]
fn an_open_breaker_says_why_it_opened() {
    let nobody = nobody();
    let mut document = serde_json::to_value(PolicyDocument::default()).unwrap();
    document["revision"] = "r1".into();
    document["breaker"] = json!({
        "policy": "shop/pay", "mode": "Enforce",
        "trip": {"errorRatio": {"threshold": 0.5, "windowMillis": 30_000, "minimumRequests": 4}},
        "openMillis": 3_600_000, "halfOpen": {"probes": 1},
    });
    let sidecar = start(&File::new(&document.to_string()), nobody, &["--log-admitted=1"]);
    for status in [502, 502, 502, 502, 503] {
        assert_eq!(sidecar.request("/", &[]).unwrap().status, status);
    }
    let admitted = decision(&sidecar, "admitted");
    assert_eq!((&admitted["decision"], &admitted["event"]), (&json!("ALLOWED"), &json!("decision")));
    let line = decision(&sidecar, "refused");
    assert_eq!(line["decision"], "OPEN");
    assert_eq!(line["reason"], sidecar.status()["breaker"]["lastTriggerReason"]);
    assert!(line["reason"].as_str().unwrap().contains("100%_in_30s"), "{line}");
    assert_eq!(line["event"], "decision", "a breaker is no limit of rate");
    assert_eq!(line["limit_quota"], Value::Null);
}

#[test]
fn a_fallback_is_one_line_that_says_which_and_in_place_of_what() {
    let nobody = nobody();
    let mut document = serde_json::to_value(PolicyDocument::default()).unwrap();
    document["revision"] = "r1".into();
    let remote = json!({"url": format!("http://{nobody}/")});
    document["breaker"] = json!({
        "policy": "shop/pay", "mode": "Enforce", "trip": {"consecutiveFailures": {"count": 1}},
        "openMillis": 3_600_000, "halfOpen": {"probes": 1},
        "fallbacks": {"on": ["Open", "ConnectFailure"], "to": [
            {"send": remote}, {"static": {"status": 200, "contentType": "text/plain", "body": "later"}}]},
    });
    let sidecar = start(&File::new(&document.to_string()), nobody, &[]);
    for _ in 0..2 {
        assert_eq!(sidecar.request("/", &[]).unwrap().status, 200);
    }
    let of_cause = |cause: &str| sidecar.line("a decision", |line| line["cause"] == cause);
    let (failed, open) = (of_cause("engine-failed"), of_cause("breaker-open"));
    for line in [&failed, &open] {
        assert_eq!((&line["verdict"], &line["fallback"]), (&json!("fallback"), &json!("static")), "{line}");
    }
    assert_eq!((&failed["decision"], &open["decision"]), (&json!("ALLOWED"), &json!("OPEN")));
    document["breaker"]["fallbacks"]["to"].as_array_mut().unwrap().truncate(1);
    let sidecar = start(&File::new(&document.to_string()), nobody, &[]);
    let refused = [(); 2].map(|()| sidecar.request("/", &[]).unwrap());
    assert_eq!(refused.each_ref().map(|answer| answer.status), [502, 503]);
    let reason = refused[1].header("x-tidegate-reason").unwrap();
    assert!(reason.ends_with("; fallback=failed"), "{reason}");
    assert_eq!(sidecar.line("a decision", |line| line["cause"] == "breaker-open")["fallback"], "none");
}

const DAY: usize = 24 * 3600;

#[test]
fn a_flood_of_refusals_is_no_flood_of_lines() {
    let engine = Engine::start();
    let sidecar = start(&File::new(&one_request("r1")), engine.address, &[]);
    let mut refused = 0;
    std::thread::scope(|scope| {
        let floods: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| (0..250).filter(|_| sidecar.request("/", &[]).unwrap().status == 429).count())
            })
            .collect();
        refused = floods.into_iter().map(|flood| flood.join().unwrap()).sum();
    });
    assert!(refused > 900);
    let lines =
        || sidecar.lines().into_iter().filter(|line| line["verdict"] == "refused").collect::<Vec<_>>();
    crate::sidecar::eventually("the log to be read", || (lines().len() >= 100).then_some(()));
    let told = lines();
    let first = told.first().unwrap()["timestamp"].as_str().unwrap().to_owned();
    let last = told.last().unwrap()["timestamp"].as_str().unwrap().to_owned();
    let number = |time: &str, at: usize| time[at..at + 2].parse::<usize>().unwrap();
    let seconds = |time: &str| 60 * (60 * number(time, 11) + number(time, 14)) + number(time, 17);
    // A hundred in a second; how many seconds it took is the machine's to say.
    let span = (DAY + seconds(&last) - seconds(&first)) % DAY + 2;
    assert!(told.len() <= 100 * span, "{} lines in {span} s", told.len());
    let mut all = 0;
    crate::sidecar::eventually("the count of what was left out", || {
        // One more in each second, so that somebody tells it.
        let _ = sidecar.request("/", &[]);
        all = lines().iter().map(|line| 1 + line["dropped"].as_u64().unwrap_or(0)).sum::<u64>();
        (all >= refused as u64).then_some(())
    });
}
