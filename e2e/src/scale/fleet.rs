//! Many sidecars in one process: what they do on the wire is what the real one does, with its pauses, its reports and
//! its tokens.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::objects::{EVERYWHERE, MARK};
use super::session::{self, Ended};
use crate::random::Random;

/// The pauses between two attempts of a sidecar.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(10);
/// Over this they come back that have lost a stream that was well.
const RETURN: Duration = Duration::from_secs(2);
/// A stream that lived this long was not broken from the start.
const HEALTHY_LIFE: Duration = Duration::from_secs(10);

/// Where the sidecars connect, and by what they know the operator.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) address: SocketAddr,
    pub(super) tls: watch::Receiver<Arc<ClientConfig>>,
}

/// What one sidecar knows.
#[derive(Debug, Default, Clone)]
pub(super) struct Known {
    pub(super) revision: String,
    /// The version of the policy of every pod, and when it came.
    version: Option<(u64, Instant)>,
}

/// What all of them have seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// When a stream opened.
    opened: Mutex<Vec<Instant>>,
    /// Answers that were none of a stream, and what they said first.
    refused: AtomicU64,
    refusal: Mutex<Option<String>>,
    /// Documents that came.
    documents: AtomicU64,
}

pub(super) struct Sidecar {
    pub(super) token: String,
    pub(super) known: Mutex<Known>,
    seen: Arc<Seen>,
}

/// All sidecars; they end with it.
pub(super) struct Fleet {
    sidecars: Vec<Arc<Sidecar>>,
    seen: Arc<Seen>,
    _tasks: JoinSet<()>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Fleet {
    /// One sidecar for each pod, each with the token of its pod.
    pub(super) fn start(
        tokens: Vec<String>,
        address: SocketAddr,
        tls: watch::Receiver<Arc<ClientConfig>>,
    ) -> Self {
        let seen = Arc::new(Seen::default());
        let mut tasks = JoinSet::new();
        let target = Target { address, tls };
        let sidecar = |token| Arc::new(Sidecar { token, known: Mutex::default(), seen: Arc::clone(&seen) });
        let sidecars: Vec<_> = tokens.into_iter().map(sidecar).collect();
        for (n, sidecar) in sidecars.iter().enumerate() {
            tasks.spawn(follow(Arc::clone(sidecar), target.clone(), n as u64));
        }
        Self { sidecars, seen, _tasks: tasks }
    }

    /// When the last sidecar got this version of the policy of every pod; the number of those without when there are any.
    pub(super) fn obeys(&self, version: u64) -> Result<Option<Instant>, usize> {
        let known = self.sidecars.iter().map(|sidecar| lock(&sidecar.known).version);
        let at: Vec<Option<Instant>> =
            known.map(|known| known.filter(|(held, _)| *held == version).map(|(_, at)| at)).collect();
        let without = at.iter().filter(|at| at.is_none()).count();
        if without > 0 { Err(without) } else { Ok(at.into_iter().flatten().max()) }
    }

    /// Begins to count anew: streams opened, answers that refused, documents.
    pub(super) fn forget(&self) {
        lock(&self.seen.opened).clear();
        self.seen.refused.store(0, Ordering::Relaxed);
        self.seen.documents.store(0, Ordering::Relaxed);
    }

    /// When streams opened since it was told to forget, in order.
    pub(super) fn opened(&self) -> Vec<Instant> {
        let mut opened = lock(&self.seen.opened).clone();
        opened.sort_unstable();
        opened
    }

    /// Answers of the operator that let nobody in, and the first of them.
    pub(super) fn refused(&self) -> (u64, Option<String>) {
        (self.seen.refused.load(Ordering::Relaxed), lock(&self.seen.refusal).clone())
    }

    /// Documents that came.
    pub(super) fn documents(&self) -> u64 {
        self.seen.documents.load(Ordering::Relaxed)
    }
}

impl Sidecar {
    pub(super) fn opened(&self) {
        lock(&self.seen.opened).push(Instant::now());
    }

    pub(super) fn revision(&self) -> String {
        lock(&self.known).revision.clone()
    }

    /// Obeys a document.
    pub(super) fn take(&self, document: &Value) {
        let at = Instant::now();
        let limits = document["limits"].as_array().into_iter().flatten();
        let size =
            limits.filter(|limit| limit["name"] == EVERYWHERE).find_map(|limit| limit["limit"].as_u64());
        self.seen.documents.fetch_add(1, Ordering::Relaxed);
        let mut known = lock(&self.known);
        document["revision"].as_str().unwrap_or_default().clone_into(&mut known.revision);
        known.version = size.map(|size| (size - MARK, at));
    }
}

async fn follow(sidecar: Arc<Sidecar>, target: Target, seed: u64) {
    let mut random = Random::new(seed);
    let mut pause = FIRST_PAUSE;
    loop {
        let start = Instant::now();
        match session::run(&sidecar, &target).await {
            Ended::Refused(why) => {
                sidecar.seen.refused.fetch_add(1, Ordering::Relaxed);
                lock(&sidecar.seen.refusal).get_or_insert(why);
            }
            Ended::Unreachable | Ended::Broke => {}
        }
        if start.elapsed() >= HEALTHY_LIFE {
            pause = FIRST_PAUSE;
            tokio::time::sleep(RETURN.mul_f64(random.uniform())).await;
            continue;
        }
        tokio::time::sleep(pause / 2 + (pause / 2).mul_f64(random.uniform())).await;
        pause = (pause * 2).min(LAST_PAUSE);
    }
}
