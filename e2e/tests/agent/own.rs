//! The sidecar in a container that was given GPUs itself, as a claim of dynamic resource allocation gives them: its own
//! binary, the simulated library loaded by the real NVML path, and requests that the GPU tier judges.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use serde_json::{Value, json};
use tidegate_e2e::harness::{Http, eventually};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};

use crate::node::{Driver, GIB, driver_of, gpu};
use crate::process::built;

/// Readings come every two seconds, and a stale one is seen after another five.
const PATIENCE: Duration = Duration::from_mins(1);

/// A running sidecar. It ends with this value.
struct Sidecar {
    _child: Child,
    _dir: tempfile::TempDir,
    log: Arc<Mutex<Vec<Value>>>,
    http: Http,
    data: String,
    admin: String,
}

impl Sidecar {
    /// Before an engine that always answers, under a GPU tier that does this when its signal is stale.
    async fn start(library: &Path, on_stale: &str) -> Self {
        Self::start_with(library, policy(on_stale, 5000)).await
    }

    /// The same where no signal is stale because the machine does something else for seconds.
    async fn start_patient(library: &Path) -> Self {
        Self::start_with(library, policy("Ignore", 60_000)).await
    }

    async fn start_with(library: &Path, policy: Value) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let document = dir.path().join("policy.json");
        std::fs::write(&document, policy.to_string()).expect("written");
        let mut child = Command::new(&built().sidecar)
            .args(["run", "--listen=127.0.0.1:0", "--admin=127.0.0.1:0", "--workers=1"])
            .arg(format!("--upstream={}", engine().await))
            .arg("--policy-file")
            .arg(document)
            .arg("--nvml")
            .arg(library)
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the sidecar starts");
        let log = Arc::new(Mutex::new(Vec::new()));
        let mut lines = BufReader::new(child.stderr.take().expect("a pipe")).lines();
        let written = Arc::clone(&log);
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                let line = serde_json::from_str(&line).unwrap_or(Value::String(line));
                written.lock().expect("log").push(line);
            }
        });
        let listening = line(&log, "its addresses", |line| line["message"] == "listening").await;
        let url = |field: &str| format!("http://{}", listening[field].as_str().expect("an address"));
        let (data, admin) = (url("listen"), url("admin"));
        let sidecar = Self { _child: child, _dir: dir, log, http: Http::default(), data, admin };
        sidecar.tier("a tier", |_| true).await;
        sidecar
    }

    /// The GPU tier, once it is as wanted.
    async fn tier(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let looked = eventually(what, PATIENCE, async || {
            let answer = self.http.get(&format!("{}/throttle/status", self.admin)).await;
            let answer = answer.map_err(|error| format!("{error:#}"))?;
            let status: Value = serde_json::from_str(&answer.body).map_err(|error| error.to_string())?;
            let tier = status["tiers"][0].clone();
            if tier.is_object() && wanted(&tier) { Ok(tier) } else { Err(format!("{status}")) }
        });
        looked.await.unwrap_or_else(|error| panic!("{error:#}: {:?}", self.log.lock().expect("log")))
    }

    /// A metric, once it is as wanted.
    async fn metric(&self, series: &str, wanted: impl Fn(f64) -> bool) {
        let looked = eventually(series, PATIENCE, async || {
            let answer = self.http.get(&format!("{}/metrics", self.admin)).await;
            let text = answer.map_err(|error| format!("{error:#}"))?.body;
            let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
            let value: f64 = value.unwrap_or("0").parse().map_err(|_| "no number".to_owned())?;
            if wanted(value) { Ok(()) } else { Err(value.to_string()) }
        });
        looked.await.unwrap_or_else(|error| panic!("{error:#}: {:?}", self.log.lock().expect("log")));
    }

    async fn is_gib(&self, used: u64, total: u64) {
        let is = |gib: u64| move |value: f64| (value - (gib * GIB) as f64).abs() < 1.0;
        self.metric("tidegate_gpu_memory_used_bytes", is(used)).await;
        self.metric("tidegate_gpu_memory_total_bytes", is(total)).await;
    }

    async fn line(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        line(&self.log, what, wanted).await
    }

    /// Why the memory is unknown, once the log says it of this.
    async fn unknown(&self, about: &str) {
        let is = |line: &Value| {
            let cause = line["cause"].as_str().unwrap_or_default();
            line["message"] == "GPU memory is unknown" && cause.contains(about)
        };
        self.line(about, is).await;
    }

    async fn status_of(&self, priority: &str) -> u16 {
        let url = format!("{}/v1/completions", self.data);
        let answer = self.http.send(http::Method::POST, &url, &[("x-priority", priority)], "{}").await;
        answer.expect("an answer").status.as_u16()
    }
}

async fn line(log: &Mutex<Vec<Value>>, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let found = eventually(what, PATIENCE, async || {
        let log = log.lock().expect("log");
        log.iter().find(|line| wanted(line)).cloned().ok_or_else(|| log.clone())
    });
    found.await.expect("a line of the log")
}

fn policy(on_stale: &str, stale_after: u64) -> Value {
    json!({
        "apiVersion": "policy.tidegate.dev/v1", "revision": "r1",
        "tiers": {
            "policy": "shop/llama", "mode": "Enforce",
            "gpuMemory": {"source": "Nvml", "maxUtilization": 0.75, "staleAfterMillis": stale_after, "onStale": on_stale},
            "recovery": {"belowRatio": 0.9, "holdMillis": 1000, "rampMillis": 1000},
        },
    })
}

