//! CPU time per request: of all threads of the proxy, over the requests that were completed meanwhile.
//!
//! Rounds are interleaved (A, B, C, A, B, C, …), so that what else the machine does meets all alike; ratios are taken
//! within a round.

use std::{path::Path, time::Duration};

use serde::Serialize;

use super::{backend, peer::Peer, process::cpu_time, wrk};
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
}

/// All kinds of traffic.
pub const SCENARIOS: [Scenario; 4] = [
    Scenario { name: "small body, 64 connections", path: backend::SMALL, connections: 64 },
    Scenario { name: "16 KiB, 64 connections", path: backend::LARGE, connections: 64 },
    Scenario { name: "SSE of 32 events, 64 connections", path: backend::STREAM, connections: 64 },
    Scenario { name: "small body, 400 connections", path: backend::SMALL, connections: 400 },
];

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
        let of =
            |round: &[Cost], name: &str| round.iter().find(|cost| cost.peer == name).map(|cost| cost.micros);
        self.rounds.iter().filter_map(|round| Some(of(round, peer)? / of(round, base)?)).collect()
    }

    /// The peer's measurements.
    pub fn costs(&self, peer: &str) -> impl Iterator<Item = &Cost> {
        self.rounds.iter().flatten().filter(move |cost| cost.peer == peer)
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

/// Measures every scenario.
pub async fn measure(
    peers: &[Peer],
    directory: &Path,
    effort: Effort,
    progress: &Progress,
) -> anyhow::Result<Vec<Rounds>> {
    let backend = backend::start()?;
    let mut running = Vec::new();
    for peer in peers {
        running.push((peer.name(), peer.start(backend, directory).await?));
    }
    let mut all = Vec::new();
    for scenario in SCENARIOS {
        let mut rounds = Vec::new();
        for (_, proxy) in &running {
            // Connections to the backend and caches are warm when it counts.
            wrk::run(&proxy.url(scenario.path), scenario.connections, Duration::from_secs(1)).await?;
        }
        for number in 1..=effort.rounds {
            let round = one_round(&running, scenario, effort.length).await?;
            let figures: Vec<String> =
                round.iter().map(|cost| format!("{} {:.1} µs", cost.peer, cost.micros)).collect();
            progress.say(format_args!("{}, round {number}: {}", scenario.name, figures.join(", ")));
            rounds.push(round);
        }
        all.push(Rounds { scenario, rounds });
    }
    for (_, proxy) in running {
        proxy.stop().await?;
    }
    Ok(all)
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
        let run = wrk::run(&proxy.url(scenario.path), scenario.connections, length).await?;
        let spent = cpu_time(pid)?.saturating_sub(before);
        let micros = spent.as_secs_f64() * 1e6 / run.requests.max(1) as f64;
        round.push(Cost { peer, micros, run });
    }
    Ok(round)
}
