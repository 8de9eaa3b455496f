//! How much later answers come through a proxy, at a constant rate of arrivals.
//!
//! The load is open: requests are due at times that are fixed beforehand, and one whose turn came while its connection was
//! still busy has waited since it was due, so that a proxy that stalls is charged with everybody it kept waiting
//! (coordinated omission). Each connection has a thread that blocks: its timer is exact to some 50 µs, which would otherwise
//! make bursts. What is told is the time beyond that without a proxy, of the same round.

use std::{
    net::{SocketAddr, TcpStream},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use serde::Serialize;

use super::{
    backend,
    cpu::Effort,
    figure::{Figure, median, quantile},
    memory,
    peer::{Peer, Protocol},
};
use crate::{cluster::progress::Progress, server::Server};

/// Connections, each with a thread.
const CONNECTIONS: u32 = 32;
/// Rates, as shares of what one closed loop on each connection brings through the sidecar.
const SHARES: [f64; 2] = [0.3, 0.7];
/// What the sidecar may add, over what the better of nginx and `HAProxy` adds.
const MEDIAN: f64 = 1.1;
const P99: f64 = 1.2;
/// What an agent that is of no use may do to the 99th percentile.
const DISTURBED: f64 = 1.02;
/// The way without a proxy, as it is called in the tables.
const DIRECT: &str = "no proxy";

/// One measurement, in microseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Delay {
    /// The proxy's name.
    pub peer: &'static str,
    /// Of half of the requests.
    pub p50: f64,
    /// Of all but a hundredth.
    pub p99: f64,
}

/// What is looked at of a measurement.
type Value = fn(&Delay) -> f64;

fn p50(delay: &Delay) -> f64 {
    delay.p50
}

fn p99(delay: &Delay) -> f64 {
    delay.p99
}

/// All rounds at one rate.
#[derive(Debug, Clone, Serialize)]
pub struct Rounds {
    /// Share of the capacity.
    pub share: f64,
    /// Requests a second.
    pub rate: f64,
    /// For each round a measurement of each proxy, without a proxy first.
    pub rounds: Vec<Vec<Delay>>,
}

impl Rounds {
    /// What was promised of the delay beside that of peers.
    pub fn figures(&self) -> Vec<Figure> {
        let mut figures = Vec::new();
        for (kind, value, bound) in [("median", p50 as Value, MEDIAN), ("P99", p99, P99)] {
            let at = format!("{:.0} % of capacity, {:.0} requests/s", self.share * 100.0, self.rate);
            let note = format!("medians of {} rounds", self.rounds.len());
            let name = format!("{at}: added {kind} ÷ the better of nginx and HAProxy");
            figures.push(Figure::at_most(name, self.ratio(value), "", bound, note));
            for peer in self.rounds.first().into_iter().flatten().map(|delay| delay.peer) {
                let delays: Vec<f64> = self.of(peer).map(value).collect();
                figures.push(Figure::told(format!("{at}: {kind}, {peer}"), median(&delays), "µs", ""));
            }
        }
        figures
    }

    /// What was promised of agents that are of no use.
    pub fn undisturbed(&self) -> Vec<Figure> {
        let peers = self.rounds.first().into_iter().flatten().map(|delay| delay.peer);
        let figure = |peer| {
            let ratios = self
                .rounds
                .iter()
                .filter_map(|round| Some(of(round, peer)?.p99 / of(round, Peer::OURS)?.p99));
            let ratios: Vec<f64> = ratios.collect();
            let note = format!("median of {} rounds at {:.0} requests/s", ratios.len(), self.rate);
            Figure::at_most(format!("P99, {peer} ÷ no agent"), median(&ratios), "", DISTURBED, note)
        };
        peers.filter(|peer| ![DIRECT, Peer::OURS].contains(peer)).map(figure).collect()
    }

    /// What a peer adds: the middle of the rounds, each beside the way without a proxy in it.
    fn added(&self, peer: &str, value: Value) -> f64 {
        let added = |round: &Vec<Delay>| Some(value(of(round, peer)?) - value(of(round, DIRECT)?));
        median(&self.rounds.iter().filter_map(added).collect::<Vec<_>>())
    }

    /// What the sidecar adds over what the best peer does. Not a number where noise is larger than that.
    fn ratio(&self, value: Value) -> f64 {
        let best =
            ["nginx", "haproxy"].map(|peer| self.added(peer, value)).into_iter().fold(f64::NAN, f64::min);
        if best > 0.0 { self.added(Peer::OURS, value) / best } else { f64::NAN }
    }

    fn of(&self, peer: &str) -> impl Iterator<Item = &Delay> {
        self.rounds.iter().flatten().filter(move |delay| delay.peer == peer)
    }
}

fn of<'a>(round: &'a [Delay], peer: &str) -> Option<&'a Delay> {
    round.iter().find(|delay| delay.peer == peer)
}