async fn engine() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(async || "{}")).await });
    address
}

#[tokio::test]
async fn the_memory_of_a_mig_device_counts_and_not_that_of_its_card() {
    let driver = driver_of(&[gpu("GPU-1", 0).used(39 * GIB).mig("MIG-1", 10 * GIB, 2 * GIB)]);
    let sidecar = Sidecar::start_patient(&driver.library()).await;
    sidecar.is_gib(2, 10).await;
    sidecar.tier("a normal tier", |tier| tier["state"] == "Normal").await;
    assert_eq!(sidecar.status_of("low").await, 200);
    driver.write(&gpu("GPU-1", 0).used(12 * GIB).mig("MIG-1", 10 * GIB, 9 * GIB));
    sidecar.tier("a full slice", |tier| tier["state"] == "Tripped").await;
    assert_eq!(sidecar.status_of("low").await, 429);
}

#[tokio::test]
async fn of_several_gpus_the_fullest_trips_the_tier() {
    let driver = driver_of(&[gpu("GPU-1", 0).used(GIB), gpu("GPU-2", 1).used(2 * GIB)]);
    let sidecar = Sidecar::start_patient(&driver.library()).await;
    sidecar.is_gib(2, 40).await;
    driver.write(&gpu("GPU-1", 0).used(35 * GIB));
    sidecar.tier("a full GPU beside an empty one", |tier| tier["state"] == "Tripped").await;
    sidecar.is_gib(35, 40).await;
    assert_eq!(sidecar.status_of("low").await, 429);
}

#[tokio::test]
async fn a_gpu_that_vanishes_makes_the_signal_stale_as_chosen_and_counts_again_when_it_is_back() {
    let driver = driver_of(&[gpu("GPU-1", 0).used(GIB), gpu("GPU-2", 1).used(GIB)]);
    let [trips, ignores] =
        [Sidecar::start(&driver.library(), "Trip").await, Sidecar::start(&driver.library(), "Ignore").await];
    for sidecar in [&trips, &ignores] {
        sidecar.is_gib(1, 40).await;
        sidecar.tier("a normal tier", |tier| tier["state"] == "Normal").await;
    }
    for (lose, why) in [
        (Some("NVML_ERROR_GPU_IS_LOST"), "GPU-2: NVML: "),
        (Some("NVML_ERROR_RESET_REQUIRED"), "GPU-2: NVML: "),
        (None, "NVML no longer lists GPU-2"),
    ] {
        match lose {
            Some(error) => driver.write(&gpu("GPU-2", 1).failing(error)),
            None => driver.remove("GPU-2"),
        }
        for sidecar in [&trips, &ignores] {
            sidecar.tier("a stale tier", |tier| tier["state"] == "Stale").await;
            sidecar.unknown(why).await;
        }
        assert_eq!((trips.status_of("low").await, ignores.status_of("low").await), (429, 200), "{why}");
        sidecars_forget(&trips, &ignores);
        driver.write(&gpu("GPU-2", 1).used(3 * GIB));
        for sidecar in [&trips, &ignores] {
            sidecar.tier("a normal tier again", |tier| tier["state"] == "Normal").await;
            sidecar.is_gib(3, 40).await;
            sidecar.line("recovery", |line| line["message"] == "GPU memory is known again").await;
        }
        driver.write(&gpu("GPU-2", 1).used(GIB));
    }
}

fn sidecars_forget(trips: &Sidecar, ignores: &Sidecar) {
    for sidecar in [trips, ignores] {
        sidecar.log.lock().expect("log").clear();
    }
}

#[tokio::test]
async fn without_a_library_or_a_device_the_sidecar_serves_and_says_why_memory_is_unknown() {
    let missing = Driver::new();
    let empty = driver_of(&[]);
    let cut = driver_of(&[gpu("GPU-1", 0).used(30 * GIB).cut()]);
    for (driver, why) in [
        (&missing, "NVML is not available from"),
        (&empty, "NVML lists no device in this container"),
        (&cut, "NVML lists no device in this container"),
    ] {
        let sidecar = Sidecar::start(&driver.library(), "Ignore").await;
        sidecar.unknown(why).await;
        sidecar.metric("tidegate_gpu_errors_total{reason=\"driver\"}", |count| count >= 1.0).await;
        assert_eq!(sidecar.status_of("low").await, 200, "{why}");
    }
}

#[tokio::test]
async fn a_driver_that_hangs_makes_the_sidecars_reading_old_and_no_request_slow() {
    let driver = driver_of(&[gpu("GPU-1", 0).used(GIB)]);
    let sidecar = Sidecar::start(&driver.library(), "Trip").await;
    sidecar.is_gib(1, 40).await;
    driver.write(&gpu("GPU-1", 0).hanging(Duration::from_mins(10)));
    sidecar.tier("a stale tier", |tier| tier["state"] == "Stale").await;
    sidecar.metric("tidegate_gpu_signal_age_seconds", |age| age > 5.0).await;
    assert_eq!(sidecar.status_of("low").await, 429);
}
