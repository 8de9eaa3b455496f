//! Streams of events at the pace of tokens: CPU time of the proxy for each stream, and how late events arrive.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use serde::Serialize;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    runtime::Builder,
    time::{MissedTickBehavior, interval_at, sleep},
};

use super::{
    cpu::Effort,
    figure::{Figure, median, quantile},
    peer::{Peer, Protocol},
    process::{cpu_time, memory},
};
use crate::{cluster::progress::Progress, server::Server};

/// Streams at once.
const STREAMS: [u32; 2] = [64, 400];
/// Between two events of a stream: 50 tokens a second.
const PACE: Duration = Duration::from_millis(20);
/// CPU time for a stream over that of nginx: passing through, and with tokens counted.
const PASSING: f64 = 1.0;
const COUNTING: f64 = 1.1;
/// What an event may lose on its way, in milliseconds.
const LATE: f64 = 1.0;
/// The way without a proxy, as it is called in the tables.
const DIRECT: &str = "no proxy";
/// Around the time at which an event was written, in nanoseconds since the start, of 16 digits.
const BEFORE: &str = "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\
    \"model\":\"llama\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"tide\"},\"finish_reason\":null}],\"at\":\"";
const BEHIND: &str = "\"}\n\n";
const DIGITS: usize = 16;

/// One measurement.
#[derive(Debug, Clone, Serialize)]
pub struct Cost {
    /// The proxy's name.
    pub peer: &'static str,
    /// CPU time of the proxy for each event, in microseconds; none without a proxy.
    pub micros: f64,
    /// From the write of an event to its arrival, in milliseconds.
    pub p50_ms: f64,
    /// The same for the slowest hundredth.
    pub p99_ms: f64,
    /// Events that arrived.
    pub events: usize,
    /// Resident memory at the end, in KiB.
    pub rss: u64,
}

/// All rounds with so many streams.
#[derive(Debug, Clone, Serialize)]
pub struct Rounds {
    /// Streams at once.
    pub streams: u32,
    /// For each round a measurement of each proxy.
    pub rounds: Vec<Vec<Cost>>,
}

impl Rounds {
    fn of(&self, peer: &str) -> impl Iterator<Item = &Cost> {
        self.rounds.iter().flatten().filter(move |cost| cost.peer == peer)
    }

    /// What was promised of it.
    pub fn figures(&self) -> Vec<Figure> {
        let streams = self.streams;
        let mut figures = Vec::new();
        for (ours, what, bound) in
            [(Peer::OURS, "", PASSING), (Peer::OURS_COUNTING, " with tokens counted", COUNTING)]
        {
            let pairs = self.of(ours).zip(self.of("nginx"));
            let ratios: Vec<f64> = pairs.map(|(ours, theirs)| ours.micros / theirs.micros).collect();
            if !ratios.is_empty() {
                let name = format!("{streams} streams: CPU per stream{what} ÷ nginx");
                figures.push(Figure::ratio(name, &ratios, bound));
            }
        }
        for peer in self.rounds.first().into_iter().flatten().map(|cost| cost.peer) {
            let late = |of: fn(&Cost) -> f64| median(&self.of(peer).map(of).collect::<Vec<_>>());
            let note =
                format!("median of {} rounds; half of them {:.2} ms", self.rounds.len(), late(|c| c.p50_ms));
            let name = format!("{streams} streams: P99 delay of an event, {peer}");
            let p99 = late(|cost| cost.p99_ms);
            figures.push(match peer {
                Peer::OURS | Peer::OURS_COUNTING => Figure::at_most(name, p99, "ms", LATE, note),
                _ => Figure::told(name, p99, "ms", note),
            });
            if peer != DIRECT {
                let micros = late(|cost| cost.micros);
                figures.push(Figure::told(
                    format!("{streams} streams: CPU per event, {peer}"),
                    micros,
                    "µs",
                    "",
                ));
            }
        }
        figures
    }
}

/// Measures all peers, and the way without any.
pub async fn measure(
    peers: &[Peer],
    directory: &Path,
    effort: Effort,
    progress: &Progress,
) -> anyhow::Result<Vec<Rounds>> {
    let start = Instant::now();
    let backend = source(start)?;
    let mut running = Vec::new();
    for peer in peers {
        running.push((peer.name(), peer.start(backend, directory, Protocol::Http1).await?));
    }
    let mut all = Vec::new();
    for streams in STREAMS {
        let mut rounds = Vec::new();
        for number in 1..=effort.rounds {
            let mut round = vec![one(DIRECT, None, backend, streams, effort.length, start).await?];
            for (peer, proxy) in &running {
                round.push(one(peer, Some(proxy), proxy.address, streams, effort.length, start).await?);
            }
            let costs =
                round.iter().map(|c| format!("{} {:.2} µs, P99 {:.2} ms", c.peer, c.micros, c.p99_ms));
            let costs = costs.collect::<Vec<_>>().join("; ");
            progress.say(format_args!("{streams} streams, round {number}: {costs}"));
            rounds.push(round);
        }
        all.push(Rounds { streams, rounds });
    }
    for (_, proxy) in running {
        proxy.stop().await?;
    }
    Ok(all)
}

