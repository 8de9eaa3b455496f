//! Steady requests at each pod, and which of them may be lost.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::Method;
use k8s_openapi::api::core::v1::Pod;
use tidegate_e2e::harness::{Http, engine_url, eventually};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// Between two requests of the same client at the same pod.
const PACE: Duration = Duration::from_millis(50);
/// The kubelet's pause before it starts a container again doubles with each crash.
const BACK: Duration = Duration::from_mins(3);
/// How long a killed process may still answer.
const DYING: Duration = Duration::from_secs(1);
/// A client whom no limit is for, and one whom the policy limits.
const USERS: [Option<&str>; 2] = [None, Some("greedy")];
const BODY: &str = r#"{"model": "sim", "prompt": "The tide", "max_tokens": 1}"#;

/// When a sidecar or an engine of a pod was away.
#[derive(Debug, Clone, Copy)]
struct Outage {
    pod: usize,
    from: Instant,
    /// None while it lasts.
    to: Option<Instant>,
}

type Outages = Arc<Mutex<Vec<Outage>>>;

#[derive(Debug)]
struct Request {
    pod: usize,
    limited: bool,
    sent: Instant,
    done: Instant,
    /// The status, or what was seen instead.
    outcome: Result<u16, String>,
}

/// Requests at every pod until it is stopped.
pub(super) struct Load {
    start: Instant,
    pods: usize,
    stop: Arc<AtomicBool>,
    senders: JoinSet<Vec<Request>>,
    outages: Outages,
}

impl Load {
    pub(super) fn start(pods: &[Pod]) -> anyhow::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut senders = JoinSet::new();
        let outages = Outages::default();
        for (n, pod) in pods.iter().enumerate() {
            let url = format!("{}/v1/completions", engine_url(pod)?);
            for user in USERS {
                senders.spawn(send(n, url.clone(), user, Arc::clone(&stop), Arc::clone(&outages)));
            }
        }
        Ok(Self { start: Instant::now(), pods: pods.len(), stop, senders, outages })
    }

    /// Takes something of a pod away; the first answer of the pod ends that. Nothing happens where something is away already.
    pub(super) fn outage(&self, pod: usize, act: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
        if self.outages().iter().any(|outage| outage.pod == pod && outage.to.is_none()) {
            return Ok(());
        }
        self.outages().push(Outage { pod, from: Instant::now(), to: None });
        act()
    }

    /// Waits until all pods answer again.
    pub(super) async fn all_back(&self) -> anyhow::Result<()> {
        eventually("all pods to answer", BACK, async || {
            let away: Vec<usize> =
                self.outages().iter().filter(|outage| outage.to.is_none()).map(|outage| outage.pod).collect();
            if away.is_empty() { Ok(()) } else { Err(away) }
        })
        .await
    }

    /// Ends the requests, waits for every answer and judges them.
    pub(super) async fn stop(mut self) -> anyhow::Result<Tally> {
        self.stop.store(true, Ordering::Relaxed);
        let mut requests = Vec::new();
        while let Some(sent) = self.senders.join_next().await {
            requests.extend(sent?);
        }
        let outages = self.outages().clone();
        Ok(Tally { length: self.start.elapsed(), pods: self.pods, requests, outages })
    }

    fn outages(&self) -> MutexGuard<'_, Vec<Outage>> {
        lock(&self.outages)
    }
}

