//! The operator at the size that is promised: a real API server and etcd, the real operator, pods and nodes that nobody
//! runs, and a policy stream for each pod with the token of that pod.
//!
//! ```text
//!  etcd ◀─ API server ◀── operator ◀──1 stream per pod── fleet (this process)
//!            ▲   audit log   ▲
//!            └── objects     └── reviews, 200 per second
//! ```

mod fleet;
mod objects;
mod operator;
mod report;
mod reviews;
mod session;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use kube::Api;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use rustls::ClientConfig;
use tidegate_crds::RateLimitPolicy;
use tokio::sync::watch;

use crate::apiserver::{ApiServer, Requests};
use crate::cluster::progress::Progress;
use crate::harness::eventually;
use fleet::Fleet;
use objects::NAMESPACE;
use operator::{Launch, Needed, Operator};
use reviews::Webhook;

pub use operator::believing;
pub use reviews::Reviewer;

/// How many of each.
#[derive(Debug, Clone, Copy, Args)]
pub struct Size {
    /// Pods with a sidecar
    #[arg(long, default_value_t = 1000)]
    pub pods: usize,
    /// Nodes
    #[arg(long, default_value_t = 100)]
    pub nodes: usize,
    /// Policies, one of them for every pod
    #[arg(long, default_value_t = 200)]
    pub policies: usize,
}

impl Size {
    /// Workloads, of ten pods each.
    fn workloads(&self) -> usize {
        (self.pods / 10).max(1)
    }
}

/// Options of the measurement.
#[derive(Debug, Args)]
pub struct ScaleArgs {
    #[command(flatten)]
    size: Size,
    /// The operator's program
    #[arg(long)]
    operator: PathBuf,
    /// Where the report goes
    #[arg(long, default_value = "report/scale.md")]
    report: PathBuf,
    /// Measure the webhook alone and write no report
    #[arg(long)]
    webhook: bool,
}

/// Longest wait for all sidecars.
const PATIENCE: Duration = Duration::from_mins(5);
/// Changes of the policy of every pod.
const CHANGES: u64 = 10;
/// Of the reviews.
const RATE: u32 = 200;
const REVIEWS: Duration = Duration::from_secs(15);
/// How long nothing happens but what always does.
const REST: Duration = Duration::from_mins(1);
/// Until the sidecars have reported and the status of each policy is written.
const SETTLING: Duration = Duration::from_secs(15);
/// How long the operator is away.
const AWAY: Duration = Duration::from_secs(2);

/// The operator with its pods.
pub struct Scene {
    /// The API server.
    pub server: ApiServer,
    fleet: Fleet,
    size: Size,
    launch: Launch,
    operator: Option<Operator>,
    trust: watch::Receiver<Arc<ClientConfig>>,
    version: u64,
}

/// How sidecars came back after the operator was killed.
#[derive(Debug, Clone, Copy)]
pub struct Return {
    /// Until the new one was ready.
    pub start_up: Duration,
    /// From then until the last sidecar had its stream.
    pub all: Duration,
    /// The most streams that opened within a tenth of a second.
    pub most: usize,
    /// Answers that let a sidecar with a good token not in.
    pub refused: u64,
}

impl Scene {
    /// Everything in place: every pod injected by the webhook, every sidecar with its document.
    pub async fn set(size: Size, operator: &std::path::Path, progress: &Progress) -> anyhow::Result<Self> {
        let server = ApiServer::start().await?;
        objects::install(&server.client).await?;
        objects::nodes(&server.client, &size).await?;
        objects::policies(&server.client, &size).await?;
        progress.say("policies are there");
        let launch = Launch::new(&server, operator).await?;
        let operator = launch.start().await?;
        let trust = operator::trust(&server.client).await?;
        let tls = Arc::clone(&trust.borrow());
        let pods = Webhook::connect(launch.webhook, &tls).await?.inject_all(&size).await?;
        let tokens = objects::run(&server.client, &size, pods).await?;
        progress.say("pods are there");
        let fleet = Fleet::start(tokens, launch.stream, trust.clone());
        let scene = Self { server, fleet, size, launch, operator: Some(operator), trust, version: 0 };
        scene.until_obeyed().await?;
        progress.say("every sidecar has its policy");
        Ok(scene)
    }

    /// Waits until every sidecar has the last version of the policy of every pod, and says when the last got it.
    async fn until_obeyed(&self) -> anyhow::Result<Option<Instant>> {
        eventually("the policy at every sidecar", PATIENCE, async || {
            self.fleet
                .obeys(self.version)
                .map_err(|without| format!("{without} have none yet; refused: {:?}", self.fleet.refused()))
        })
        .await
    }

    async fn write(&self, name: &str, object: serde_json::Value) -> anyhow::Result<()> {
        let resource = ApiResource::erase::<RateLimitPolicy>(&());
        let api = Api::<DynamicObject>::namespaced_with(self.server.client.clone(), NAMESPACE, &resource);
        api.patch(name, &PatchParams::apply("scale").force(), &Patch::Apply(object)).await?;
        Ok(())
    }

