//! CPU time per request: of all threads of the proxy, over the requests that were completed meanwhile.
//!
//! Rounds are interleaved (A, B, C, A, B, C, …), so that what else the machine does meets all alike; ratios are taken
//! within a round.

use std::{path::Path, time::Duration};

use serde::Serialize;

use super::{
    backend,
    figure::{Figure, median},
    h2load,
    peer::{Peer, Protocol},
    process::cpu_time,
    wrk,
};
use crate::{cluster::progress::Progress, server::Server};

/// One kind of traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Scenario {
    /// As in tables.
    pub name: &'static str,
    /// What is asked for.
    pub path: &'static str,
    /// Kept connections.
    pub connections: u32,
    /// What they speak.
    pub protocol: Protocol,
    /// For these peers, the CPU time of the sidecar over theirs that is promised, in hundredths.
    pub promised: &'static [(&'static str, u32)],
}

/// What is promised for every small request.
const SMALL: &[(&str, u32)] = &[("nginx", 100), ("haproxy", 100), ("envoy", 40)];

/// All kinds of traffic.
pub const SCENARIOS: [Scenario; 4] = [
    Scenario {
        name: "small body, 64 connections",
        path: backend::SMALL,
        connections: 64,
        protocol: Protocol::Http1,
        promised: SMALL,
    },
    Scenario {
        name: "small body, 400 connections",
        path: backend::SMALL,
        connections: 400,
        protocol: Protocol::Http1,
        promised: SMALL,
    },
    Scenario {
        name: "16 KiB, 64 connections",
        path: backend::LARGE,
        connections: 64,
        protocol: Protocol::Http1,
        promised: &[("nginx", 90)],
    },
    Scenario {
        name: "HTTP/2, 8 connections of 8 streams",
        path: backend::SMALL,
        connections: 8,
        protocol: Protocol::Http2,
        promised: &[],
    },
];

/// What limits, timers and metrics may cost: a share of a request, and microseconds.
const LIMITS_SHARE: f64 = 1.02;
const LIMITS_MICROS: f64 = 0.3;

/// One measurement.
#[derive(Debug, Clone, Serialize)]
pub struct Cost {
    /// The proxy's name.
    pub peer: &'static str,
    /// CPU time per request, in microseconds.
    pub micros: f64,
    /// What the load generator saw.
    pub run: wrk::Run,
}

/// All rounds of one scenario.
#[derive(Debug, Clone, Serialize)]
pub struct Rounds {
    /// The traffic.
    pub scenario: Scenario,
    /// For each round a measurement of each proxy.
    pub rounds: Vec<Vec<Cost>>,
}

impl Rounds {
    /// The peer's CPU time in each round.
    pub fn micros(&self, peer: &str) -> Vec<f64> {
        self.costs(peer).map(|cost| cost.micros).collect()
    }

    /// The peer's CPU time over `base`'s in each round.
    pub fn ratios(&self, peer: &str, base: &str) -> Vec<f64> {
        self.pairs(peer, base).map(|(ours, theirs)| ours / theirs).collect()
    }

    /// The peer's measurements.
    pub fn costs(&self, peer: &str) -> impl Iterator<Item = &Cost> {
        self.rounds.iter().flatten().filter(move |cost| cost.peer == peer)
    }

    /// The CPU times of two peers in each round.
    fn pairs(&self, peer: &str, base: &str) -> impl Iterator<Item = (f64, f64)> {
        let of =
            |round: &[Cost], name: &str| round.iter().find(|cost| cost.peer == name).map(|cost| cost.micros);
        self.rounds.iter().filter_map(move |round| Some((of(round, peer)?, of(round, base)?)))
    }

    /// What was promised of it.
    pub fn figures(&self) -> Vec<Figure> {
        let ours = Peer::OURS;
        let figure = |&(peer, promised): &(&str, u32)| {
            let name = format!("{}: CPU per request ÷ {peer}", self.scenario.name);
            let ratios = self.ratios(ours, peer);
            (!ratios.is_empty()).then(|| Figure::ratio(name, &ratios, f64::from(promised) / 100.0))
        };
        self.scenario.promised.iter().filter_map(figure).collect()
    }

    /// What the full policy costs beside none.
    pub fn price_of_limits(&self) -> Vec<Figure> {
        let ratios = self.ratios(Peer::OURS, Peer::OURS_UNLIMITED);
        if ratios.is_empty() {
            return Vec::new();
        }
        let more: Vec<f64> =
            self.pairs(Peer::OURS, Peer::OURS_UNLIMITED).map(|(with, without)| with - without).collect();
        let note = format!("median of {} pairs; what a pair cannot resolve is noise", ratios.len());
        vec![
            Figure::at_most(
                "full policy ÷ no policy, CPU per request",
                median(&ratios),
                "",
                LIMITS_SHARE,
                &note,
            ),
            Figure::at_most(
                "full policy − no policy, CPU per request",
                median(&more),
                "µs",
                LIMITS_MICROS,
                note,
            ),
        ]
    }
}

/// Length and number of the measurements.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Measurements of each proxy for each scenario.
    pub rounds: u32,
    /// Length of each.
    pub length: Duration,
}

/// Measures these scenarios.
pub async fn measure(
    scenarios: &[Scenario],
    peers: &[Peer],
    directory: &Path,
    effort: Effort,
    progress: &Progress,
) -> anyhow::Result<Vec<Rounds>> {
    let backend = backend::start()?;
    let mut all = Vec::new();
    for &scenario in scenarios {
        let mut running = Vec::new();
        for peer in peers {
            let proxy = peer.start(backend, directory, scenario.protocol).await?;
            // Connections to the backend and caches are warm when it counts.
            load(&proxy, scenario, Duration::from_secs(1)).await?;
            running.push((peer.name(), proxy));
        }
        let mut rounds = Vec::new();
        for number in 1..=effort.rounds {
            let round = one_round(&running, scenario, effort.length).await?;
            let figures: Vec<String> =
                round.iter().map(|cost| format!("{} {:.2} µs", cost.peer, cost.micros)).collect();
            progress.say(format_args!("{}, round {number}: {}", scenario.name, figures.join(", ")));
            rounds.push(round);
        }
        for (_, proxy) in running {
            proxy.stop().await?;
        }
        all.push(Rounds { scenario, rounds });
    }
    Ok(all)
}

async fn load(proxy: &Server, scenario: Scenario, length: Duration) -> anyhow::Result<wrk::Run> {
    let url = proxy.url(scenario.path);
    match scenario.protocol {
        Protocol::Http1 => wrk::run(&url, scenario.connections, length).await,
        Protocol::Http2 => h2load::run(&url, scenario.connections, length).await,
    }
}

async fn one_round(
    running: &[(&'static str, Server)],
    scenario: Scenario,
    length: Duration,
) -> anyhow::Result<Vec<Cost>> {
    let mut round = Vec::new();
    for (peer, proxy) in running {
        let pid = proxy.pid()?;
        let before = cpu_time(pid)?;
        let run = load(proxy, scenario, length).await?;
        let spent = cpu_time(pid)?.saturating_sub(before);
        let micros = spent.as_secs_f64() * 1e6 / run.requests.max(1) as f64;
        round.push(Cost { peer, micros, run });
    }
    Ok(round)
}
