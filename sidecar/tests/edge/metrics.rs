use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::thread;

use serde_json::{Value, json};
use tidegate_gpu::{DeviceReading, DeviceReport, GpuReport};
use tidegate_policy::report::Status;

use crate::agent::Agent;
use crate::authority::Authority;
use crate::nobody::nobody;
use crate::sidecar::{Sidecar, eventually};

const DOCS: &str = include_str!("../../../docs/metrics.md");

/// The example of RFC 8037.
const KEY: &str = r#"{"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;

const LOAD: &str = "vllm:num_requests_running 3\nvllm:num_requests_waiting 1\nvllm:kv_cache_usage_perc 0.2\n\
                    vllm:num_preemptions_total 4\n";

/// An engine that tells its load, streams three events and fails where it is asked to.
fn engine() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                let mut request = String::new();
                while let Some(Ok(line)) = lines.next() {
                    if request.is_empty() {
                        request = line;
                    } else if line.is_empty() {
                        let _ = stream.write_all(answer(&std::mem::take(&mut request)).as_bytes());
                    }
                }
            });
        }
    });
    address
}

fn answer(request: &str) -> String {
    let events = "data: a\n\ndata: b\n\ndata: [DONE]\n\n";
    let (status, kind, body) = match request.split(' ').nth(1).unwrap_or_default() {
        "/metrics" => ("200 OK", "text/plain", LOAD),
        "/v1/embeddings" => {
            ("200 OK", "application/json", r#"{"usage": {"prompt_tokens": 7, "total_tokens": 7}}"#)
        }
        "/v1/completions" => ("500 Internal Server Error", "text/plain", "no"),
        _ => ("200 OK", "text/event-stream", events),
    };
    let length = body.len();
    let timing = "server-timing: attention;dur=1";
    format!("HTTP/1.1 {status}\r\ncontent-type: {kind}\r\n{timing}\r\ncontent-length: {length}\r\n\r\n{body}")
}

/// A document with everything that has a metric.
fn document() -> Value {
    json!({
        "apiVersion": "policy.tidegate.dev/v1", "revision": "r1",
        "tiers": {
            "policy": "shop/llama", "mode": "Enforce",
            "qps": {"sampleIntervalMillis": 1000, "windowMillis": 60_000, "max": 1000.0},
            "gpuMemory": {"source": "Auto", "maxUtilization": 0.75, "staleAfterMillis": 10_000,
                "onStale": "Ignore",
                "kvCache": {"maxUsage": 0.9, "staleAfterMillis": 10_000, "onStale": "Ignore"}},
            "latency": {"signal": "TotalLatency", "percentile": 0.99, "periodMillis": 1000, "periods": 3,
                "minimumSamples": 1, "learned": {"factor": 100.0, "minimumPeriods": 1}, "maxMillis": 60_000},
            "recovery": {"belowRatio": 0.8, "holdMillis": 1000, "rampMillis": 1000},
        },
        "identity": {"policy": "shop/llama", "jwt": [{"issuer": "https://b", "algorithms": ["EdDSA"],
            "keys": {"inline": json!({"keys": [KEY.parse::<Value>().unwrap()]}).to_string()}}]},
        "concurrency": {"policy": "shop/llama", "mode": "Enforce", "initial": 20, "min": 4, "max": 1000,
            "latency": "TotalLatency", "algorithm": "static"},
        "queue": {"policy": "shop/llama", "mode": "Enforce", "maxLength": 100, "timeoutMillis": 1000,
            "tenant": []},
        "limits": [
            {"policy": "shop/llama", "name": "all", "mode": "Enforce", "key": [], "limit": 5,
                "algorithm": {"tokenBucket": {"burst": 5}}, "windowMillis": 3_600_000},
            {"policy": "shop/llama", "name": "per-user", "mode": "Enforce", "key": [{"jwtClaim": "sub"}, {"header": "x-user"}],
                "algorithm": {"tokenBucket": {"burst": 4}}, "limit": 4, "windowMillis": 3_600_000},
        ],
        "breaker": {
            "policy": "shop/pay", "mode": "Enforce",
            "trip": {"errorRatio": {"threshold": 0.9, "windowMillis": 30_000, "minimumRequests": 20}},
            "per": {"key": [{"header": "x-canary"}], "max": 8},
            "stages": [{"stage": "attention", "overMillis": 800, "outOfMemory": {"count": 3, "windowMillis": 60_000}}],
            "openMillis": 60_000, "halfOpen": {"probes": 1},
        },
    })
}

/// Names of the metrics in a scrape, as they are queried: counters with their suffix.
fn names(scrape: &str) -> BTreeSet<String> {
    let types = scrape.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    types.map(|(name, kind)| format!("{name}{}", if kind == "counter" { "_total" } else { "" })).collect()
}

/// Every name of a member in a document of JSON.
fn members(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            found.extend(object.keys().cloned());
            object.values().for_each(|value| members(value, found));
        }
        Value::Array(list) => list.iter().for_each(|value| members(value, found)),
        _ => {}
    }
}

