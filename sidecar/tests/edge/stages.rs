//! Breakers of stages, from what a real engine's answers and metrics say to what a client and an operator see.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};

use crate::policy_file::File;
use crate::sidecar::{Sidecar, eventually};

/// Answers every request as it is told to, and tells its metrics beside.
#[derive(Clone, Default)]
struct Scripted(Arc<Mutex<Script>>);

#[derive(Default)]
struct Script {
    answer: String,
    exposition: String,
}

impl Scripted {
    fn start(answer: &str) -> (Self, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let scripted = Self::default();
        scripted.answer(answer);
        let shared = scripted.clone();
        thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let script = shared.clone();
                thread::spawn(move || {
                    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                    let mut scrape = false;
                    while let Some(Ok(line)) = lines.next() {
                        scrape |= line.starts_with("GET /metrics ");
                        if line.is_empty() {
                            let answer = script.next(std::mem::take(&mut scrape));
                            let _ = stream.write_all(answer.as_bytes());
                        }
                    }
                });
            }
        });
        (scripted, address)
    }

    fn next(&self, scrape: bool) -> String {
        let script = self.0.lock().unwrap();
        if !scrape {
            return script.answer.clone();
        }
        let text = &script.exposition;
        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len())
    }

    fn answer(&self, answer: &str) {
        answer.clone_into(&mut self.0.lock().unwrap().answer);
    }

    /// A histogram of vLLM's times of this stage, of which so many took up to 0.5 s and up to 2 s.
    fn times(&self, stage: &str, fast: u64, all: u64) {
        let name = format!("vllm:request_{stage}_time_seconds");
        self.0.lock().unwrap().exposition = format!(
            "vllm:num_requests_running 1\n{name}_bucket{{le=\"0.5\",model_name=\"a\"}} {fast}\n\
             {name}_bucket{{le=\"2.0\",model_name=\"a\"}} {all}\n{name}_bucket{{le=\"+Inf\",model_name=\"a\"}} {all}\n"
        );
    }
}

/// Before an engine, under a breaker of this stage alone.
fn start(engine: SocketAddr, stages: &Value) -> (Sidecar, File) {
    let document = json!({
        "apiVersion": "policy.tidegate.dev/v1", "revision": "r1",
        "breaker": {"policy": "shop/pay", "mode": "Enforce", "openMillis": 600_000, "halfOpen": {"probes": 1},
            "stages": stages},
    });
    let file = File::new(&document.to_string());
    let sidecar = Sidecar::start(engine, &["--policy-file", &file.path().display().to_string()]);
    (sidecar, file)
}

fn stage(sidecar: &Sidecar, i: usize) -> Value {
    sidecar.status()["breaker"]["stages"][i].clone()
}

fn ask(sidecar: &Sidecar) -> u16 {
    sidecar.request("/v1/completions", &[]).unwrap().status
}

fn plain(timing: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nserver-timing: {timing}\r\ncontent-length: 2\r\n\r\nok")
}

#[test]
fn a_slow_stage_in_server_timing_refuses_requests_and_is_named() {
    let (engine, address) = Scripted::start(&plain("tokenizer;dur=1, attention;dur=100"));
    let stages = json!([{"stage": "attention", "overMillis": 800, "minimumRequests": 3},
        {"stage": "embedding", "overMillis": 800}]);
    let (sidecar, _file) = start(address, &stages);
    assert_eq!((ask(&sidecar), ask(&sidecar)), (200, 200));
    assert_eq!(stage(&sidecar, 0)["state"], "Closed");
    assert_eq!(stage(&sidecar, 1)["state"], "NoSignal", "nobody tells of it");
    assert_eq!(stage(&sidecar, 1)["signalAgeMillis"], Value::Null);
    engine.answer(&plain("attention;desc=\"all layers\";dur=900.5"));
    assert_eq!(ask(&sidecar), 200);
    let refused = sidecar.request("/v1/completions", &[]).unwrap();
    assert_eq!(refused.status, 503);
    let reason = refused.header("x-tidegate-reason").unwrap();
    assert!(reason.starts_with("breaker-open; ") && reason.contains("stages.attention.latency"), "{reason}");
    assert_eq!(stage(&sidecar, 0)["state"], "Open");
    assert_eq!(stage(&sidecar, 0)["lastTriggerReason"], "attention_p99_over_800ms_by_33%_in_30s");
    let open = "tidegate_breaker_stage_state{stage=\"attention\",state=\"open\"}";
    assert_eq!(sidecar.metric(open), Some(1.0));
    let line = sidecar.line("the decision", |line| line["rule"] == "stages.attention.latency");
    assert_eq!(line["decision"], "OPEN", "{line}");
    assert_eq!(line["reason"], "attention_p99_over_800ms_by_33%_in_30s", "{line}");
}