async fn one(
    peer: &'static str,
    proxy: Option<&Server>,
    address: SocketAddr,
    streams: u32,
    length: Duration,
    start: Instant,
) -> anyhow::Result<Cost> {
    let pid = proxy.map(Server::pid).transpose()?;
    let before = pid.map(cpu_time).transpose()?.unwrap_or_default();
    let reader = std::thread::spawn(move || read(address, streams, length, start));
    // The thread ends with the streams; the runtime goes on meanwhile.
    let mut late = tokio::task::spawn_blocking(move || reader.join())
        .await?
        .map_err(|_| anyhow::anyhow!("the reader panicked"))??;
    let spent = pid.map(cpu_time).transpose()?.unwrap_or_default().saturating_sub(before);
    let wanted = f64::from(streams) * length.as_secs_f64() / PACE.as_secs_f64();
    ensure!(late.len() as f64 > 0.8 * wanted, "{peer}: {} events of {wanted} arrived", late.len());
    Ok(Cost {
        peer,
        micros: spent.as_secs_f64() * 1e6 / late.len() as f64,
        p50_ms: quantile(&mut late, 0.5),
        p99_ms: quantile(&mut late, 0.99),
        events: late.len(),
        rss: pid.map(memory).transpose()?.unwrap_or_default().rss,
    })
}

/// Opens the streams, spread over the pace, and returns how late each event came, in milliseconds.
fn read(address: SocketAddr, streams: u32, length: Duration, start: Instant) -> anyhow::Result<Vec<f64>> {
    let late = Arc::new(Mutex::new(Vec::new()));
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..streams {
            let late = Arc::clone(&late);
            tasks.spawn(async move {
                sleep(PACE * number / streams).await;
                let seen = stream(address, length, start).await?;
                late.lock().map_err(|_| anyhow::anyhow!("a reader panicked"))?.extend(seen);
                anyhow::Ok(())
            });
        }
        while let Some(ended) = tasks.join_next().await {
            ended??;
        }
        anyhow::Ok(())
    })?;
    let late = late.lock().map_err(|_| anyhow::anyhow!("a reader panicked"))?.clone();
    Ok(late)
}

async fn stream(address: SocketAddr, length: Duration, start: Instant) -> anyhow::Result<Vec<f64>> {
    let mut stream = TcpStream::connect(address).await?;
    let events = length.as_millis() / PACE.as_millis();
    let request = format!(
        "GET /v1/chat/completions?events={events} HTTP/1.1\r\nHost: bench\r\nx-api-key: bench\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let (mut late, mut text) = (Vec::new(), Vec::new());
    let mark = b"\"at\":\"";
    loop {
        let read = stream.read_buf(&mut text).await?;
        ensure!(read > 0, "a stream broke off");
        let now = start.elapsed().as_nanos() as f64;
        let mut done = 0;
        while let Some(at) = text[done..].windows(mark.len()).position(|window| window == mark) {
            let digits = done + at + mark.len();
            let Some(digits) = text.get(digits..digits + DIGITS) else { break };
            let written: f64 = std::str::from_utf8(digits)?.parse()?;
            late.push((now - written) / 1e6);
            done += at + mark.len() + DIGITS;
        }
        if text.ends_with(b"0\r\n\r\n") {
            return Ok(late);
        }
        text.drain(..done);
    }
}

/// A server of such streams, on a thread of its own; it lives as long as the process.
fn source(start: Instant) -> anyhow::Result<SocketAddr> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("source".to_owned()).spawn(move || {
        let ended = runtime.block_on(async {
            let listener = TcpListener::from_std(listener)?;
            loop {
                let (stream, _) = listener.accept().await?;
                tokio::spawn(async move {
                    if let Err(error) = serve(stream, start).await {
                        tracing::debug!("source: {error:#}");
                    }
                });
            }
        });
        let ended: anyhow::Result<()> = ended;
        if let Err(error) = ended {
            tracing::error!("source: {error:#}");
        }
    })?;
    Ok(address)
}

async fn serve(mut stream: TcpStream, start: Instant) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let mut request = Vec::new();
    loop {
        while !request.ends_with(b"\r\n\r\n") {
            if stream.read_buf(&mut request).await? == 0 {
                return Ok(());
            }
        }
        let text = String::from_utf8_lossy(&request);
        let events = text.split_once("events=").and_then(|(_, rest)| rest.split([' ', '&']).next());
        let events: u64 = events.context("no number of events")?.parse()?;
        request.clear();
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
        stream.write_all(head.as_bytes()).await?;
        let mut ticks = interval_at(tokio::time::Instant::now() + PACE, PACE);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for _ in 0..events {
            ticks.tick().await;
            let size = BEFORE.len() + DIGITS + BEHIND.len();
            let now = start.elapsed().as_nanos();
            let chunk = format!("{size:x}\r\n{BEFORE}{now:0DIGITS$}{BEHIND}\r\n");
            stream.write_all(chunk.as_bytes()).await?;
        }
        stream.write_all(b"0\r\n\r\n").await?;
    }
}
