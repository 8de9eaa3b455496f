//! The demo without a cluster: an engine simulator, the sidecar's own binary, and documents that `kubectl tidegate
//! compile` makes of the policy files.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use http::Method;
use serde_json::Value;
use tidegate_policy::report::Status;

use super::{
    gpu_agent::{self, GpuAgent},
    play::{Stand, play},
    story,
};
use crate::{
    cluster::{process, progress::Progress},
    engine::{Engine, EngineArgs},
    harness::Http,
    server::{Server, free_address},
    trace::Trace,
};

/// The binaries under demonstration.
#[derive(Debug, Clone)]
pub struct Binaries {
    /// `tidegate-sidecar`
    pub sidecar: PathBuf,
    /// `kubectl-tidegate`
    pub cli: PathBuf,
}

/// Shows the whole story; returns the summary.
pub async fn run(
    binaries: &Binaries,
    policies: &Path,
    trace: &Trace,
    progress: &Progress,
) -> anyhow::Result<String> {
    let directory = tempfile::tempdir()?;
    let bench = Loopback::build(binaries, policies, directory.path()).await?;
    progress.say(format_args!("engine on {}, sidecar on {}", bench.engine.address, bench.sidecar.address));
    let summary = play(&bench, trace, progress).await?;
    bench.sidecar.stop().await?;
    bench.engine.stop().await;
    Ok(summary)
}

/// One engine and its sidecar on the loopback interface.
struct Loopback {
    engine: Engine,
    gpu: GpuAgent,
    sidecar: Server,
    admin: String,
    policy: PathBuf,
    changed_policy: PathBuf,
    http: Http,
}

impl Loopback {
    async fn build(binaries: &Binaries, policies: &Path, directory: &Path) -> anyhow::Result<Self> {
        let gpu = GpuAgent::start(directory).await?;
        let engine = Engine::start(&EngineArgs {
            gpu_dir: Some(directory.to_owned()),
            gpus: gpu_agent::GPU.to_owned(),
            kv_blocks: story::KV_BLOCKS,
            time_scale: story::TIME_SCALE,
            ..EngineArgs::on_loopback()
        })
        .await?;
        let (policy, changed_policy) = (directory.join("policy.json"), directory.join("policy-changed.json"));
        let (llama, per_key) = (policies.join("llama.yaml"), policies.join("per-key.yaml"));
        compile(binaries, &[&llama], &policy).await?;
        compile(binaries, &[&llama, &per_key], &changed_policy).await?;
        let (listen, admin) = (free_address()?, free_address()?);
        let mut command = process::command(&binaries.sidecar);
        command.args(["run", "--log-level", "info", "--workers", "1", "--listen", &listen.to_string()]);
        command.args(["--admin", &admin.to_string(), "--upstream", &engine.address.to_string()]);
        command.arg("--policy-file").arg(&policy).args(["--agent", &gpu.url]);
        command.arg("--agent-token").arg(&gpu.token).arg("--ca").arg(&gpu.ca);
        let log = directory.join("sidecar.log");
        let sidecar = Server::start(&mut command, listen, &log).await.context("cannot start the sidecar")?;
        let admin = format!("http://{admin}");
        Ok(Self { engine, gpu, sidecar, admin, policy, changed_policy, http: Http::default() })
    }
}

impl Stand for Loopback {
    fn pods(&self) -> Vec<(String, String)> {
        vec![("llama".to_owned(), self.sidecar.url(""))]
    }

    async fn status(&self, _pod: usize) -> Option<Status> {
        let answer = self.http.get(&format!("{}/throttle/status", self.admin)).await.ok()?;
        serde_json::from_str(&answer.body).ok()
    }

    async fn gpu_memory(&self, _pod: usize) -> Option<(u64, u64)> {
        self.gpu.memory().ok()
    }

    async fn order(&self, path: &str, body: &Value) -> anyhow::Result<()> {
        let url = format!("http://{}/{path}", self.engine.control);
        let answer = self.http.send(Method::POST, &url, &[], body.to_string()).await?;
        anyhow::ensure!(answer.status.is_success(), "{url}: {} {}", answer.status, answer.body);
        Ok(())
    }

    /// By a rename, so that the sidecar never sees half a file.
    async fn add_policy(&self) -> anyhow::Result<()> {
        Ok(tokio::fs::rename(&self.changed_policy, &self.policy).await?)
    }
}

/// `kubectl tidegate compile` into `document`.
async fn compile(binaries: &Binaries, policies: &[&Path], document: &Path) -> anyhow::Result<()> {
    let mut command = process::command(&binaries.cli);
    command.arg("compile");
    for file in policies {
        command.arg("--filename").arg(file);
    }
    let json = process::output(&mut command).await?;
    std::fs::write(document, json)?;
    Ok(())
}
