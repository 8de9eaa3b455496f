//! Open-loop traffic: requests are sent when the plan says, whatever became of the earlier ones, and latencies count
//! from the planned time, so that a server that stalls is charged for all that it kept waiting.

pub mod cli;
pub mod client;
pub mod plan;
pub mod report;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Uri, header};
use http_body_util::Full;
use serde_json::json;
use tokio::{sync::oneshot, task::JoinSet};

use self::client::{Answer, Client};
pub use self::{
    cli::LoadArgs,
    plan::{Mix, Planned},
    report::{Outcome, Report, Sample},
};

/// Time between the start of the load and its first request, so that the first is not late.
const LEAD: Duration = Duration::from_millis(20);

/// One load.
#[derive(Debug, Clone)]
pub struct Spec {
    /// Where to send; `/v1/chat/completions` or `/v1/completions` of the server.
    pub url: String,
    /// What to send when, in order of time.
    pub plan: Vec<Planned>,
    /// The model asked for.
    pub model: String,
    /// Whether to ask for streams.
    pub stream: bool,
    /// Sent with every request.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// How often a refused request is sent again after its Retry-After.
    pub retries: u32,
    /// Time after which an attempt counts as lost.
    pub timeout: Duration,
}

impl Spec {
    /// A load of streams, without retries, with a minute for each answer.
    pub fn new(url: &str, plan: Vec<Planned>) -> Self {
        Self {
            url: url.to_owned(),
            plan,
            model: "llama-sim".to_owned(),
            stream: true,
            headers: Vec::new(),
            retries: 0,
            timeout: Duration::from_mins(1),
        }
    }
}

/// Sends the load and waits for the last answer.
pub async fn run(spec: Spec) -> anyhow::Result<Report> {
    Load::start(spec)?.finish().await
}

/// A load on its way, on a thread of its own, so that its caller cannot delay it.
#[derive(Debug)]
pub struct Load {
    started: Instant,
    report: Arc<Mutex<Report>>,
    stop: Option<oneshot::Sender<()>>,
    done: oneshot::Receiver<()>,
}

impl Load {
    /// Starts sending.
    pub fn start(spec: Spec) -> anyhow::Result<Self> {
        let url: Uri = spec.url.parse().with_context(|| spec.url.clone())?;
        let client = Client::new(&url)?;
        let report = Arc::new(Mutex::new(Report::default()));
        let started = Instant::now() + LEAD;
        let sender = Sender { spec, url, client, started, report: Arc::clone(&report) };
        let (stop, stopped) = oneshot::channel();
        let (finished, done) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new().name("load".to_owned()).spawn(move || {
            runtime.block_on(async move {
                tokio::select! {
                    () = Arc::new(sender).send_all() => {}
                    // A dropped handle stops the load as well.
                    _ = stopped => {}
                }
            });
            // Nobody waits any more when the handle is gone.
            let _gone = finished.send(());
        })?;
        Ok(Self { started, report, stop: Some(stop), done })
    }

    /// The instant that times in the report count from.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// The requests that have ended so far.
    pub fn snapshot(&self) -> Report {
        self.report.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for the last answer.
    pub async fn finish(mut self) -> anyhow::Result<Report> {
        (&mut self.done).await.context("the load's thread ended early")?;
        Ok(self.snapshot())
    }

    /// Ends the load; requests in flight are cut and not reported.
    pub async fn stop(mut self) -> Report {
        self.stop = None;
        // An error means that the thread has ended already.
        let _ended = (&mut self.done).await;
        self.snapshot()
    }
}

#[derive(Debug)]
struct Sender {
    spec: Spec,
    url: Uri,
    client: Client,
    started: Instant,
    report: Arc<Mutex<Report>>,
}

impl Sender {
    async fn send_all(self: Arc<Self>) {
        let mut requests = JoinSet::new();
        for number in 0..self.spec.plan.len() {
            let due = self.started + self.spec.plan[number].at;
            if Instant::now() < due {
                tokio::time::sleep_until(due.into()).await;
            }
            while requests.try_join_next().is_some() {}
            requests.spawn(Arc::clone(&self).send(number));
        }
        while requests.join_next().await.is_some() {}
    }

