//! The engine simulator, over its sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use serde_json::{Value, json};
use tidegate_e2e::{
    engine::{
        Engine, EngineArgs,
        grpc::{LIVE, SERVER_LIVE},
    },
    harness::Http2,
    load::{self, Mix, Spec, client::Client, plan},
};

const DEADLINE: Duration = Duration::from_mins(1);

fn fast() -> EngineArgs {
    EngineArgs { time_scale: 0.1, ..EngineArgs::on_loopback() }
}

fn chat(engine: &Engine) -> String {
    format!("http://{}/v1/chat/completions", engine.address)
}

/// Sends `body` and returns the whole response as text.
fn exchange(address: SocketAddr, path: &str, body: &Value) -> String {
    let mut stream = open(address, path, body);
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

fn open(address: SocketAddr, path: &str, body: &Value) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let body = body.to_string();
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nhost: engine\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    stream
}

async fn off_thread<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(f).await.unwrap()
}

async fn order(engine: &Engine, path: &'static str, body: Value) {
    let control = engine.control;
    let answer = off_thread(move || exchange(control, path, &body)).await;
    assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
}

async fn get(address: SocketAddr, path: &'static str) -> String {
    off_thread(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: engine\r\nconnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    })
    .await
}

/// Polls until `condition` holds; panics with what was seen last.
async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> Result<(), String>) {
    let end = Instant::now() + DEADLINE;
    loop {
        match condition().await {
            Ok(()) => return,
            Err(seen) if Instant::now() > end => panic!("{what}: still {seen}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

async fn state(engine: &Engine) -> Value {
    let answer = get(engine.control, "/state").await;
    serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap()
}

#[tokio::test]
async fn a_stream_has_one_event_per_token_then_the_usage_then_done() {
    let engine = Engine::start(&fast()).await.unwrap();
    let body = json!({"messages": [{"role": "user", "content": "x".repeat(400)}], "max_tokens": 7, "stream": true,
        "stream_options": {"include_usage": true}});
    let address = engine.address;
    let answer = off_thread(move || exchange(address, "/v1/chat/completions", &body)).await;
    let events: Vec<&str> = answer.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
    assert_eq!(events.len(), 9, "{answer}");
    assert_eq!(events[8], "[DONE]");
    let chunk = |at: usize| serde_json::from_str::<Value>(events[at]).unwrap();
    assert_eq!(chunk(0)["object"], "chat.completion.chunk");
    assert_eq!(chunk(0)["choices"][0]["delta"]["role"], "assistant");
    assert_eq!(chunk(5)["choices"][0]["finish_reason"], Value::Null);
    assert_eq!(chunk(6)["choices"][0]["finish_reason"], "length");
    assert_eq!(chunk(7)["usage"], json!({"prompt_tokens": 100, "completion_tokens": 7, "total_tokens": 107}));
}

#[tokio::test]
async fn a_whole_answer_tells_its_usage() {
    let engine = Engine::start(&fast()).await.unwrap();
    let body = json!({"prompt": "hello", "prompt_tokens": 30, "max_tokens": 4});
    let address = engine.address;
    let answer = off_thread(move || exchange(address, "/v1/completions", &body)).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains(r#""text":"tidetidetidetide""#), "{answer}");
    assert!(answer.contains(r#""completion_tokens":4"#), "{answer}");
}

#[tokio::test]
async fn latency_rises_with_the_batch_and_a_full_cache_makes_requests_wait() {
    let args = EngineArgs { kv_blocks: 300, ..fast() };
    let engine = Engine::start(&args).await.unwrap();
    let served = async |rate: f64| {
        let plan = plan::constant(rate, Duration::from_secs(1), Mix::default(), 200, 30);
        let report = load::run(Spec::new(&chat(&engine), plan)).await.unwrap();
        assert_eq!(report.counts(None).served, report.samples.len(), "{}", report.table());
        report
    };
    // The fastest, whom nothing else on this machine held up.
    let calm = served(5.0).await.samples.iter().map(|sample| sample.total).min().unwrap();
    let busy = served(300.0).await.total(None).p50;
    assert!(busy > calm * 2, "{busy:?} under load, {calm:?} without");
    let metrics = get(engine.address, "/metrics").await;
    assert!(metrics.contains("vllm:time_to_first_token_seconds_count{"), "{metrics}");
    assert!(metrics.contains("vllm:num_preemptions_total{"), "{metrics}");
    assert!(metrics.contains("vllm:kv_cache_usage_perc{"), "{metrics}");
}

#[tokio::test]
async fn requests_over_the_cache_are_shown_as_waiting() {
    let args = EngineArgs { kv_blocks: 40, ..EngineArgs::on_loopback() };
    let engine = Engine::start(&args).await.unwrap();
    let address = engine.address;
    let body = json!({"prompt": "x", "prompt_tokens": 500, "max_tokens": 100, "stream": true});
    let streams: Vec<TcpStream> = (0..3).map(|_| open(address, "/v1/completions", &body)).collect();
    eventually("one runs, two wait", async || {
        let state = state(&engine).await;
        let expected = state["running"] == 1 && state["waiting"] == 2;
        if expected { Ok(()) } else { Err(state.to_string()) }
    })
    .await;
    drop(streams);
    eventually("the engine forgets clients that are gone", async || {
        let state = state(&engine).await;
        let idle = state["running"] == 0 && state["waiting"] == 0 && state["kvUsage"] == 0.0;
        if idle { Ok(()) } else { Err(state.to_string()) }
    })
    .await;
}

#[tokio::test]
async fn the_engine_fails_hangs_and_slows_down_as_it_is_told() {
    let engine = Engine::start(&fast()).await.unwrap();
    let four = || plan::constant(100.0, Duration::from_millis(40), Mix::default(), 10, 5);
    order(&engine, "/fail", json!({"status": 503, "ratio": 0.5})).await;
    let report = load::run(Spec::new(&chat(&engine), four())).await.unwrap();
    assert_eq!(report.statuses(), [(200, 2), (503, 2)].into());
    assert_eq!(report.counts(None).failed, 2, "without a reason it is a failure and no refusal");
    let address = engine.address;
    let fallback = off_thread(move || exchange(address, "/fallback/any", &json!({}))).await;
    assert!(fallback.contains("x-engine-fallback: true"), "{fallback}");

    order(&engine, "/reset", json!({})).await;
    order(&engine, "/hang", json!({"for_ms": 3000})).await;
    let report = load::run(Spec::new(&chat(&engine), four())).await.unwrap();
    assert_eq!(report.counts(None).served, 4);
    assert!(report.ttft(None).p50 > Duration::from_millis(200), "{:?}", report.ttft(None));

    // Each takes some 10 ms otherwise.
    order(&engine, "/slow", json!({"factor": 200})).await;
    let slow = load::run(Spec::new(&chat(&engine), four())).await.unwrap().total(None).p50;
    assert!(slow > Duration::from_secs(1), "{slow:?}");
}

#[tokio::test]
async fn out_of_memory_fails_all_requests_and_fills_the_gpu_which_otherwise_follows_the_cache() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("GPU-a.json");
    std::fs::write(&file, r#"{"uuid":"GPU-a","memoryTotal":1000000,"memoryUsed":0,"name":"sim"}"#).unwrap();
    let args = EngineArgs {
        gpu_dir: Some(dir.path().to_owned()),
        gpus: "GPU-a".to_owned(),
        kv_blocks: 100,
        // A stream that lasts longer than whatever else the machine does meanwhile.
        time_scale: 5.0,
        ..EngineArgs::on_loopback()
    };
    let engine = Engine::start(&args).await.unwrap();
    memory_is(&file, 400_000..=400_000).await;
    let body = json!({"prompt": "x", "prompt_tokens": 790, "max_tokens": 800, "stream": true});
    let mut stream = open(engine.address, "/v1/completions", &body);
    memory_is(&file, 675_000..=949_000).await;
    order(&engine, "/oom", json!({})).await;
    memory_is(&file, 1_000_000..=1_000_000).await;
    let rest = off_thread(move || {
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    })
    .await;
    assert!(rest.contains("CUDA out of memory") && !rest.contains("[DONE]"), "{rest}");
    assert!(get(engine.address, "/health").await.starts_with("HTTP/1.1 503"));
    order(&engine, "/reset", json!({})).await;
    order(&engine, "/gpu-memory", json!({"bytes": 123_456})).await;
    memory_is(&file, 123_456..=123_456).await;
    engine.stop().await;
    memory_is(&file, 0..=0).await;
}

async fn memory_is(file: &Path, range: std::ops::RangeInclusive<u64>) {
    eventually("GPU memory", async || {
        let gpu: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        assert_eq!(gpu["name"], "sim");
        let used = gpu["memoryUsed"].as_u64().unwrap();
        if range.contains(&used) { Ok(()) } else { Err(format!("{used}, not {range:?}")) }
    })
    .await;
}

#[tokio::test]
async fn a_wrong_order_is_answered_with_what_to_write() {
    let engine = Engine::start(&fast()).await.unwrap();
    let control = engine.control;
    let answer = off_thread(move || exchange(control, "/fail", &json!({"ratio": 2}))).await;
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("write a ratio"), "{answer}");
}

#[test]
fn sigterm_cuts_the_streams_and_ends_the_process() {
    let mut engine = Command::new(env!("CARGO_BIN_EXE_tidegate-e2e"))
        .args(["engine", "--listen", "127.0.0.1:0", "--control", "127.0.0.1:0"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(engine.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.split("http://").nth(1).unwrap().split(',').next().unwrap().parse().unwrap();
    let body = json!({"prompt": "x", "max_tokens": 5000, "stream": true});
    let mut stream = open(address, "/v1/completions", &body);
    let mut head = [0; 512];
    assert!(stream.read(&mut head).unwrap() > 0);
    rustix::process::kill_process(rustix::process::Pid::from_child(&engine), rustix::process::Signal::TERM)
        .unwrap();
    let mut rest = Vec::new();
    // A reset is as good a cut as an end.
    let _cut = stream.read_to_end(&mut rest);
    assert!(!rest.ends_with(b"0\r\n\r\n"), "the stream was ended in order");
    assert!(engine.wait().unwrap().success());
}

#[tokio::test]
async fn a_kept_connection_that_the_engine_closed_is_replaced_unnoticed() {
    let engine = Engine::start(&fast()).await.unwrap();
    let url = chat(&engine).parse().unwrap();
    let client = Client::new(&url).unwrap();
    let request = || {
        let body = json!({"messages": [], "max_tokens": 1}).to_string();
        Request::post("/v1/chat/completions").body(Full::new(Bytes::from(body))).unwrap()
    };
    assert_eq!(client.send(request()).await.unwrap().status, 200);
    assert_eq!(client.kept(), 1);
    let address = engine.address;
    engine.stop().await;
    let args = EngineArgs { listen: address, ..fast() };
    let _again = Engine::start(&args).await.unwrap();
    assert_eq!(client.send(request()).await.unwrap().status, 200);
}

#[tokio::test]
async fn http_2_and_a_call_of_grpc_are_answered_as_over_a_network() {
    let engine = Engine::start(&fast()).await.unwrap();
    let mut client = Http2::connect(&format!("http://{}", engine.address)).await.unwrap();
    let prompt = r#"{"model": "llama-sim", "prompt": "tide", "max_tokens": 3, "stream": true}"#;
    let (events, _) = client.post("/v1/completions", "application/json", prompt).await.unwrap();
    assert!(events.body().ends_with(b"data: [DONE]\n\n"), "{events:?}");
    let (live, trailers) = client.post(SERVER_LIVE, "application/grpc", vec![0; 5]).await.unwrap();
    assert_eq!((&live.body()[..], trailers["grpc-status"].as_bytes()), (&LIVE[..], &b"0"[..]));
}