/// Names in the first column of the sidecar's table.
fn documented() -> BTreeSet<String> {
    let section = DOCS.split("\n## ").find(|section| section.starts_with("Sidecar: `/metrics`")).unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.split(" |").next());
    rows.flat_map(|names| names.split('`').step_by(2))
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

struct Scene {
    sidecar: Sidecar,
    file: PathBuf,
    _folder: tempfile::TempDir,
    _agent: Agent,
}

impl Scene {
    /// Puts the document in force.
    fn write(&self, document: &Value, revision: &str) {
        std::fs::write(&self.file, document.to_string()).unwrap();
        self.sidecar.await_status("the document", |status| status["revision"] == revision);
    }
}

fn scene(more: &[&str]) -> Scene {
    let agent = Agent::start(&Authority::new());
    let device = |i: usize, reading| DeviceReport { uuid: format!("GPU-{i}"), shared: false, reading };
    let memory = DeviceReading::Memory { used_bytes: 30, total_bytes: 100, age_millis: 0 };
    agent.report(&GpuReport { devices: vec![device(0, memory)] });
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("policy.json");
    std::fs::write(&file, document().to_string()).unwrap();
    let mut arguments = agent.arguments();
    arguments.extend(["--policy-file".to_owned(), file.display().to_string()]);
    let mut arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    arguments.extend(more);
    let sidecar = Sidecar::start(engine(), &arguments);
    sidecar.await_status("the document", |status| status["revision"] == "r1");
    eventually("the load", || sidecar.metric("tidegate_engine_requests_waiting"));
    eventually("GPU memory", || sidecar.metric("tidegate_gpu_memory_used_bytes").filter(|used| *used > 0.0));
    let lost = DeviceReading::Unavailable("GPU is lost".to_owned());
    agent.report(&GpuReport { devices: vec![device(0, lost)] });
    eventually("a failed reading", || sidecar.metric("tidegate_gpu_errors_total{reason=\"device\"}"));
    Scene { sidecar, file, _folder: folder, _agent: agent }
}

#[test]
fn every_metric_is_documented_and_every_documented_one_is_there() {
    let scene = scene(&[]);
    let sidecar = &scene.sidecar;
    let bearer = ("authorization", "Bearer not.a.token");
    for user in ["a", "b", "c", "d", "e"] {
        let headers = [("x-canary", "b"), ("x-user", user), bearer];
        let answer = sidecar.request("/v1/chat/completions", &headers).unwrap();
        assert_eq!(answer.status, 200);
    }
    assert_eq!(sidecar.request("/v1/chat/completions", &[]).unwrap().status, 429);
    eventually("an estimate", || sidecar.metric("tidegate_latency_p95_seconds{estimate=\"window\"}"));
    let mut exported = names(&sidecar.admin("/metrics").unwrap().body);
    // Of breakers by the value of a key no single ratio is told.
    let mut document = document();
    document["revision"] = "r2".into();
    document["breaker"].as_object_mut().unwrap().remove("per");
    document["breaker"]["fallbacks"] = json!({"on": ["Failure"], "to": [{"static": {"status": 200, "contentType": "text/plain", "body": "later"}}]});
    document["breaker"]["trip"]["consecutiveFailures"] = json!({"count": 1});
    let nobody = nobody();
    document["breaker"]["hooks"] =
        json!([{"name": "pager", "url": format!("http://{nobody}/"), "mode": "Async", "on": ["Opened"]}]);
    document["limits"] = json!([{"policy": "shop/llama", "name": "tokens", "mode": "Enforce", "key": [],
        "limit": 1_000_000, "cost": "totalTokens", "algorithm": "fixedWindow", "windowMillis": 3_600_000}]);
    scene.write(&document, "r2");
    for path in ["/v1/embeddings", "/v1/completions"] {
        assert_eq!(sidecar.request(path, &[]).unwrap().status, 200, "{path}");
    }
    let used = "gen_ai_client_token_usage_count";
    for name in [used, "tidegate_hooks_total"] {
        eventually(name, || sidecar.admin("/metrics").unwrap().body.contains(name).then_some(()));
    }
    exported.extend(names(&sidecar.admin("/metrics").unwrap().body));
    let documented = documented();
    let missing = |a: &BTreeSet<String>, b: &BTreeSet<String>| a.difference(b).cloned().collect::<Vec<_>>();
    assert_eq!(missing(&exported, &documented), [""; 0], "exported and not in docs/metrics.md");
    assert_eq!(missing(&documented, &exported), [""; 0], "in docs/metrics.md and not exported");
}

