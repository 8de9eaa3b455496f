//! Steady traffic at one pod or Service while something happens to it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::Method;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::http::Http;

/// What a client sends.
#[derive(Debug, Clone)]
pub struct Client {
    /// Value of `X-Priority`.
    pub priority: &'static str,
    /// Requests per second.
    pub rate: f64,
}

/// How many answers there were, by priority and then by status; `lost` counts requests without an answer.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    answers: BTreeMap<(String, u16), u64>,
    /// Requests whose connection broke or that got no answer in time, with what was seen.
    pub lost: Vec<String>,
}

impl Tally {
    /// Answers of one status to one priority.
    pub fn of(&self, priority: &str, status: u16) -> u64 {
        self.answers.get(&(priority.to_owned(), status)).copied().unwrap_or(0)
    }

    /// All answers to one priority.
    pub fn all(&self, priority: &str) -> u64 {
        self.answers.iter().filter(|((of, _), _)| of == priority).map(|(_, count)| count).sum()
    }

    /// Share of answers with this status among all to one priority; 0 without answers.
    pub fn share(&self, priority: &str, status: u16) -> f64 {
        self.of(priority, status) as f64 / self.all(priority).max(1) as f64
    }

    fn add(&mut self, other: Self) {
        other.answers.into_iter().for_each(|(key, count)| *self.answers.entry(key).or_default() += count);
        self.lost.extend(other.lost);
    }
}

/// Traffic that runs until it is stopped.
pub struct Traffic {
    stop: Arc<AtomicBool>,
    senders: JoinSet<Tally>,
}

impl Traffic {
    /// Sends short completions to `url`, each client at its own steady rate and with its own connections.
    pub fn start(url: &str, clients: &[Client]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut senders = JoinSet::new();
        for client in clients {
            senders.spawn(send_steadily(url.to_owned(), client.clone(), Arc::clone(&stop)));
        }
        Self { stop, senders }
    }

    /// Sends for so long.
    pub async fn run(url: &str, clients: &[Client], length: Duration) -> anyhow::Result<Tally> {
        let traffic = Self::start(url, clients);
        tokio::time::sleep(length).await;
        traffic.stop().await
    }

    /// Ends the traffic, waits for every answer and counts them.
    pub async fn stop(mut self) -> anyhow::Result<Tally> {
        self.stop.store(true, Ordering::Relaxed);
        let mut tally = Tally::default();
        while let Some(sent) = self.senders.join_next().await {
            tally.add(sent?);
        }
        Ok(tally)
    }
}

async fn send_steadily(url: String, client: Client, stop: Arc<AtomicBool>) -> Tally {
    let http = Http::default();
    let mut requests = JoinSet::new();
    let mut pace = interval(Duration::from_secs_f64(1.0 / client.rate));
    pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
    while !stop.load(Ordering::Relaxed) {
        pace.tick().await;
        requests.spawn(send_one(http.clone(), url.clone(), client.priority));
    }
    let mut tally = Tally::default();
    while let Some(Ok(outcome)) = requests.join_next().await {
        match outcome {
            Ok(status) => *tally.answers.entry((client.priority.to_owned(), status)).or_default() += 1,
            Err(error) => tally.lost.push(error),
        }
    }
    tally
}

async fn send_one(http: Http, url: String, priority: &'static str) -> Result<u16, String> {
    let headers = [("content-type", "application/json"), ("x-priority", priority)];
    let body = r#"{"model": "sim", "prompt": "The tide", "max_tokens": 1}"#;
    let sent = Instant::now();
    let answer = http.send(Method::POST, &url, &headers, body).await;
    answer
        .map(|answer| answer.status.as_u16())
        .map_err(|error| format!("after {:?}: {error:#}", sent.elapsed()))
}
