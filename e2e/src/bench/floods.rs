//! A good client beside clients that flood: how late its answers become, and what the sidecar keeps for the others.

mod attack;
mod frames;

use std::{
    io::Write as _,
    net::{SocketAddr, TcpStream},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use serde::Serialize;

use self::attack::FLOODS;
pub use self::attack::Flood;
use super::{
    backend,
    cpu::Effort,
    figure::{Figure, median, quantile},
    memory::{hold, read_small},
    peer::{Peer, Protocol},
    process::memory,
};
use crate::cluster::progress::Progress;

/// Connections of the good client, and the time between two requests on each.
const GOOD: usize = 8;
const PACE: Duration = Duration::from_millis(20);
/// Between the begin of a flood and the first request that counts.
const RISE: Duration = Duration::from_secs(2);
/// Between two looks at the memory.
const LOOK: Duration = Duration::from_millis(100);
/// What calm is left for after a flood, or after the start.
const REST: Duration = Duration::from_secs(1);
/// What a flood may do to the good client's slowest hundredth, and to the memory.
const MOST: f64 = 2.0;

/// The good client for a while.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Spell {
    /// The slowest hundredth of its answers, in milliseconds from when their requests were due.
    pub p99_ms: f64,
    /// Answers.
    pub answers: usize,
    /// Requests without one.
    pub failures: usize,
    /// Most that was resident, in MiB.
    pub rss: f64,
}

/// One flood beside its calm.
#[derive(Debug, Clone, Serialize)]
pub struct Rounds {
    /// What is done.
    pub flood: &'static str,
    /// Without the flood, beside as many connections of clients that behave.
    pub calm: Vec<Spell>,
    /// With it.
    pub flooded: Vec<Spell>,
}

impl Rounds {
    /// What was promised.
    pub fn figures(&self) -> Vec<Figure> {
        let ratios = |of: fn(&Spell) -> f64| {
            let pairs = self.calm.iter().zip(&self.flooded);
            median(&pairs.map(|(calm, flooded)| of(flooded) / of(calm)).collect::<Vec<_>>())
        };
        let middle =
            |spells: &[Spell], of: fn(&Spell) -> f64| median(&spells.iter().map(of).collect::<Vec<_>>());
        let note = |of: fn(&Spell) -> f64, unit: &str| {
            let (calm, flooded) = (middle(&self.calm, of), middle(&self.flooded, of));
            format!("median of {} rounds; {calm:.2} {unit}, then {flooded:.2} {unit}", self.calm.len())
        };
        let failures: usize = self.flooded.iter().map(|spell| spell.failures).sum();
        let answers: usize = self.flooded.iter().map(|spell| spell.answers).sum();
        let flood = self.flood;
        vec![
            Figure::at_most(
                format!("{flood}: good client's P99 ÷ calm"),
                ratios(|spell| spell.p99_ms),
                "",
                MOST,
                note(|spell| spell.p99_ms, "ms"),
            ),
            Figure::at_most(
                format!("{flood}: resident ÷ calm"),
                ratios(|spell| spell.rss),
                "",
                MOST,
                note(|spell| spell.rss, "MiB"),
            ),
            Figure::at_most(
                format!("{flood}: good client's failures"),
                failures as f64,
                "",
                0.0,
                format!("beside {answers} answers"),
            ),
        ]
    }
}

/// Lets each flood come in each round, to a sidecar of its own.
pub async fn measure(
    sidecar: &Peer,
    directory: &Path,
    effort: Effort,
    progress: &Progress,
) -> anyhow::Result<Vec<Rounds>> {
    let backend = backend::start()?;
    let mut all = Vec::new();
    for flood in FLOODS {
        let mut rounds = Rounds { flood: flood.name, calm: Vec::new(), flooded: Vec::new() };
        for _ in 0..effort.rounds {
            let server = sidecar.start(backend, directory, Protocol::Http1).await?;
            let (address, pid) = (server.address, server.pid()?);
            let (calm, flooded) =
                tokio::task::spawn_blocking(move || pair(address, pid, flood, effort.length)).await??;
            progress.say(format_args!("{}: calm {calm:?}, flooded {flooded:?}", flood.name));
            rounds.calm.push(calm);
            rounds.flooded.push(flooded);
            server.stop().await?;
        }
        all.push(rounds);
    }
    Ok(all)
}

/// Calm beside as many connections as the flood will need, then the flood.
fn pair(address: SocketAddr, pid: u32, flood: Flood, length: Duration) -> anyhow::Result<(Spell, Spell)> {
    thread::sleep(REST);
    let mut held = Vec::new();
    hold(address, &mut held, flood.places)?;
    let calm = good(address, pid, length)?;
    drop(held);
    thread::sleep(REST);
    let stop = AtomicBool::new(false);
    let flooded = thread::scope(|scope| {
        for _ in 0..flood.attackers {
            scope.spawn(|| (flood.attack)(address, &stop));
        }
        thread::sleep(RISE);
        let flooded = good(address, pid, length);
        stop.store(true, Ordering::Relaxed);
        flooded
    })?;
    Ok((calm, flooded))
}

/// The good client: each request has its time, whether the one before was answered or not.
fn good(address: SocketAddr, pid: u32, length: Duration) -> anyhow::Result<Spell> {
    let start = Instant::now();
    thread::scope(|scope| {
        let clients: Vec<_> = (0..GOOD)
            .map(|number| {
                scope.spawn(move || client(address, start + PACE * number as u32 / GOOD as u32, length))
            })
            .collect();
        let mut spell = Spell::default();
        while start.elapsed() < length {
            spell.rss = spell.rss.max(memory(pid)?.rss as f64 / 1024.0);
            thread::sleep(LOOK);
        }
        let mut late = Vec::new();
        for client in clients {
            let (answers, failures) = client.join().unwrap_or_default();
            late.extend(answers);
            spell.failures += failures;
        }
        spell.answers = late.len();
        spell.p99_ms = quantile(&mut late, 0.99);
        Ok(spell)
    })
}

/// How late the answers on one connection were, in milliseconds, and how many never came.
fn client(address: SocketAddr, mut due: Instant, length: Duration) -> (Vec<f64>, usize) {
    let (mut late, mut failures) = (Vec::new(), 0);
    let end = due + length;
    let mut connection = None;
    while due < end {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if ask(address, &mut connection).is_ok() {
            late.push(due.elapsed().as_secs_f64() * 1000.0);
        } else {
            failures += 1;
            connection = None;
        }
        due += PACE;
    }
    (late, failures)
}

fn ask(address: SocketAddr, connection: &mut Option<TcpStream>) -> anyhow::Result<()> {
    if connection.is_none() {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        *connection = Some(stream);
    }
    let Some(stream) = connection else { return Ok(()) };
    write!(stream, "GET {} HTTP/1.1\r\nHost: bench\r\nx-api-key: good\r\n\r\n", backend::SMALL)?;
    read_small(stream)
}
