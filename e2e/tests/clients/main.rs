//! The official OpenAI clients, from their registries, against the sidecar's own binary: they understand its refusals,
//! wait as told and succeed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod environment;

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::json;
use tidegate_e2e::cluster::process;
use tidegate_e2e::engine::{Engine, EngineArgs};
use tidegate_e2e::harness::Http;
use tidegate_e2e::server::{Server, free_address};
use tokio::process::Command;

use crate::environment::{environment, node};

/// One request in so many milliseconds for each key.
const INTERVAL_MILLIS: u64 = 8000;
const CALLS: u64 = 3;

#[derive(Debug, Deserialize)]
struct Told {
    seconds: f64,
    tokens: u64,
}

/// An engine and its sidecar on the loopback interface.
struct Stand {
    engine: Engine,
    sidecar: Server,
    admin: String,
    _folder: tempfile::TempDir,
}

impl Stand {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let engine = Engine::start(&EngineArgs::on_loopback()).await.unwrap();
        let policy = folder.path().join("policy.json");
        let document = json!({
            "apiVersion": "policy.tidegate.dev/v1", "revision": "r1",
            "limits": [{
                "policy": "a/b", "name": "per-key", "mode": "Enforce", "key": [{"header": "authorization"}],
                "algorithm": {"tokenBucket": {"burst": 1}}, "limit": 1, "windowMillis": INTERVAL_MILLIS,
            }],
        });
        std::fs::write(&policy, document.to_string()).unwrap();
        let (listen, admin) = (free_address().unwrap(), free_address().unwrap());
        let mut command = process::command(sidecar_binary());
        command.args(["run", "--listen", &listen.to_string(), "--admin", &admin.to_string()]);
        command.args(["--upstream", &engine.address.to_string()]).arg("--policy-file").arg(&policy);
        let sidecar = Server::start(&mut command, listen, &folder.path().join("log")).await.unwrap();
        Self { engine, sidecar, admin: format!("http://{admin}"), _folder: folder }
    }

    async fn refused(&self) -> u64 {
        let status = Http::default().get(&format!("{}/throttle/status", self.admin)).await.unwrap().body;
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        status["limits"][0]["refused"].as_u64().unwrap()
    }

    async fn end(self) {
        self.sidecar.stop().await.unwrap();
        self.engine.stop().await;
    }
}

/// Beside this test's own, where `make` has built it.
fn sidecar_binary() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let binary = own.parent().and_then(Path::parent).unwrap().join("tidegate-sidecar");
    assert!(binary.exists(), "{} is missing: run this through `make clients`", binary.display());
    binary
}

/// A call that comes too early is refused once, and passes when the client comes back as told.
async fn obeys(mut client: Command) {
    let stand = Stand::start().await;
    let url = stand.sidecar.url("/v1");
    let told = process::output(client.arg(url).arg(CALLS.to_string())).await.unwrap();
    let told: Told = serde_json::from_str(told.trim()).unwrap();
    println!("{told:?}");
    assert_eq!(told.tokens, 3 * CALLS, "every call gave all its tokens");
    // A machine that is busy for longer than the interval makes a call come late enough at once.
    let refused = stand.refused().await;
    assert!((1..CALLS).contains(&refused), "{refused} refusals: one for each call that came too early");
    let least = (CALLS - 1) * INTERVAL_MILLIS;
    assert!(told.seconds >= least as f64 / 1000.0, "{told:?}");
    stand.end().await;
}

#[tokio::test]
async fn the_official_python_client_waits_as_told_and_succeeds() {
    let environment = environment().await;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/client.py");
    let mut python = process::command(environment.join("bin/python"));
    python.arg(script);
    obeys(python).await;
}

#[tokio::test]
async fn the_official_node_client_waits_as_told_and_succeeds() {
    let environment = environment().await;
    // Node.js looks for modules beside the script.
    let script = environment.join("node/client.mjs");
    std::fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/client.mjs"), &script).unwrap();
    let mut node = node(&environment);
    node.arg(script);
    obeys(node).await;
}