fn lock(outages: &Outages) -> MutexGuard<'_, Vec<Outage>> {
    outages.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn send(
    pod: usize,
    url: String,
    user: Option<&'static str>,
    stop: Arc<AtomicBool>,
    outages: Outages,
) -> Vec<Request> {
    let http = Http::default();
    let mut requests = JoinSet::new();
    let mut pace = interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !stop.load(Ordering::Relaxed) {
        pace.tick().await;
        let (http, url, outages) = (http.clone(), url.clone(), Arc::clone(&outages));
        requests.spawn(async move {
            let mut headers = vec![("content-type", "application/json")];
            headers.extend(user.map(|user| ("x-user", user)));
            let sent = Instant::now();
            let answer = http.send(Method::POST, &url, &headers, BODY).await;
            let outcome = answer.map(|answer| answer.status.as_u16()).map_err(|error| format!("{error:#}"));
            if outcome == Ok(200) {
                end(&mut lock(&outages), pod, sent);
            }
            Request { pod, limited: user.is_some(), sent, done: Instant::now(), outcome }
        });
    }
    requests.join_all().await
}

/// A request that was sent then has been answered: nothing of its pod is away any more.
fn end(outages: &mut [Outage], pod: usize, sent: Instant) {
    let lasting = outages.iter_mut().filter(|outage| outage.pod == pod && outage.to.is_none());
    for outage in lasting.filter(|outage| sent > outage.from + DYING) {
        outage.to = Some(Instant::now());
    }
}

/// What came of the requests.
pub(super) struct Tally {
    length: Duration,
    pods: usize,
    requests: Vec<Request>,
    outages: Vec<Outage>,
}

impl Tally {
    /// Whether something of its pod was away while the request was on its way.
    fn is_excused(&self, request: &Request) -> bool {
        let mut of_pod = self.outages.iter().filter(|outage| outage.pod == request.pod);
        of_pod.any(|outage| outage.from <= request.done && outage.to.is_none_or(|to| request.sent <= to))
    }

    /// Every request that met no outage was answered: 200, or 429 to the client whom a limit is for.
    pub(super) fn nothing_lost_but_in_outages(&self) -> anyhow::Result<()> {
        let right = |request: &&Request| match &request.outcome {
            Ok(200) => true,
            Ok(429) => request.limited,
            Ok(_) | Err(_) => false,
        };
        let wrong = self.requests.iter().filter(|request| !right(request) && !self.is_excused(request));
        let wrong: Vec<String> = wrong.take(10).map(|request| self.tell(request)).collect();
        anyhow::ensure!(wrong.is_empty(), "lost or wrong without a cause:\n{}", wrong.join("\n"));
        Ok(())
    }

    fn tell(&self, request: &Request) -> String {
        let after = request.sent.saturating_duration_since(self.start()).as_secs_f64();
        format!("{after:.3} s after the start, at pod {}: {:?}", request.pod, request.outcome)
    }

    fn start(&self) -> Instant {
        self.requests.iter().map(|request| request.sent).min().unwrap_or_else(Instant::now)
    }

    /// At each pod the limited client got what its bucket gives, which a killed sidecar may fill anew, and no less than
    /// half of what it gives while nothing was away.
    pub(super) fn limits_held(&self, rate: u64, burst: u64) -> anyhow::Result<()> {
        for pod in 0..self.pods {
            let passed = self.requests.iter().filter(|request| request.pod == pod && request.limited);
            let passed = passed.filter(|request| request.outcome == Ok(200)).count() as f64;
            let outages = || self.outages.iter().filter(|outage| outage.pod == pod);
            let away: Duration =
                outages().filter_map(|outage| Some(outage.to?.duration_since(outage.from))).sum();
            let most =
                rate as f64 * self.length.as_secs_f64() + (burst * (1 + outages().count() as u64)) as f64;
            let least = rate as f64 * self.length.saturating_sub(away).as_secs_f64() / 2.0;
            anyhow::ensure!(
                (least..=most).contains(&passed),
                "pod {pod} let {passed} requests of the limited client pass instead of {least:.0} to {most:.0}"
            );
        }
        Ok(())
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let excused = self.requests.iter().filter(|request| self.is_excused(request)).count();
        write!(
            f,
            "{} requests in {:.0} s, {} outages, {excused} requests during them",
            self.requests.len(),
            self.length.as_secs_f64(),
            self.outages.len()
        )
    }
}
