//! The demo without a cluster: an engine simulator, the sidecar's own binary with documents that `kubectl tidegate
//! compile` makes of the policy files, and a load that calls for each tier and for the breaker.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use http::{HeaderName, HeaderValue, Method};
use serde_json::{Value, json};
use tidegate_policy::report::{BreakerState, Status};

use super::{
    gpu_agent::{self, GpuAgent},
    story::{self, Stage},
    summary::{self, Measured},
    view::View,
    watch::Scene,
};
use crate::{
    cluster::{process, progress::Progress},
    engine::{Engine, EngineArgs},
    harness::Http,
    load::{Load, Outcome, Spec},
    server::{Server, free_address},
    trace::Trace,
};

/// Between two looks at the sidecar.
const LOOK: Duration = Duration::from_millis(50);
/// Between two looks while a policy is expected.
const CLOSE_LOOK: Duration = Duration::from_millis(2);
/// Longest wait for a policy.
const UPDATE: Duration = Duration::from_secs(5);

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
    let mut stand = Stand::build(binaries, policies, directory.path()).await?;
    progress.say(format_args!("engine on {}, sidecar on {}", stand.engine.address, stand.sidecar.address));
    progress.say(format_args!("arrivals {}", trace.source));
    let spec = Spec {
        headers: vec![(HeaderName::from_static("x-team"), HeaderValue::from_static("search"))],
        timeout: Duration::from_secs(20),
        ..Spec::new(&stand.sidecar.url("/v1/chat/completions"), story::plan(&trace.entries))
    };
    let load = Load::start(spec)?;
    let mut measured = Measured::default();
    let mut view = View::on_stdout();
    let mut stage = None;
    while load.started().elapsed() < story::LENGTH {
        stand.look(&load).await;
        let now = Stage::at(stand.scene.at);
        if stage.replace(now) != Some(now) {
            now.title().clone_into(&mut stand.scene.phase);
            stand.enter(now, &mut measured).await?;
        }
        stand.time_breaker(&mut measured);
        view.show(&stand.scene)?;
        tokio::time::sleep(LOOK).await;
    }
    stand.scene.report = load.finish().await?;
    view.finish(&stand.scene)?;
    measured.lost_during_update = stand.lost_during_update();
    stand.sidecar.stop().await?;
    Ok(summary::text(&stand.scene, &measured))
}

/// Everything that runs.
struct Stand {
    policy: PathBuf,
    changed_policy: PathBuf,
    engine: Engine,
    gpu: GpuAgent,
    sidecar: Server,
    admin: String,
    http: Http,
    scene: Scene,
    updated_at: Option<Duration>,
    failed_at: Option<Duration>,
}

