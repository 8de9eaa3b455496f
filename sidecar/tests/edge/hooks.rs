use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc;
use std::thread;

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

#[test]
fn hooks_are_told_that_a_breaker_opened_and_who_does_not_answer_is_given_up() {
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
        "openMillis": 100, "halfOpen": {"probes": 1},
        "hooks": hooks.iter().zip(&started).map(|((name, _, mode), (address, _))| json!({
            "name": name, "url": format!("http://{address}/events"), "mode": mode, "on": ["Opened"],
        })).collect::<Vec<_>>(),
    });
    let file = File::new(&document.to_string());
    let nobody = nobody();
    let sidecar = Sidecar::start(nobody, &["--policy-file", &file.path().display().to_string()]);
    sidecar.await_status("the breaker", |status| status["breaker"]["state"] == "Closed");
    let asked = |name: &str, mode: &str, outcome: &str| {
        let labels = format!("hook=\"{name}\",mode=\"{}\",outcome=\"{outcome}\"", mode.to_lowercase());
        sidecar.metric(&format!("tidegate_hooks_total{{{labels}}}")).unwrap_or_default() as u64
    };
    for ((name, answers, mode), (_, events)) in hooks.iter().zip(&started) {
        // Its probes fail: it opens again and again, and each time is told.
        let outcome = if *answers { "delivered" } else { "timed_out" };
        eventually(name, || {
            sidecar.request("/", &[]).unwrap();
            (asked(name, mode, outcome) > 0).then_some(())
        });
        assert!(*answers || asked(name, mode, "delivered") == 0, "{name} has not answered");
        let event = events.recv_timeout(PATIENCE).unwrap();
        assert_eq!(
            (&event["type"], &event["subject"]),
            (&json!("dev.tidegate.breaker.opened"), &json!("shop/pay"))
        );
        assert_eq!(event["data"]["to"], "open", "{name}");
        if event["data"]["from"] == "closed" {
            assert_eq!(event["data"]["reason"], "consecutive_failures_2");
        }
    }
}