    /// Changes the policy of every pod. Returns the time from before the request to the last sidecar that has it.
    pub async fn change(&mut self) -> anyhow::Result<Duration> {
        self.version += 1;
        let began = Instant::now();
        self.write(objects::EVERYWHERE, objects::everywhere(self.version)).await?;
        let last = self.until_obeyed().await?.context("there are no sidecars")?;
        Ok(last.saturating_duration_since(began))
    }

    /// Kills the operator.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        self.operator.take().context("no operator")?.kill().await
    }

    /// Kills the operator where it runs, starts it again and waits for every sidecar.
    pub async fn restart(&mut self) -> anyhow::Result<Return> {
        if self.operator.is_some() {
            self.stop().await?;
        }
        tokio::time::sleep(AWAY).await;
        self.fleet.forget();
        let began = Instant::now();
        let operator = self.launch.start().await?;
        let start_up = operator.start_up;
        self.operator = Some(operator);
        let opened = eventually("every sidecar is back", PATIENCE, async || {
            let opened = self.fleet.opened();
            if opened.len() >= self.size.pods {
                Ok(opened)
            } else {
                Err((opened.len(), self.fleet.refused()))
            }
        })
        .await?;
        let within = |from: &Instant| {
            opened.iter().filter(|at| (*from..*from + Duration::from_millis(100)).contains(*at)).count()
        };
        let last = opened.last().map_or(Duration::ZERO, |last| last.saturating_duration_since(began));
        Ok(Return {
            start_up,
            all: last.saturating_sub(start_up),
            most: opened.iter().map(within).max().unwrap_or_default(),
            refused: self.fleet.refused().0,
        })
    }

    /// Documents that came to sidecars since the last restart or since it was told to forget.
    pub fn documents(&self) -> u64 {
        self.fleet.documents()
    }

    /// Streams that opened since then.
    pub fn streams_opened(&self) -> usize {
        self.fleet.opened().len()
    }

    /// Counts documents and streams anew.
    pub fn forget(&self) {
        self.fleet.forget();
    }

    /// Somebody who asks the operator's webhook.
    pub fn reviewer(&self) -> Reviewer {
        Reviewer { address: self.launch.webhook, trust: self.trust.clone(), size: self.size }
    }

    fn operator(&self) -> anyhow::Result<&Operator> {
        self.operator.as_ref().context("no operator")
    }

    /// What the operator has asked the API server since it had asked this.
    pub fn requests_since(&self, before: &Requests) -> anyhow::Result<Requests> {
        let mut requests = self.server.requests_of_the_operator()?;
        for (what, count) in before {
            if let Some(now) = requests.get_mut(what) {
                *now -= count;
            }
        }
        requests.retain(|_, count| *count > 0);
        Ok(requests)
    }
}

/// All figures.
#[derive(Debug)]
struct Figures {
    size: Size,
    /// Until all sidecars had a change, for each.
    changes: Vec<Duration>,
    burst: Needed,
    rest: Needed,
    whole: Needed,
    reviews: Vec<Duration>,
    back: Return,
    /// Since the restart until all was quiet again, and in a minute of rest.
    requests: [Requests; 2],
}

/// Measures and writes the report.
pub async fn run(args: ScaleArgs) -> anyhow::Result<ExitCode> {
    let progress = Progress::start();
    let mut scene = Scene::set(args.size, &args.operator, &progress).await?;
    if args.webhook {
        tokio::time::sleep(SETTLING).await;
        println!("{}", report::of_reviews(&reviews(&scene).await?));
        return Ok(ExitCode::SUCCESS);
    }
    let figures = measure(&mut scene, &progress).await?;
    let text = report::written(&figures);
    println!("{text}");
    if let Some(folder) = args.report.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(&args.report, text)?;
    Ok(ExitCode::SUCCESS)
}

async fn measure(scene: &mut Scene, progress: &Progress) -> anyhow::Result<Figures> {
    let before = scene.server.requests_of_the_operator()?;
    let back = scene.restart().await?;
    progress.say(format_args!("restarted: {back:?}"));
    let whole = scene.operator()?.watch()?;
    tokio::time::sleep(SETTLING).await;
    let started = scene.requests_since(&before)?;

    let before = scene.server.requests_of_the_operator()?;
    let watch = scene.operator()?.watch()?;
    tokio::time::sleep(REST).await;
    let (rest, resting) = (watch.end().await?, scene.requests_since(&before)?);
    progress.say(format_args!("at rest: {rest:?}"));

    let watch = scene.operator()?.watch()?;
    let mut changes = Vec::new();
    for _ in 0..CHANGES {
        changes.push(scene.change().await?);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let burst = watch.end().await?;
    progress.say(format_args!("changes: {changes:?}, {burst:?}"));

    let reviews = reviews(scene).await?;
    let whole = whole.end().await?;
    Ok(Figures { size: scene.size, changes, burst, rest, whole, reviews, back, requests: [started, resting] })
}

/// What reviews took, the shortest first.
async fn reviews(scene: &Scene) -> anyhow::Result<Vec<Duration>> {
    let tls = scene.reviewer().trust();
    let webhook = Webhook::connect(scene.launch.webhook, &tls).await?;
    webhook.load(RATE, REVIEWS, &scene.size).await
}