/// Measures all peers, and the way without any, at these shares of the sidecar's capacity.
pub async fn measure(
    shares: &[f64],
    peers: &[Peer],
    directory: &Path,
    effort: Effort,
    progress: &Progress,
) -> anyhow::Result<Vec<Rounds>> {
    let backend = backend::start()?;
    let mut running = Vec::new();
    for peer in peers {
        running.push((peer.name(), peer.start(backend, directory, Protocol::Http1).await?));
    }
    let ours =
        running.iter().find(|(name, _)| *name == Peer::OURS).context("the sidecar is not among the peers")?;
    let second = Duration::from_secs(1);
    let capacity = drive(ours.1.address, f64::INFINITY, second).await?.len() as f64;
    progress.say(format_args!("capacity with {CONNECTIONS} connections: {capacity:.0} requests/s"));
    let mut all = Vec::new();
    for share in shares {
        let rate = capacity * share;
        let mut rounds = Vec::new();
        for number in 1..=effort.rounds {
            let mut round = vec![one(DIRECT, backend, rate, effort.length).await?];
            for (peer, proxy) in &running {
                round.push(one(peer, proxy.address, rate, effort.length).await?);
            }
            let told: Vec<String> =
                round.iter().map(|d| format!("{} {:.0}/{:.0} µs", d.peer, d.p50, d.p99)).collect();
            progress.say(format_args!("{rate:.0} requests/s, round {number}: {}", told.join(", ")));
            rounds.push(round);
        }
        all.push(Rounds { share: *share, rate, rounds });
    }
    stop(running).await?;
    Ok(all)
}

async fn stop(running: Vec<(&str, Server)>) -> anyhow::Result<()> {
    for (_, proxy) in running {
        proxy.stop().await?;
    }
    Ok(())
}

/// Both rates of the promise.
pub const RATES: &[f64] = &SHARES;
/// One rate at which nothing but the disturbance is seen.
pub const CALM: &[f64] = &[SHARES[0]];

async fn one(peer: &'static str, address: SocketAddr, rate: f64, length: Duration) -> anyhow::Result<Delay> {
    let mut micros = drive(address, rate, length).await?;
    Ok(Delay { peer, p50: quantile(&mut micros, 0.5), p99: quantile(&mut micros, 0.99) })
}

/// Runs all connections; the time of each request in microseconds.
async fn drive(address: SocketAddr, rate: f64, length: Duration) -> anyhow::Result<Vec<f64>> {
    // Time to connect; then all begin.
    let start = Instant::now() + Duration::from_millis(200);
    let connections: Vec<_> = (0..CONNECTIONS)
        .map(|number| thread::spawn(move || connection(address, rate, number, start, length)))
        .collect();
    let joined = tokio::task::spawn_blocking(move || {
        let join = |thread: thread::JoinHandle<anyhow::Result<Vec<f64>>>| {
            thread.join().map_err(|_| anyhow::anyhow!("a connection panicked"))?
        };
        connections.into_iter().map(join).collect::<anyhow::Result<Vec<_>>>()
    });
    Ok(joined.await??.concat())
}

fn connection(
    address: SocketAddr,
    rate: f64,
    number: u32,
    start: Instant,
    length: Duration,
) -> anyhow::Result<Vec<f64>> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    // Without an end of the rate there is no pause: a closed loop.
    let period = Duration::from_secs_f64(f64::from(CONNECTIONS) / rate);
    let mut due = start + period * number / CONNECTIONS;
    let mut times = Vec::new();
    while due < start + length && Instant::now() < start + length {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let free = times.last().is_none_or(|(ended, _)| *ended <= due);
        let began = if free { Instant::now() } else { due };
        memory::ask(&mut stream, number as usize)?;
        let ended = Instant::now();
        times.push((ended, (ended - began).as_secs_f64() * 1e6));
        due += period;
    }
    Ok(times.into_iter().map(|(_, micros)| micros).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(direct: f64, nginx: f64, haproxy: f64, ours: f64) -> Vec<Delay> {
        let peers = [(DIRECT, direct), ("nginx", nginx), ("haproxy", haproxy), (Peer::OURS, ours)];
        peers.map(|(peer, p50)| Delay { peer, p50, p99: p50 * 2.0 }).to_vec()
    }

    #[test]
    fn what_is_added_is_compared_and_not_what_the_backend_takes() {
        let noise =
            [1.0, 20.0, 2.0].map(|busy| round(100.0 * busy, 130.0 * busy, 140.0 * busy, 115.0 * busy));
        let rounds = Rounds { share: 0.3, rate: 1.0, rounds: noise.to_vec() };
        assert!((rounds.ratio(p50) - 0.5).abs() < 1e-9, "{}", rounds.ratio(p50));
        assert!(Rounds { rounds: vec![round(100.0, 90.0, 95.0, 115.0)], ..rounds }.ratio(p50).is_nan());
    }

    #[test]
    fn a_request_that_had_to_wait_for_its_connection_has_waited_since_it_was_due() {
        // A backend that answers one request at a time and sleeps before the first.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            use std::io::{Read as _, Write as _};
            let (mut stream, _) = listener.accept().unwrap();
            let mut pause = Duration::from_millis(200);
            while stream.read(&mut [0; 4096]).unwrap() > 0 {
                thread::sleep(std::mem::take(&mut pause));
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").unwrap();
            }
        });
        let rate = f64::from(CONNECTIONS) * 50.0;
        let times = connection(address, rate, 0, Instant::now(), Duration::from_millis(200)).unwrap();
        assert!(times[0] >= 200_000.0, "{times:?}");
        let late = times.get(1).is_none_or(|second| *second >= 150_000.0);
        assert!(late, "{times:?}");
    }
}