    /// Sends one planned request, again after a refusal when the spec says so, and records how it ended.
    async fn send(self: Arc<Self>, number: usize) {
        let planned = &self.spec.plan[number];
        let due = self.started + planned.at;
        let late = due.elapsed();
        let mut attempts = 0;
        let answer = loop {
            attempts += 1;
            let answer = self.attempt(planned).await;
            match &answer {
                Ok(answer) if attempts <= self.spec.retries && refusal(answer).is_some() => {
                    tokio::time::sleep(answer.retry_after().unwrap_or(Duration::from_secs(1))).await;
                }
                _ => break answer,
            }
        };
        let sample = sample(planned, due, late, attempts, &answer);
        self.report.lock().unwrap_or_else(PoisonError::into_inner).samples.push(sample);
    }

    async fn attempt(&self, planned: &Planned) -> Result<Answer, String> {
        let request = self.request(planned).map_err(|error| error.to_string())?;
        match tokio::time::timeout(self.spec.timeout, self.client.send(request)).await {
            Ok(answer) => answer.map_err(|error| format!("{error:#}")),
            Err(_) => Err(format!("no answer within {} s", self.spec.timeout.as_secs_f64())),
        }
    }

    fn request(&self, planned: &Planned) -> Result<Request<Full<Bytes>>, http::Error> {
        let text = "tide".repeat(planned.prompt_tokens as usize);
        let mut body = json!({"model": self.spec.model, "max_tokens": planned.output_tokens,
            "stream": self.spec.stream});
        if self.url.path().ends_with("/chat/completions") {
            body["messages"] = json!([{"role": "user", "content": text}]);
        } else {
            body["prompt"] = text.into();
        }
        let path = self.url.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        let host = self.url.authority().map_or("", http::uri::Authority::as_str);
        let mut request =
            Request::post(path).header(header::HOST, host).header(header::CONTENT_TYPE, "application/json");
        if let Some(class) = planned.class {
            request = request.header("x-priority", report::name(Some(class)));
        }
        if let Some(key) = &planned.key {
            request = request.header("x-api-key", key);
        }
        for (name, value) in &self.spec.headers {
            request = request.header(name, value);
        }
        request.body(Full::from(body.to_string()))
    }
}

fn sample(
    planned: &Planned,
    due: Instant,
    late: Duration,
    attempts: u32,
    answer: &Result<Answer, String>,
) -> Sample {
    let (status, outcome, end, first_byte, retry_after) = match answer {
        Ok(answer) => (answer.status, outcome(answer), answer.end, answer.first_byte, answer.retry_after()),
        Err(error) => (0, Outcome::Lost { error: error.clone() }, Instant::now(), None, None),
    };
    Sample {
        at: planned.at,
        late,
        class: planned.class,
        status,
        outcome,
        retry_after,
        ttft: first_byte.map(|first| first.saturating_duration_since(due)),
        total: end.saturating_duration_since(due),
        attempts,
    }
}

fn outcome(answer: &Answer) -> Outcome {
    if let Some((cause, reason)) = refusal(answer) {
        return Outcome::Refused { cause, reason };
    }
    if !(200..300).contains(&answer.status) {
        return Outcome::Failed;
    }
    // The engine's mark of its fallback, or the sidecar's reason why there is one.
    if answer.header("x-engine-fallback").is_some() || answer.header("x-tidegate-reason").is_some() {
        return Outcome::Fallback;
    }
    if answer.is_event_stream() && !answer.tail.ends_with(b"data: [DONE]\n\n") {
        return Outcome::Lost { error: "the stream ended without [DONE]".to_owned() };
    }
    Outcome::Served
}

/// Cause and whole reason of an answer that is a refusal: a 429 or 503 that says why.
fn refusal(answer: &Answer) -> Option<(String, String)> {
    if !matches!(answer.status, 429 | 503) {
        return None;
    }
    let reason = answer.header("x-tidegate-reason")?;
    let cause = reason.split(';').next().unwrap_or(reason).trim();
    Some((cause.to_owned(), reason.to_owned()))
}
