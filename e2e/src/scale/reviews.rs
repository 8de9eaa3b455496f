//! Admission reviews, sent to the webhook itself as the API server would.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use http::Request;
use http_body_util::{BodyExt as _, Full};
use json_patch::Patch;
use k8s_openapi::api::core::v1::Pod;
use rustls::ClientConfig;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::Size;
use super::objects::{NAMESPACE, pod};
use super::operator::SERVER_NAME;
use super::session::{Sender, shake_hands};

/// Somebody who asks the webhook, each time over a connection of its own.
#[derive(Clone)]
pub struct Reviewer {
    pub(super) address: SocketAddr,
    pub(super) trust: watch::Receiver<Arc<ClientConfig>>,
    pub(super) size: Size,
}

impl Reviewer {
    /// What pods believe now.
    pub fn trust(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.trust.borrow())
    }

    /// Has a pod injected by whoever is believed so.
    pub async fn review(&self, tls: &Arc<ClientConfig>) -> anyhow::Result<()> {
        let webhook = Webhook::connect(self.address, tls).await?;
        webhook.inject(0, &self.size).await.map(drop)
    }
}

/// Reviews at the same time while pods are made.
const AT_ONCE: usize = 16;

/// A connection to the webhook.
#[derive(Clone)]
pub(super) struct Webhook {
    sender: Sender,
    port: u16,
}

impl Webhook {
    /// Connects.
    pub(super) async fn connect(address: SocketAddr, tls: &Arc<ClientConfig>) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        Ok(Self { sender: shake_hands(stream, Arc::clone(tls)).await?, port: address.port() })
    }

    /// The whole answer to a review.
    async fn review(&self, review: Bytes) -> anyhow::Result<Bytes> {
        let request = Request::post(format!("https://{SERVER_NAME}:{}/mutate?timeout=5s", self.port))
            .header("content-type", "application/json")
            .body(Full::new(review))?;
        let response = self.sender.clone().send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        anyhow::ensure!(status.is_success(), "{status}: {}", String::from_utf8_lossy(&body));
        Ok(body)
    }

    /// The nth pod with its sidecar.
    async fn inject(&self, n: usize, size: &Size) -> anyhow::Result<Pod> {
        let mut pod = pod(n, size);
        let answer: Value = serde_json::from_slice(&self.review(asked(&pod)).await?)?;
        let patch = answer["response"]["patch"].as_str();
        let patch = patch.with_context(|| format!("the webhook did not inject: {answer}"))?;
        let patch: Patch = serde_json::from_slice(&STANDARD.decode(patch)?)?;
        json_patch::patch(&mut pod, &patch)?;
        Ok(serde_json::from_value(pod)?)
    }

    /// All pods with their sidecars.
    pub(super) async fn inject_all(&self, size: &Size) -> anyhow::Result<Vec<Pod>> {
        stream::iter(0..size.pods).map(|n| self.inject(n, size)).buffered(AT_ONCE).try_collect().await
    }

    /// Reviews at a constant rate, however long the answers take. Returns the latency of each, from the instant at which
    /// it was due to the last byte of the answer, the shortest first.
    pub(super) async fn load(
        &self,
        rate: u32,
        length: Duration,
        size: &Size,
    ) -> anyhow::Result<Vec<Duration>> {
        let reviews: Vec<Bytes> = (0..size.workloads()).map(|n| asked(&pod(n, size))).collect();
        let count = (length.as_secs_f64() * f64::from(rate)) as u32;
        let (sender, mut due) = mpsc::unbounded_channel();
        // A thread of its own: the runtime's timers are late by up to a millisecond.
        std::thread::spawn(move || {
            let start = Instant::now();
            for n in 0..count {
                let due = start + Duration::from_secs(1) * n / rate;
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                _ = sender.send(due);
            }
        });
        let mut running = JoinSet::new();
        for review in reviews.iter().cycle() {
            let Some(due) = due.recv().await else { break };
            let (webhook, review) = (self.clone(), review.clone());
            running.spawn(async move {
                let answer = webhook.review(review).await?;
                let took = due.elapsed();
                let answer: Value = serde_json::from_slice(&answer)?;
                anyhow::ensure!(answer["response"]["patch"].is_string(), "not injected: {answer}");
                anyhow::Ok(took)
            });
        }
        let mut took: Vec<Duration> = running.join_all().await.into_iter().collect::<anyhow::Result<_>>()?;
        took.sort_unstable();
        Ok(took)
    }
}

/// The review of a new pod.
fn asked(pod: &Value) -> Bytes {
    let review = json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002", "operation": "CREATE", "namespace": NAMESPACE,
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "name": pod["metadata"]["name"], "object": pod, "dryRun": false, "options": null,
            "userInfo": {"username": "system:serviceaccount:kube-system:replicaset-controller"},
        },
    });
    Bytes::from(review.to_string())
}
