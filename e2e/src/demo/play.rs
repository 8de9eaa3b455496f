//! Plays the story on whatever stands there, shows it and sums it up.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use http::{HeaderName, HeaderValue};
use serde_json::{Value, json};
use tidegate_policy::report::{BreakerState, Status};

use super::{
    story::{self, Stage},
    summary::{self, Measured},
    view::View,
    watch::Scene,
};
use crate::{
    cluster::progress::Progress,
    load::{Load, Outcome, Report, Spec},
    trace::Trace,
};

/// Between two looks at the sidecars.
const LOOK: Duration = Duration::from_millis(50);
/// Between two looks while a policy is expected.
const CLOSE_LOOK: Duration = Duration::from_millis(2);
/// Longest wait for a policy.
const UPDATE: Duration = Duration::from_secs(10);
/// Longest wait for an answer; longer ones count as lost.
const PATIENCE: Duration = Duration::from_secs(30);

/// Protected engines; the first is the one that gets into trouble.
pub(crate) trait Stand {
    /// Names of the pods and the URLs of their engines, through the sidecars.
    fn pods(&self) -> Vec<(String, String)>;

    /// `/throttle/status` of a pod.
    async fn status(&self, pod: usize) -> Option<Status>;

    /// Used and total bytes of a pod's GPUs.
    async fn gpu_memory(&self, pod: usize) -> Option<(u64, u64)>;

    /// Tells the first engine what to do wrong.
    async fn order(&self, path: &str, body: &Value) -> anyhow::Result<()>;

    /// Adds the second policy.
    async fn add_policy(&self) -> anyhow::Result<()>;
}

/// Shows the whole story; returns the summary.
pub(crate) async fn play(stand: &impl Stand, trace: &Trace, progress: &Progress) -> anyhow::Result<String> {
    progress.say(format_args!("arrivals {}", trace.source));
    let mut play = Play::start(stand, trace)?;
    let mut view = View::on_stdout();
    let mut stage = None;
    while play.scene.at < story::LENGTH {
        play.look().await;
        let now = Stage::at(play.scene.at);
        if stage.replace(now) != Some(now) {
            now.title().clone_into(&mut play.scene.phase);
            play.enter(now).await?;
        }
        play.time_breaker();
        view.show(&play.scene)?;
        tokio::time::sleep(LOOK).await;
    }
    "waiting for the last answers".clone_into(&mut play.scene.phase);
    view.finish(&play.scene)?;
    play.end(&mut view).await
}

struct Play<'a, S> {
    stand: &'a S,
    loads: Vec<Load>,
    scene: Scene,
    measured: Measured,
    updated_at: Option<Duration>,
    failed_at: Option<Duration>,
}

impl<'a, S: Stand> Play<'a, S> {
    /// Starts the load: the first pod gets all of the story, the others calm traffic throughout.
    fn start(stand: &'a S, trace: &Trace) -> anyhow::Result<Self> {
        let pods = stand.pods();
        let scene = Scene::new(pods.iter().map(|(name, _)| name.as_str()));
        let mut loads = Vec::new();
        for (number, (_, url)) in pods.iter().enumerate() {
            let plan =
                if number == 0 { story::plan(&trace.entries) } else { story::calm_plan(&trace.entries) };
            loads.push(Load::start(Spec {
                headers: vec![(HeaderName::from_static("x-team"), HeaderValue::from_static("search"))],
                timeout: PATIENCE,
                ..Spec::new(&format!("{url}/v1/chat/completions"), plan)
            })?);
        }
        Ok(Self { stand, loads, scene, measured: Measured::default(), updated_at: None, failed_at: None })
    }

    /// Brings the scene up to date.
    async fn look(&mut self) {
        self.scene.at = self.loads.first().map_or(story::LENGTH, |load| load.started().elapsed());
        self.scene.report = merged(self.loads.iter().map(Load::snapshot));
        for pod in 0..self.loads.len() {
            let status = self.stand.status(pod).await;
            self.scene.observe(pod, status);
            if let Some((used, total)) = self.stand.gpu_memory(pod).await {
                self.scene.observe_gpu(pod, used, total);
            }
        }
    }

