//! What the inference engine says about its own load, read once a second from its `/metrics` in the same pod.
//!
//! When a reading can't be had, nothing is told to the decision engine: its last one grows old, and each tier that
//! looks at it does what its `onStale` says.

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod series;
mod text;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tidegate_core::{EngineReading, Signal};
use tidegate_policy::KvCache;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{info, warn};

use crate::loopback;
use crate::shared::Shared;
use crate::stages::Histograms;
use crate::transport::Driven;
use series::{Engine, Load};

pub use series::EngineType;

/// Between two readings, and longest wait for one.
const PERIOD: Duration = KvCache::READ_EVERY;
/// Between two searches for metrics that were not found: most pods without them never get any.
const SEARCH_PERIOD: Duration = Duration::from_secs(10);
const PATH: &str = "/metrics";
/// An engine that serves many models has some hundred KiB.
const LARGEST_EXPOSITION: usize = 4 << 20;

/// Where an engine's metrics may be.
#[derive(Debug, Clone)]
pub struct Source {
    /// Asked in this order until one has metrics of an engine that is known.
    pub ports: Vec<u16>,
    /// Which engine it is; detected by the names of its metrics when absent.
    pub engine_type: Option<EngineType>,
}

/// Reads for ever.
pub async fn follow(source: Source, shared: Arc<Shared>) {
    let mut reader = Reader { source, found: None };
    let mut told = None;
    let mut histograms = Histograms::default();
    loop {
        let began = Instant::now();
        let read = reader.read().await;
        tell_change(&mut told, &read);
        match read {
            Ok(Read { of, load, exposition }) => {
                let now = shared.clock.now();
                let engine = shared.engine.load_full();
                engine.observe(now, Signal::Engine(reading(load, now)));
                histograms.look(&engine, now, |stage| of.times(&exposition, stage));
            }
            Err(_) => shared.metrics.engine_load_unknown(),
        }
        let period = if reader.found.is_some() { PERIOD } else { SEARCH_PERIOD };
        sleep_until(began + period).await;
    }
}

/// One line for each change between known and unknown, not for each reading. Many engines have no metrics, so
/// never to have found any is no reason to warn.
fn tell_change(told: &mut Option<bool>, read: &Result<Read>) {
    let before = told.replace(read.is_ok());
    match read {
        _ if before == Some(read.is_ok()) => {}
        Ok(Read { of, load, .. }) => info!(engine = ?of.kind, ?load, "the engine's own metrics are known"),
        Err(error) => {
            let cause = format!("{error:#}");
            if before.is_some() {
                warn!(cause, "the engine's own metrics are unknown");
            } else {
                info!(cause, "the engine's own metrics are unknown");
            }
        }
    }
}

fn reading(load: Load, at: tidegate_core::Tick) -> EngineReading {
    let count = |value: Option<f64>| value.map(|value| value as u64);
    EngineReading {
        kv_cache_usage: load.kv_cache_usage,
        running: count(load.running),
        waiting: count(load.waiting),
        preemptions: count(load.preemptions),
        at,
    }
}

/// One reading.
struct Read {
    of: &'static Engine,
    load: Load,
    exposition: String,
}

struct Reader {
    source: Source,
    found: Option<Found>,
}

/// The port that has the metrics, with a connection that is kept.
struct Found {
    port: u16,
    engine: &'static Engine,
    sender: SendRequest<Empty<Bytes>>,
    _driven: Driven,
}

impl Reader {
    async fn read(&mut self) -> Result<Read> {
        timeout(PERIOD, self.read_or_find()).await.context("no answer within a second")?
    }

    /// Reads on the connection that is there. A lost one, or an engine that no longer has its metrics, is looked
    /// for anew.
    async fn read_or_find(&mut self) -> Result<Read> {
        // Taken out, so that a reading that is given up on does not leave a connection in the middle of an answer.
        if let Some(mut found) = self.found.take()
            && let Ok(exposition) = ask(&mut found.sender, found.port).await
        {
            let load = found.engine.read(&exposition);
            if load != Load::default() {
                let of = found.engine;
                self.found = Some(found);
                return Ok(Read { of, load, exposition });
            }
        }
        self.find().await
    }

    async fn find(&mut self) -> Result<Read> {
        let mut problems = Vec::new();
        for port in self.source.ports.clone() {
            match self.try_port(port).await {
                Ok(read) => return Ok(read),
                Err(error) => problems.push(format!("port {port}: {error:#}")),
            }
        }
        bail!("{}", problems.join("; "))
    }

    async fn try_port(&mut self, port: u16) -> Result<Read> {
        let stream = loopback::connect(port).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let driven = Driven::spawn(connection);
        let exposition = ask(&mut sender, port).await?;
        let named = self.source.engine_type.and_then(Engine::of);
        let engine = named.or_else(|| Engine::detect(&exposition));
        let engine = engine.context("no metrics of an engine that is known")?;
        let load = engine.read(&exposition);
        if load == Load::default() {
            bail!("no metrics of {:?}", engine.kind);
        }
        self.found = Some(Found { port, engine, sender, _driven: driven });
        Ok(Read { of: engine, load, exposition })
    }
}

async fn ask(sender: &mut SendRequest<Empty<Bytes>>, port: u16) -> Result<String> {
    sender.ready().await?;
    let request = Request::get(PATH).header(header::HOST, format!("localhost:{port}")).body(Empty::new())?;
    let response = sender.send_request(request).await?;
    if response.status() != StatusCode::OK {
        bail!("{PATH} answered {}", response.status());
    }
    let body = Limited::new(response.into_body(), LARGEST_EXPOSITION).collect().await;
    let body = body.map_err(|error| anyhow::anyhow!(error)).context(PATH)?.to_bytes();
    String::from_utf8(body.into()).context(PATH)
}
