use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tidegate_policy::stream::PolicyEvent;

use crate::authority::Authority;
use crate::engine::Engine;
use crate::operator::Operator;
use crate::sidecar::{Answer, Sidecar, eventually, get};

const TOKEN: &str = "0123456789abcdef";
const PATH: &str = "/drain/0123456789abcdef";

fn hold(sidecar: &Sidecar) -> JoinHandle<Option<Answer>> {
    let admin = sidecar.admin;
    let held = thread::spawn(move || get(admin, PATH, &[]));
    sidecar.await_status("draining", |status| status["draining"] == true);
    held
}

fn reason(answer: JoinHandle<Option<Answer>>) -> String {
    let answer = answer.join().unwrap().unwrap();
    assert_eq!(answer.status, 200);
    let body: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    body["reason"].as_str().unwrap().to_owned()
}

#[test]
fn only_the_right_token_drains() {
    let sidecar = Sidecar::start(Engine::start().address, &["--drain-token", TOKEN]);
    for path in ["/drain/0123456789abcdee", "/drain/", "/drain", "/drain/0123456789abcdef0"] {
        assert_eq!(sidecar.admin(path).unwrap().status, 404, "{path}");
    }
    assert_eq!(sidecar.status()["draining"], false);
    let none = Sidecar::start(Engine::start().address, &[]);
    assert_eq!(none.admin("/drain/").unwrap().status, 404);
}

#[test]
fn without_the_token_the_admin_port_changes_nothing() {
    let sidecar = Sidecar::start(Engine::start().address, &["--drain-token", TOKEN]);
    let before = sidecar.status();
    let paths = [
        "/",
        "/live",
        "/ready",
        "/metrics",
        "/throttle/status",
        "/drain",
        "/drain/0",
        "/shutdown",
        "/policy",
    ];
    for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
        for path in paths.iter().chain(&[PATH]) {
            let mut stream = std::net::TcpStream::connect(sidecar.admin).unwrap();
            let request = format!(
                "{method} {path} HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{{}}"
            );
            std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
            let mut answer = String::new();
            std::io::Read::read_to_string(&mut stream, &mut answer).unwrap();
            assert!(answer.starts_with("HTTP/1.1 405 "), "{method} {path}: {answer}");
        }
    }
    for path in paths {
        sidecar.admin(path).unwrap();
    }
    let after = sidecar.status();
    for part in ["revision", "policySource", "draining", "limits", "tiers"] {
        assert_eq!(after[part], before[part], "{part}");
    }
}

#[test]
fn with_an_operator_it_is_held_until_endpoints_are_withdrawn_and_nothing_is_in_flight() {
    let operator = Operator::start(&Authority::new());
    let engine = Engine::start();
    let arguments = operator.arguments();
    let mut arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    arguments.extend(["--drain-token", TOKEN, "--drain-deadline", "5m"]);
    let sidecar = Sidecar::start(engine.address, &arguments);
    sidecar.await_status("a stream", |status| status["operatorConnected"] == true);
    engine.close_gate();
    let data = sidecar.data;
    let request = thread::spawn(move || get(data, "/", &[]));
    eventually("the request at the engine", || (engine.waiting() == 1).then_some(()));
    let held = hold(&sidecar);
    operator.send(PolicyEvent::Endpoints { withdrawn: true });
    // A later event of the same stream shows that the one before was obeyed.
    let marker = tidegate_policy::PolicyDocument { revision: "marker".to_owned(), ..Default::default() };
    operator.send_document(&marker);
    sidecar.await_status("the marker", |status| status["revision"] == "marker");
    assert!(!held.is_finished(), "a request is in flight");
    engine.open_gate();
    let answer = request.join().unwrap().unwrap();
    assert_eq!(answer.status, 200);
    assert!(answer.head.to_ascii_lowercase().contains("connection: close"), "{}", answer.head);
    assert_eq!(reason(held), "EndpointsWithdrawn");
}

#[test]
fn without_an_operator_it_is_held_until_no_request_came_for_five_seconds() {
    let sidecar =
        Sidecar::start(Engine::start().address, &["--drain-token", TOKEN, "--drain-deadline", "5m"]);
    let held = hold(&sidecar);
    // From before the last of them: when it reached the sidecar nobody knows here.
    let last = eventually("a second of requests", {
        let begin = Instant::now();
        let data = sidecar.data;
        move || {
            let last = Instant::now();
            assert_eq!(get(data, "/", &[]).unwrap().status, 200, "requests are served while draining");
            (begin.elapsed() > Duration::from_secs(1)).then_some(last)
        }
    });
    assert_eq!(reason(held), "Quiet");
    assert!(last.elapsed() >= Duration::from_millis(4900), "{:?}", last.elapsed());
}

#[test]
fn clients_of_the_admin_port_that_say_or_read_nothing_keep_nobody_from_his_answer() {
    const FLOOD: usize = 400;
    let sidecar =
        Sidecar::start(Engine::start().address, &["--drain-token", TOKEN, "--drain-deadline", "5m"]);
    let held = hold(&sidecar);
    let asks = "GET /metrics HTTP/1.1\r\nhost: a\r\n\r\n".repeat(100);
    let mut stuck = Vec::new();
    for number in 0..FLOOD {
        let mut stream = std::net::TcpStream::connect(sidecar.admin).unwrap();
        // One of those that were there first may be gone by now.
        let _ = std::io::Write::write_all(&mut stream, if number % 2 == 0 { b"" } else { asks.as_bytes() });
        stuck.push(stream);
        if number % 50 == 0 {
            assert_eq!(sidecar.admin("/live").unwrap().status, 200, "beside {number}");
        }
    }
    assert_eq!(sidecar.admin("/ready").unwrap().status, 503, "draining");
    assert_eq!(reason(held), "Quiet", "a drain that is held is not pushed out");
    drop(stuck);
}

#[test]
fn the_deadline_ends_it_with_requests_in_flight() {
    let engine = Engine::start();
    let sidecar = Sidecar::start(engine.address, &["--drain-token", TOKEN, "--drain-deadline", "500ms"]);
    engine.close_gate();
    let data = sidecar.data;
    let request = thread::spawn(move || get(data, "/", &[]));
    eventually("the request at the engine", || (engine.waiting() == 1).then_some(()));
    assert_eq!(reason(hold(&sidecar)), "Deadline");
    engine.open_gate();
    assert_eq!(request.join().unwrap().unwrap().status, 200);
}
