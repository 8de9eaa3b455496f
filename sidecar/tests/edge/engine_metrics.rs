use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};

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

fn load(sidecar: &Sidecar) -> Value {
    sidecar.status()["engine"].clone()
}

#[test]
fn the_engines_own_load_is_followed_and_told_with_its_age() {
    let metrics = Metrics::start(VLLM);
    let sidecar = Sidecar::start(metrics.address, &[]);
    eventually("the load", || (load(&sidecar)["waiting"] == 90).then_some(()));
    assert_eq!(load(&sidecar)["kvCacheUsage"], 0.19);
    assert_eq!(load(&sidecar)["preemptions"], Value::Null);
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

#[test]
fn every_engine_is_known_by_its_own_names() {
    let vllm = "vllm:num_requests_waiting 5\nvllm:num_requests_running 3\nvllm:gpu_cache_usage_perc 0.5\n";
    let sglang = "sglang:num_queue_reqs 5\nsglang:num_running_reqs 3\nsglang:token_usage 0.5\n";
    let tgi = "tgi_queue_size 5\ntgi_batch_current_size 3\n";
    let trtllm =
        "trtllm_num_requests_waiting 5\ntrtllm_num_requests_running 3\ntrtllm_kv_cache_utilization 0.5\n";
    let triton_trtllm = "nv_inference_pending_request_count{model=\"e\"} 99\n\
        nv_trt_llm_request_metrics{request_type=\"waiting\"} 5\n\
        nv_trt_llm_request_metrics{request_type=\"scheduled\"} 3\n\
        nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=\"fraction\"} 0.5\n";
    let triton = "nv_inference_pending_request_count 5\nnv_inference_exec_count 1000\n";
    for (text, running, used) in [
        (vllm, json!(3), json!(0.5)),
        (sglang, json!(3), json!(0.5)),
        (tgi, json!(3), Value::Null),
        (trtllm, json!(3), json!(0.5)),
        (triton_trtllm, json!(3), json!(0.5)),
        (triton, Value::Null, Value::Null),
    ] {
        let metrics = Metrics::start(text);
        let sidecar = Sidecar::start(metrics.address, &[]);
        let told = eventually(text, || Some(load(&sidecar)).filter(|load| load["waiting"] == 5));
        assert_eq!((&told["running"], &told["kvCacheUsage"]), (&running, &used), "{text}");
    }
}

#[test]
fn what_the_engine_no_longer_tells_grows_stale() {
    const CALM: &str = "vllm:num_requests_waiting 0\nvllm:kv_cache_usage_perc 0.19\n";
    let metrics = Metrics::start(CALM);
    let document = json!({
        "apiVersion": "policy.tidegate.dev/v1", "revision": "r1",
        "tiers": {
            "policy": "shop/llama", "mode": "Enforce",
            "gpuMemory": {"source": "KvCache", "staleAfterMillis": 10_000, "onStale": "Ignore",
                "kvCache": {"maxUsage": 0.9, "staleAfterMillis": 3000, "onStale": "Ignore"}},
            "recovery": {"belowRatio": 0.8, "holdMillis": 1000},
        },
    });
    let file = crate::policy_file::File::new(&document.to_string());
    let sidecar = Sidecar::start(metrics.address, &["--policy-file", &file.path().display().to_string()]);
    let tier = |state: &str| {
        let page = sidecar.await_status(state, |page| page["tiers"][0]["state"] == state);
        page["tiers"][0].clone()
    };
    assert_eq!(tier("Normal")["value"], 0.19);
    metrics.say("nothing 1\n");
    let stale = tier("Stale");
    assert!(stale["staleReason"].as_str().unwrap().starts_with("no engine reading "), "{stale}");
    metrics.say(CALM);
    assert_eq!(tier("Normal")["staleReason"], Value::Null);
}
