//! Tells others when the circuit breaker changes its state.
//!
//! The state is in force before anybody is told: no request ever waits for a hook. A change is seen within a tick. Sync
//! hooks are told first, all at once, and until each of them has answered or [`PATIENCE`] is over nothing else is told of
//! it: neither the operator nor async hooks nor any hook of the change after it. Async hooks have a pool of their own and a
//! queue of [`QUEUE`] places; what is not delivered [`PATIENCE`] after its change was told is dropped.

mod event;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, header};
use http_body_util::Full;
use tidegate_policy::report::{BreakerState, BreakerStatus};
use tidegate_policy::{Hook, HookEvent, HookMode};
use tokio::sync::{Mutex, mpsc};
use tokio::time::{Instant, timeout_at};
use tracing::warn;

use crate::fallback::remote::{self, Outgoing};
use crate::metrics::HookOutcome;
use crate::policy::Keeper;
use crate::shared::Shared;

/// A hook that has not answered by then is given up.
const PATIENCE: Duration = Duration::from_millis(200);

/// Events that wait for a place in the pool, and changes that wait to be told.
const QUEUE: usize = 64;

/// Async hooks that are asked at once.
const POOL: usize = 4;

/// Finds the changes between two looks, however short they were: by how often each has happened.
#[derive(Debug, Default)]
pub struct Changes {
    policy: String,
    counts: Vec<u64>,
}

/// A change that somebody wants to be told of.
#[derive(Debug)]
pub struct Told {
    body: Bytes,
    sync: Vec<Hook>,
    r#async: Vec<Hook>,
}

/// An event on its way to an async hook.
struct Delivery {
    hook: Hook,
    body: Bytes,
    until: Instant,
}

impl Changes {
    /// What has changed since the last look, in the order in which it can have happened.
    pub fn look(&mut self, breaker: Option<&BreakerStatus>, hooks: &[Hook]) -> Vec<Told> {
        let Some(breaker) = breaker else {
            *self = Self::default();
            return Vec::new();
        };
        let counts: Vec<u64> = breaker.transitions.iter().map(|moved| moved.count).collect();
        if self.policy != breaker.policy || self.counts.len() != counts.len() {
            self.policy.clone_from(&breaker.policy);
            self.counts = vec![0; counts.len()];
        }
        let told = breaker
            .transitions
            .iter()
            .zip(&self.counts)
            .filter(|(moved, before)| moved.count > **before)
            .filter_map(|(moved, _)| told(breaker, moved.from, moved.to, hooks))
            .collect();
        self.counts = counts;
        told
    }
}