#[test]
fn times_of_a_stage_in_the_trailer_of_a_stream_count() {
    let body = "2\r\nok\r\n0\r\nserver-timing: decode;dur=900\r\n\r\n";
    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: server-timing\r\n\r\n";
    let (_engine, address) = Scripted::start(&format!("{head}{body}"));
    let stages = json!([{"stage": "decode", "overMillis": 800, "minimumRequests": 1}]);
    let (sidecar, _file) = start(address, &stages);
    assert_eq!(ask(&sidecar), 200);
    eventually("an open breaker", || (stage(&sidecar, 0)["state"] == "Open").then_some(()));
    assert_eq!(ask(&sidecar), 503);
}

#[test]
fn a_slow_stage_in_the_engines_own_histogram_refuses_requests() {
    for name in ["queue", "prefill", "decode"] {
        let (engine, address) = Scripted::start(&plain("x;dur=1"));
        engine.times(name, 0, 1000);
        let stages = json!([{"stage": name, "overMillis": 500, "minimumRequests": 5}]);
        let (sidecar, _file) = start(address, &stages);
        eventually("a signal", || (stage(&sidecar, 0)["state"] == "Closed").then_some(()));
        assert_eq!(ask(&sidecar), 200, "what was before the first reading is not known to be recent");
        engine.times(name, 10, 1010);
        eventually("ten times", || (stage(&sidecar, 0)["overRatio"] == 0.0).then_some(()));
        assert_eq!(ask(&sidecar), 200);
        engine.times(name, 10, 1020);
        eventually("an open breaker", || (stage(&sidecar, 0)["state"] == "Open").then_some(()));
        assert_eq!(ask(&sidecar), 503, "{name}");
    }
}

#[test]
fn an_engine_that_runs_out_of_memory_too_often_gets_no_more_requests() {
    let body = r#"{"error":{"message":"CUDA out of memory. Tried to allocate 350.00 MiB","type":"InternalServerError"}}"#;
    let length = body.len();
    let (engine, address) = Scripted::start(&format!(
        "HTTP/1.1 500 Internal Server Error\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    ));
    let stages = json!([{"stage": "attention", "outOfMemory": {"count": 3, "windowMillis": 300_000}}]);
    let (sidecar, _file) = start(address, &stages);
    assert_eq!((ask(&sidecar), ask(&sidecar)), (500, 500));
    eventually("both", || (stage(&sidecar, 0)["outOfMemory"] == 2).then_some(()));
    engine.answer("HTTP/1.1 500 Internal Server Error\r\ncontent-length: 5\r\n\r\nother");
    assert_eq!(ask(&sidecar), 500);
    let event = format!("data: {body}\n\n");
    let length = event.len();
    engine.answer(&format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: {length}\r\n\r\n{event}"
    ));
    assert_eq!(ask(&sidecar), 200);
    eventually("an open breaker", || (stage(&sidecar, 0)["state"] == "Open").then_some(()));
    assert_eq!(ask(&sidecar), 503);
    assert_eq!(stage(&sidecar, 0)["lastTriggerReason"], "attention_out_of_memory_3_in_300s");
}