    async fn enter(&mut self, stage: Stage) -> anyhow::Result<()> {
        match stage {
            Stage::Calm | Stage::Rising | Stage::Recovering => Ok(()),
            Stage::Slow => {
                let (factor, duration) = (story::SLOWDOWN, story::SLOW);
                self.scene.tell(format!("the engine slows down {factor} times for {} s", duration.as_secs()));
                self.stand.order("slow", &json!({"factor": factor, "for_ms": duration.as_millis()})).await
            }
            Stage::Changed => {
                self.updated_at = Some(self.scene.at);
                self.measured.policy_update = Some(self.change_policy().await?);
                Ok(())
            }
            Stage::Failing => {
                self.failed_at = Some(self.scene.at);
                let duration = story::FAILURE;
                self.scene.tell(format!("the engine answers 500 for {} s", duration.as_secs()));
                self.stand.order("fail", &json!({"status": 500, "for_ms": duration.as_millis()})).await
            }
        }
    }

    /// Adds the second policy; returns the time until every sidecar has it in force.
    async fn change_policy(&mut self) -> anyhow::Result<Duration> {
        let before = self.revisions().await;
        self.scene.tell("per-key.yaml is added: two requests per second for each API key");
        let changed = Instant::now();
        self.stand.add_policy().await?;
        while changed.elapsed() < UPDATE {
            let now = self.revisions().await;
            if now.iter().zip(&before).all(|(now, before)| now.is_some() && now != before) {
                return Ok(changed.elapsed());
            }
            tokio::time::sleep(CLOSE_LOOK).await;
        }
        anyhow::bail!("the new policy is not in force after {} s", UPDATE.as_secs())
    }

    async fn revisions(&self) -> Vec<Option<String>> {
        let mut revisions = Vec::new();
        for pod in 0..self.loads.len() {
            revisions.push(self.stand.status(pod).await.map(|status| status.revision));
        }
        revisions
    }

    /// Notes when the breaker opens after the failure began, and when it closes after the failure is over.
    fn time_breaker(&mut self) {
        let Some(failed_at) = self.failed_at else { return };
        let status = self.scene.pods.first().and_then(|pod| pod.status.as_ref());
        let Some(breaker) = status.and_then(|status| status.breaker.as_ref()) else { return };
        let recovered_at = failed_at + story::FAILURE;
        match breaker.state {
            BreakerState::Open => {
                self.measured.breaker_opened.get_or_insert(self.scene.at.saturating_sub(failed_at));
            }
            BreakerState::Closed if self.measured.breaker_opened.is_some() => {
                self.measured.breaker_closed.get_or_insert(self.scene.at.saturating_sub(recovered_at));
            }
            BreakerState::Closed | BreakerState::HalfOpen => {}
        }
    }

    async fn end(mut self, view: &mut View) -> anyhow::Result<String> {
        let mut reports = Vec::new();
        for load in self.loads.drain(..) {
            reports.push(load.finish().await.context("the load")?);
        }
        self.scene.report = merged(reports.into_iter());
        self.scene.phase.clear();
        view.finish(&self.scene)?;
        self.measured.lost_during_update = self.lost_during_update();
        Ok(summary::text(&self.scene, &self.measured))
    }

    /// Requests within a second of the update that were not answered by engine or rule.
    fn lost_during_update(&self) -> usize {
        let Some(at) = self.updated_at else { return 0 };
        let second = Duration::from_secs(1);
        let around = self.scene.report.between(at.saturating_sub(second), at + second);
        let lost = |outcome: &Outcome| matches!(outcome, Outcome::Lost { .. } | Outcome::Failed);
        around.samples.iter().filter(|sample| lost(&sample.outcome)).count()
    }
}

fn merged(reports: impl Iterator<Item = Report>) -> Report {
    reports.fold(Report::default(), |mut all, report| {
        all.merge(report);
        all
    })
}
