//! The sidecar's cost beside other proxies: CPU time per request, memory, and nanoseconds per decision.

pub mod backend;
pub mod cpu;
pub mod decide;
pub mod memory;
pub mod peer;
pub mod policy;
pub mod process;
pub mod report;
pub mod wrk;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::bail;
use clap::Args;

use self::{
    cpu::Effort,
    peer::Peer,
    report::{Machine, Report},
};
use crate::cluster::{packages, process::output, progress::Progress};

/// What is needed, and the package that brings it.
const NEEDS: [(&str, &str); 3] = [("nginx", "nginx"), ("haproxy", "haproxy"), ("wrk", "wrk")];

/// Flags of `tidegate-e2e bench`.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// Measurements of each proxy for each kind of traffic.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Seconds between the last close and the last reading of the memory.
    #[arg(long, default_value_t = 60)]
    settle: u64,
    /// A built `tidegate-sidecar`; built in release mode without it.
    #[arg(long)]
    sidecar: Option<PathBuf>,
    /// Proxies to measure.
    #[arg(long, value_delimiter = ',', default_value = "nginx,haproxy,tidegate")]
    peers: Vec<String>,
    /// Leave the decision benchmark out.
    #[arg(long, conflicts_with = "no_proxies")]
    no_decide: bool,
    /// Leave the proxies out.
    #[arg(long)]
    no_proxies: bool,
    /// Directory of the report.
    #[arg(long, default_value = "report")]
    out: PathBuf,
    /// Fail when the sidecar is worse than promised.
    #[arg(long)]
    check: bool,
}

/// Runs `tidegate-e2e bench`.
pub async fn run(args: BenchArgs) -> anyhow::Result<ExitCode> {
    let progress = Progress::start();
    let peers = if args.no_proxies {
        Vec::new()
    } else {
        packages::ensure(&progress, &NEEDS).await?;
        peers(&args, &progress).await?
    };
    let directory = tempfile::tempdir()?;
    let effort = Effort { rounds: args.rounds, length: Duration::from_secs(args.seconds) };
    let mut versions = Vec::new();
    for peer in &peers {
        versions.push(peer.version().await?);
    }
    let settle = Duration::from_secs(args.settle);
    let report = Report {
        machine: Machine::here(versions),
        cpu: cpu::measure(&peers, directory.path(), effort, &progress).await?,
        memory: memory::measure(&peers, directory.path(), settle, &progress).await?,
        settle_seconds: args.settle,
        decisions: if args.no_decide {
            Vec::new()
        } else {
            progress.during("benchmarks of the core and its peers", decide::run()).await?
        },
    };
    println!("{}", report.write(&args.out)?);
    progress.say(format_args!("written to {}", args.out.join("bench.md").display()));
    let broken = report.broken_promises();
    for line in &broken {
        eprintln!("worse than promised: {line}");
    }
    Ok(if args.check && !broken.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn peers(args: &BenchArgs, progress: &Progress) -> anyhow::Result<Vec<Peer>> {
    let mut peers = Vec::new();
    for name in &args.peers {
        peers.push(match name.as_str() {
            "nginx" => Peer::Nginx,
            "haproxy" => Peer::HaProxy,
            "tidegate" => Peer::Tidegate(sidecar(args, progress).await?),
            _ => bail!("--peers {name:?}: write nginx, haproxy or tidegate"),
        });
    }
    Ok(peers)
}

async fn sidecar(args: &BenchArgs, progress: &Progress) -> anyhow::Result<PathBuf> {
    if let Some(binary) = &args.sidecar {
        return Ok(std::path::absolute(binary)?);
    }
    let mut build = crate::cluster::process::command("cargo");
    build.args(["build", "--quiet", "--release", "-p", "tidegate-sidecar"]);
    progress.say("building tidegate-sidecar in release mode");
    progress.during("building", output(&mut build)).await?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    Ok(std::path::absolute(target.join("release/tidegate-sidecar"))?)
}
