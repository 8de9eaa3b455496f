use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tidegate_policy::PolicyDocument;

use crate::nobody::nobody;
use crate::policy_file::File;
use crate::sidecar::{PATIENCE, Sidecar, eventually};

/// Takes events, and answers them if it is told to.
fn hook(answers: bool) -> (SocketAddr, mpsc::Receiver<Value>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, events) = mpsc::channel();
    thread::spawn(move || {
        let mut kept = Vec::new();
        for stream in listener.incoming().map_while(Result::ok) {
            let mut reader = BufReader::new(stream);
            let mut head = Vec::new();
            // A sidecar that has given it up may have left.
            while !head.ends_with(b"\r\n\r\n") && reader.read_until(b'\n', &mut head).unwrap_or(0) > 0 {}
            if !head.ends_with(b"\r\n\r\n") {
                continue;
            }
            let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
            assert!(head.starts_with("post /events http/1.1\r\n"), "{head}");
            assert!(head.contains("content-type: application/cloudevents+json\r\n"), "{head}");
            let length = head.split("content-length: ").nth(1).unwrap().split('\r').next().unwrap();
            let mut body = vec![0; length.parse().unwrap()];
            if reader.read_exact(&mut body).is_err() {
                continue;
            }
            let _ = sender.send(serde_json::from_slice(&body).unwrap());
            if answers {
                let _ = reader.get_mut().write_all(b"HTTP/1.1 204 No Content\r\n\r\n");
            } else {
                kept.push(reader);
            }
        }
    });
    (address, events)
}

/// How long hooks have to answer.
const PATIENCE_WITH_HOOKS: Duration = Duration::from_millis(200);

#[test]
fn hooks_are_told_that_a_breaker_opened_and_no_request_waits_for_one() {
    // A machine that does something else meanwhile says nothing about the sidecar: one of several times is enough.
    assert!((0..5).any(|_| is_told_in_time()), "a request waits for hooks, or not all of them are told");
}

/// Whether the last request that a breaker let pass and the first that it refused took less time together than hooks may,
/// and each hook was told in its time.
fn is_told_in_time() -> bool {
    let hooks = [
        ("audit", true, "Sync"),
        ("stuck", false, "Sync"),
        ("chat", true, "Async"),
        ("lost", false, "Async"),
    ];
    let started: Vec<_> = hooks.iter().map(|(_, answers, _)| hook(*answers)).collect();
    let mut document = serde_json::to_value(PolicyDocument::default()).unwrap();
    document["breaker"] = json!({
        "policy": "shop/pay", "mode": "Enforce", "trip": {"consecutiveFailures": {"count": 2}},
        "openMillis": 3_600_000, "halfOpen": {"probes": 1},
        "hooks": hooks.iter().zip(&started).map(|((name, _, mode), (address, _))| json!({
            "name": name, "url": format!("http://{address}/events"), "mode": mode, "on": ["Opened"],
        })).collect::<Vec<_>>(),
    });
    let file = File::new(&document.to_string());
    let nobody = nobody();
    let sidecar = Sidecar::start(nobody, &["--policy-file", &file.path().display().to_string()]);
    sidecar.await_status("the breaker", |status| status["breaker"]["state"] == "Closed");
    let ask = || sidecar.request("/", &[]).unwrap().status;
    assert_eq!(ask(), 502);
    let began = Instant::now();
    assert_eq!([ask(), ask()], [502, 503], "in force before any hook has heard of it");
    let took = began.elapsed();
    let mut all_told = true;
    for ((name, answers, mode), (_, events)) in hooks.iter().zip(&started) {
        let mode = mode.to_lowercase();
        let outcome = eventually(name, || {
            ["delivered", "timed_out"].into_iter().find(|outcome| {
                let labels = format!("hook=\"{name}\",mode=\"{mode}\",outcome=\"{outcome}\"");
                sidecar.metric(&format!("tidegate_hooks_total{{{labels}}}")) >= Some(1.0)
            })
        });
        // Who did not answer may not even have been asked in time.
        let patience = if outcome == "delivered" { PATIENCE } else { Duration::from_secs(1) };
        let Ok(event) = events.recv_timeout(patience) else {
            assert_eq!(outcome, "timed_out", "{name} was not told");
            all_told = false;
            continue;
        };
        assert_eq!(
            (&event["type"], &event["subject"]),
            (&json!("dev.tidegate.breaker.opened"), &json!("shop/pay"))
        );
        assert_eq!(
            (&event["data"]["from"], &event["data"]["to"]),
            (&json!("closed"), &json!("open")),
            "{name}"
        );
        assert_eq!(event["data"]["reason"], "consecutive_failures_2");
        assert!(*answers || outcome == "timed_out", "{name} has not answered");
        all_told &= *answers == (outcome == "delivered");
    }
    all_told && took < PATIENCE_WITH_HOOKS
}
