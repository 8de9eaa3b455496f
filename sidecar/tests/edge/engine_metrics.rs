use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::engine::Engine;
use crate::sidecar::{Sidecar, eventually};

/// Answers every request with one exposition, which can be changed.
struct Metrics {
    address: SocketAddr,
    text: Arc<Mutex<String>>,
}

impl Metrics {
    fn start(text: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let text = Arc::new(Mutex::new(text.to_owned()));
        let shared = Arc::clone(&text);
        thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let text = Arc::clone(&shared);
                thread::spawn(move || {
                    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                    while let Some(Ok(line)) = lines.next() {
                        if line.is_empty() {
                            let text = text.lock().unwrap().clone();
                            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", text.len());
                            let _ = stream.write_all((head + &text).as_bytes());
                        }
                    }
                });
            }
        });
        Self { address, text }
    }

    fn say(&self, text: &str) {
        text.clone_into(&mut self.text.lock().unwrap());
    }
}

const VLLM: &str = "vllm:num_requests_running{engine=\"0\"} 3.0\nvllm:num_requests_waiting{engine=\"0\"} 90.0\n\
                    vllm:kv_cache_usage_perc{engine=\"0\"} 0.19\n";

fn load(sidecar: &Sidecar) -> serde_json::Value {
    sidecar.status()["engine"].clone()
}

#[test]
fn the_engines_own_load_is_followed_and_told_with_its_age() {
    let metrics = Metrics::start(VLLM);
    let sidecar = Sidecar::start(metrics.address, &[]);
    eventually("the load", || (load(&sidecar)["waiting"] == 90).then_some(()));
    assert_eq!(load(&sidecar)["kvCacheUsage"], 0.19);
    assert_eq!(load(&sidecar)["preemptions"], serde_json::Value::Null);
    assert_eq!(sidecar.metric("tidegate_engine_requests_running"), Some(3.0));
    assert_eq!(sidecar.metric("tidegate_engine_preemptions_total"), None, "what is not told is no zero");
    metrics.say("vllm:num_requests_waiting 7\n");
    eventually("the next load", || (load(&sidecar)["waiting"] == 7).then_some(()));
    metrics.say("nothing 1\n");
    eventually("an error", || {
        (sidecar.metric("tidegate_engine_metrics_errors_total") >= Some(1.0)).then_some(())
    });
    assert_eq!(load(&sidecar)["waiting"], 7, "the last reading stays, and grows old");
    sidecar.line("the loss", |line| {
        line["message"].as_str().is_some_and(|message| message.contains("metrics are unknown"))
    });
}

#[test]
fn a_port_of_its_own_and_the_kind_of_engine_can_be_named() {
    let engine = Engine::start();
    let metrics = Metrics::start("nv_inference_pending_request_count 4\nvllm:num_requests_waiting 90\n");
    let port = format!("--engine-metrics={}", metrics.address.port());
    let sidecar = Sidecar::start(engine.address, &[&port, "--engine-type=triton"]);
    eventually("the load", || (load(&sidecar)["waiting"] == 4).then_some(()));
}