fn told(breaker: &BreakerStatus, from: BreakerState, to: BreakerState, hooks: &[Hook]) -> Option<Told> {
    let on = match to {
        BreakerState::Open => HookEvent::Opened,
        BreakerState::HalfOpen => HookEvent::HalfOpened,
        BreakerState::Closed => HookEvent::Closed,
    };
    let wanted = hooks.iter().filter(|hook| hook.on.contains(&on)).cloned();
    let (sync, r#async): (Vec<_>, Vec<_>) = wanted.partition(|hook| hook.mode == HookMode::Sync);
    let any = !sync.is_empty() || !r#async.is_empty();
    any.then(|| Told { body: event::body(breaker, from, to, on), sync, r#async })
}

impl Told {
    /// Whether the operator has to wait for it.
    pub fn is_sync(&self) -> bool {
        !self.sync.is_empty()
    }
}

/// A place for changes to be told, and who tells them.
pub fn start(shared: &Arc<Shared>, keeper: &Arc<Keeper>) -> mpsc::Sender<Told> {
    let (sender, changes) = mpsc::channel(QUEUE);
    let (pool, deliveries) = mpsc::channel(QUEUE);
    let deliveries = Arc::new(Mutex::new(deliveries));
    for _ in 0..POOL {
        tokio::spawn(deliver(Arc::clone(shared), Arc::clone(&deliveries)));
    }
    tokio::spawn(tell(Arc::clone(shared), Arc::clone(keeper), changes, pool));
    sender
}

/// Tells one change after the other.
async fn tell(
    shared: Arc<Shared>,
    keeper: Arc<Keeper>,
    mut changes: mpsc::Receiver<Told>,
    pool: mpsc::Sender<Delivery>,
) {
    while let Some(Told { body, sync, r#async }) = changes.recv().await {
        let until = Instant::now() + PATIENCE;
        let all: Vec<_> = sync
            .into_iter()
            .map(|hook| {
                let (shared, body) = (Arc::clone(&shared), body.clone());
                tokio::spawn(async move { ask(&shared, Delivery { hook, body, until }).await })
            })
            .collect();
        for asked in all {
            // It ends in time, and a panic in it is nobody else's.
            let _ended = asked.await;
        }
        keeper.announce();
        let until = Instant::now() + PATIENCE;
        for hook in r#async {
            if let Err(full) = pool.try_send(Delivery { hook, body: body.clone(), until }) {
                let delivery = full.into_inner();
                shared.metrics.hooks.asked(&delivery.hook, HookOutcome::Dropped);
            }
        }
    }
}

async fn deliver(shared: Arc<Shared>, deliveries: Arc<Mutex<mpsc::Receiver<Delivery>>>) {
    loop {
        let Some(delivery) = deliveries.lock().await.recv().await else { return };
        if Instant::now() >= delivery.until {
            shared.metrics.hooks.asked(&delivery.hook, HookOutcome::Dropped);
        } else {
            ask(&shared, delivery).await;
        }
    }
}

async fn ask(shared: &Shared, Delivery { hook, body, until }: Delivery) {
    let outcome = match timeout_at(until, post(&hook, body)).await {
        Ok(Ok(())) => HookOutcome::Delivered,
        Ok(Err(error)) => {
            warn!(hook = hook.name, cause = format!("{error:#}"), "a hook failed");
            HookOutcome::Failed
        }
        Err(_) => HookOutcome::TimedOut,
    };
    shared.metrics.hooks.asked(&hook, outcome);
}

async fn post(hook: &Hook, body: Bytes) -> Result<()> {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/cloudevents+json"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    let path = PathAndQuery::from_static("/");
    let outgoing = Outgoing { method: Method::POST, path, headers, body: Full::new(body) };
    let response = remote::send(&hook.url, outgoing).await?;
    if !response.status().is_success() {
        bail!("it answered {}", response.status());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tidegate_core::Engine;
    use tidegate_policy::report::Transition;
    use tidegate_policy::{HttpUrl, Mode, PolicyDocument};

    use super::*;
    use crate::caps::Caps;
    use crate::clock::Clock;

    fn hook(mode: HookMode, on: &[HookEvent]) -> Hook {
        let url = HttpUrl::new("http://a").unwrap();
        Hook { name: "a".to_owned(), url, mode, on: on.to_vec() }
    }

    fn breaker(counts: [u64; 3]) -> BreakerStatus {
        use BreakerState::{Closed, HalfOpen, Open};
        let moved = [(Closed, Open), (Open, HalfOpen), (HalfOpen, Closed)];
        BreakerStatus {
            policy: "a/b".to_owned(),
            mode: Mode::Enforce,
            state: Closed,
            failure_ratio: Some(0.5),
            consecutive_failures: 3,
            last_trigger_reason: Some("5xx_rate_85%_in_30s".to_owned()),
            half_open_in_millis: None,
            transitions: moved
                .into_iter()
                .zip(counts)
                .map(|((from, to), count)| Transition { from, to, count })
                .collect(),
            groups: None,
            stages: Vec::new(),
        }
    }

    #[test]
    fn a_change_is_told_once_even_when_it_was_over_before_the_next_look() {
        let mut changes = Changes::default();
        let hooks = [
            hook(HookMode::Sync, &[HookEvent::Opened]),
            hook(HookMode::Async, &[HookEvent::Opened, HookEvent::Closed]),
        ];
        assert!(changes.look(Some(&breaker([0, 0, 0])), &hooks).is_empty());
        let told = changes.look(Some(&breaker([1, 1, 1])), &hooks);
        let numbers: Vec<_> = told.iter().map(|told| (told.sync.len(), told.r#async.len())).collect();
        assert_eq!(numbers, [(1, 1), (0, 1)], "opened and closed; nobody asks for half-opened");
        assert!(changes.look(Some(&breaker([1, 1, 1])), &hooks).is_empty());
        assert_eq!(changes.look(Some(&breaker([2, 1, 1])), &hooks).len(), 1);
        assert!(changes.look(None, &hooks).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_answer_is_given_up_when_the_time_is_over() {
        // It is connected to by the kernel, and nobody ever reads. Only the clock of this test goes on meanwhile.
        let stuck = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = HttpUrl::new(&format!("http://{}/", stuck.local_addr().unwrap())).unwrap();
        let clock = Clock::new();
        let engine = Engine::new(&PolicyDocument::default(), 7, clock.now());
        let shared = Shared::new(engine, clock, Caps::DEFAULT);
        let began = Instant::now();
        let hook = Hook { url, ..hook(HookMode::Sync, &[HookEvent::Opened]) };
        ask(&shared, Delivery { hook, body: Bytes::new(), until: began + PATIENCE }).await;
        assert!(
            (PATIENCE..PATIENCE + Duration::from_millis(2)).contains(&began.elapsed()),
            "{:?}",
            began.elapsed()
        );
        let told = r#"tidegate_hooks_total{hook="a",mode="sync",outcome="timed_out"} 1"#;
        assert!(shared.render_metrics().contains(told), "{}", shared.render_metrics());
    }

    #[test]
    fn the_event_says_what_a_reader_of_the_log_would_be_told() {
        let body =
            event::body(&breaker([1, 0, 0]), BreakerState::Closed, BreakerState::Open, HookEvent::Opened);
        let event: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(event["specversion"], "1.0");
        assert_eq!(event["type"], "dev.tidegate.breaker.opened");
        assert_eq!(event["subject"], "a/b");
        assert_eq!(event["data"]["from"], "closed");
        assert_eq!(event["data"]["reason"], "5xx_rate_85%_in_30s");
        assert!(event["time"].as_str().unwrap().ends_with('Z'));
    }
}