#[test]
fn the_status_page_has_all_of_the_core_s_snapshot_and_every_field_is_documented() {
    let scene = scene(&[]);
    let sidecar = &scene.sidecar;
    assert_eq!(sidecar.request("/v1/chat/completions", &[]).unwrap().status, 200);
    // Less than is in use: the tier trips with its next reading.
    let mut document = document();
    document["revision"] = "r2".into();
    document["tiers"]["gpuMemory"]["kvCache"]["maxUsage"] = json!(0.1);
    for limit in document["limits"].as_array_mut().unwrap() {
        let many = json!(1_000_000 * limit["limit"].as_u64().unwrap());
        (limit["limit"], limit["algorithm"]["tokenBucket"]["burst"]) = (many.clone(), many);
    }
    scene.write(&document, "r2");
    let page = sidecar.await_status("a tripped tier, and a value of each", |page| {
        // Latencies are known for some seconds: there have to be more of them.
        sidecar.request("/v1/chat/completions", &[]).unwrap();
        let tiers = page["tiers"].as_array().unwrap();
        tiers.iter().any(|tier| tier["state"] == "Tripped") && tiers.iter().all(|tier| tier["value"].is_f64())
    });
    let status: Status = serde_json::from_value(page.clone()).unwrap();
    let Value::Object(snapshot) = serde_json::to_value(&status).unwrap() else { panic!("an object") };
    for (field, value) in &snapshot {
        assert_eq!(&page[field], value, "{field} is told as the core tells it");
    }
    assert_eq!(status.tiers.len(), 3);
    for tier in page["tiers"].as_array().unwrap() {
        for field in ["state", "value", "threshold", "unit", "pressure", "policy", "mode"] {
            assert!(!tier[field].is_null(), "{field} of {tier}");
        }
        if tier["state"] == "Tripped" {
            for field in ["lastTriggerReason", "lastTriggeredMillisAgo", "recoveryCountdownMillis", "signals"]
            {
                assert!(!tier[field].is_null(), "{field} of {tier}");
            }
        }
    }
    for part in [
        "engine",
        "breaker",
        "concurrency",
        "queue",
        "limits",
        "version",
        "policySource",
        "operatorConnected",
    ] {
        assert!(!page[part].is_null(), "{part}");
    }
    let section = DOCS.split("\n## ").find(|section| section.starts_with("`/throttle/status`")).unwrap();
    let mut fields = BTreeSet::new();
    members(&page, &mut fields);
    let missing: Vec<_> = fields.iter().filter(|field| !section.contains(&format!("`{field}`"))).collect();
    assert_eq!(missing, [""; 0], "in the page and not in docs/metrics.md");
}

#[test]
fn refusals_and_what_generating_took_are_counted_under_the_names_of_the_conventions() {
    let scene = scene(&["--max-client-labels", "4"]);
    let sidecar = &scene.sidecar;
    for user in ["a", "b", "c"] {
        assert_eq!(sidecar.request("/v1/chat/completions?debug", &[("x-user", user)]).unwrap().status, 200);
    }
    assert_eq!(sidecar.request("/v1/completions", &[]).unwrap().status, 500);
    let remaining = r#"bucket_remaining_gauge{route="/v1/chat/completions"}"#;
    assert_eq!(sidecar.metric(remaining), Some(1.0), "one of five is left");
    assert_eq!(sidecar.request("/nowhere/in/particular", &[]).unwrap().status, 200);
    for path in ["/v1/chat/completions", "/v1/chat/completions", "/made-up"] {
        assert_eq!(sidecar.request(path, &[]).unwrap().status, 429);
    }
    let chat = r#"gen_ai_operation_name="chat",gen_ai_provider_name="openai""#;
    let text = r#"gen_ai_operation_name="text_completion",gen_ai_provider_name="openai",error_type="5xx""#;
    for (series, value) in [
        (r#"rate_limited_total{route="/v1/chat/completions",client_ip="127.0.0.1"}"#.to_owned(), 2.0),
        (r#"rate_limited_total{route="other",client_ip="127.0.0.1"}"#.to_owned(), 1.0),
        (remaining.to_owned(), 0.0),
        (
            r#"tidegate_decisions_total{decision="refused",policy="shop/llama",rule="all",priority="medium",reason="limit"}"#
                .to_owned(),
            3.0,
        ),
        (r#"tidegate_limit_size{policy="shop/llama",rule="all"}"#.to_owned(), 5.0),
        (r#"tidegate_limit_remaining{policy="shop/llama",rule="all"}"#.to_owned(), 0.0),
        (format!("gen_ai_server_request_duration_seconds_count{{{chat}}}"), 3.0),
        (format!("gen_ai_server_request_duration_seconds_count{{{text}}}"), 1.0),
        (format!("gen_ai_server_time_to_first_token_seconds_count{{{chat}}}"), 3.0),
        (format!("gen_ai_server_time_per_output_token_seconds_count{{{chat}}}"), 3.0),
    ] {
        // An answer is counted when it is over, and its client may know that first.
        eventually(&series, || (sidecar.metric(&series) == Some(value)).then_some(()));
    }
}