impl Stand {
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
        let policy = directory.join("policy.json");
        let changed_policy = directory.join("policy-changed.json");
        let (llama, per_key) = (policies.join("llama.yaml"), policies.join("per-key.yaml"));
        compile(binaries, &[&llama], &policy).await?;
        compile(binaries, &[&llama, &per_key], &changed_policy).await?;
        let admin = free_address()?;
        let listen = free_address()?;
        let mut command = process::command(&binaries.sidecar);
        command.args(["run", "--log-level", "info", "--workers", "1", "--listen", &listen.to_string()]);
        command.args(["--admin", &admin.to_string(), "--upstream", &engine.address.to_string()]);
        command.arg("--policy-file").arg(&policy).args(["--agent", &gpu.url]);
        command.arg("--agent-token").arg(&gpu.token).arg("--ca").arg(&gpu.ca);
        let log = directory.join("sidecar.log");
        let sidecar = Server::start(&mut command, listen, &log).await.context("cannot start the sidecar")?;
        Ok(Self {
            policy,
            changed_policy,
            engine,
            gpu,
            sidecar,
            admin: format!("http://{admin}"),
            http: Http::default(),
            scene: Scene::new(["llama"]),
            updated_at: None,
            failed_at: None,
        })
    }

    /// Brings the scene up to date.
    async fn look(&mut self, load: &Load) {
        self.scene.at = load.started().elapsed();
        self.scene.report = load.snapshot();
        let status = self.status().await;
        self.scene.observe(0, status);
        if let Ok((used, total)) = self.gpu.memory() {
            self.scene.observe_gpu(0, used, total);
        }
    }

    async fn status(&self) -> Option<Status> {
        let answer =
            self.http.send(Method::GET, &format!("{}/throttle/status", self.admin), &[], "").await.ok()?;
        serde_json::from_str(&answer.body).ok()
    }

    async fn enter(&mut self, stage: Stage, measured: &mut Measured) -> anyhow::Result<()> {
        match stage {
            Stage::Calm | Stage::Rising | Stage::Recovering => Ok(()),
            Stage::Slow => {
                let (factor, duration) = (story::SLOWDOWN, story::SLOW);
                self.scene.tell(format!("the engine slows down {factor} times for {} s", duration.as_secs()));
                self.order("slow", &json!({"factor": factor, "for_ms": duration.as_millis()})).await
            }
            Stage::Changed => {
                self.updated_at = Some(self.scene.at);
                measured.policy_update = Some(self.change_policy().await?);
                Ok(())
            }
            Stage::Failing => {
                self.failed_at = Some(self.scene.at);
                let duration = story::FAILURE;
                self.scene.tell(format!("the engine answers 500 for {} s", duration.as_secs()));
                self.order("fail", &json!({"status": 500, "for_ms": duration.as_millis()})).await
            }
        }
    }

    /// Adds the second policy; returns the time from the change of the file to its being in force.
    async fn change_policy(&mut self) -> anyhow::Result<Duration> {
        let before = self.status().await.context("the sidecar does not answer")?.revision;
        self.scene.tell("per-key.yaml is added: two requests per second for each API key");
        let changed = Instant::now();
        std::fs::rename(&self.changed_policy, &self.policy)?;
        while changed.elapsed() < UPDATE {
            if self.status().await.is_some_and(|status| status.revision != before) {
                return Ok(changed.elapsed());
            }
            tokio::time::sleep(CLOSE_LOOK).await;
        }
        anyhow::bail!("the new policy is not in force after {} s", UPDATE.as_secs())
    }

    async fn order(&self, path: &str, body: &Value) -> anyhow::Result<()> {
        let url = format!("http://{}/{path}", self.engine.control);
        let answer = self.http.send(Method::POST, &url, &[], body.to_string()).await?;
        anyhow::ensure!(answer.status.is_success(), "{url}: {} {}", answer.status, answer.body);
        Ok(())
    }

    /// Notes when the breaker opens after the failure began, and when it closes after the failure is over.
    fn time_breaker(&self, measured: &mut Measured) {
        let Some(failed_at) = self.failed_at else { return };
        let status = self.scene.pods.first().and_then(|pod| pod.status.as_ref());
        let Some(breaker) = status.and_then(|status| status.breaker.as_ref()) else { return };
        let recovered_at = failed_at + story::FAILURE;
        match breaker.state {
            BreakerState::Open => {
                measured.breaker_opened.get_or_insert(self.scene.at.saturating_sub(failed_at));
            }
            BreakerState::Closed if measured.breaker_opened.is_some() => {
                measured.breaker_closed.get_or_insert(self.scene.at.saturating_sub(recovered_at));
            }
            BreakerState::Closed | BreakerState::HalfOpen => {}
        }
    }

    /// Requests within a second of the update that were not answered by engine or rule.
    fn lost_during_update(&self) -> usize {
        let Some(at) = self.updated_at else { return 0 };
        let second = Duration::from_secs(1);
        let around = self.scene.report.between(at.saturating_sub(second), at + second);
        around
            .samples
            .iter()
            .filter(|sample| matches!(sample.outcome, Outcome::Lost { .. } | Outcome::Failed))
            .count()
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
