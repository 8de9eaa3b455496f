//! The demo: what each tier and the breaker do while traffic rises, a policy changes and an engine fails.

pub mod gpu_agent;
pub mod on_cluster;
mod play;
pub mod standalone;
pub mod story;
pub mod summary;
pub mod view;
pub mod watch;

use std::{path::PathBuf, process::ExitCode};

use clap::{
    Args,
    builder::{OsStringValueParser, TypedValueParser as _},
};

use self::standalone::Binaries;
use crate::{
    cluster::{ClusterChoice, ClusterKind, cli::TestArgs, process, progress::Progress, session},
    trace,
};

/// Flags of `tidegate-e2e demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Which cluster to use; without it kind where a Docker engine answers, else local where this is root, else none.
    #[arg(long, value_enum, env = "TIDEGATE_E2E_CLUSTER")]
    cluster: Option<ClusterKind>,
    /// Keep the cluster when the demo is over.
    #[arg(long)]
    keep: bool,
    /// What it plays.
    #[command(flatten)]
    play: PlayArgs,
}

/// What a demo plays.
#[derive(Debug, Clone, Args)]
pub struct PlayArgs {
    /// Arrivals and sizes from an Azure LLM inference trace; synthetic without one, or with an empty name.
    #[arg(long, env = trace::TRACE_ENV, value_parser = OsStringValueParser::new().map(PathBuf::from))]
    trace: Option<PathBuf>,
    /// Directory of the policies.
    #[arg(long, default_value = "e2e/demo")]
    policies: PathBuf,
}

/// Runs `tidegate-e2e demo`: brings a cluster up for `demo-play`, or shows the standalone demo where none can be had.
pub async fn run(args: DemoArgs) -> anyhow::Result<ExitCode> {
    let kind = match args.cluster {
        Some(kind) => kind,
        None if process::succeeds("docker", &["info"]).await => ClusterKind::Kind,
        None if rustix::process::geteuid().is_root() => ClusterKind::Local,
        None => {
            eprintln!(
                "demo: no cluster here: a Docker engine (for kind) or root on Debian (for local) is missing, or name \
                one by --cluster current; showing the demo without a cluster"
            );
            return run_standalone(StandaloneArgs { sidecar: None, cli: None, play: args.play }).await;
        }
    };
    let program = std::env::current_exe()?;
    let mut command = vec![program.display().to_string(), "demo-play".to_owned()];
    command.push(format!("--policies={}", args.play.policies.display()));
    if let Some(trace) = &args.play.trace {
        command.push(format!("--trace={}", trace.display()));
    }
    let choice = ClusterChoice::of(kind);
    session::run(TestArgs { choice, keep: args.keep, load_images: true, command }).await
}

/// Runs `tidegate-e2e demo-play` on the cluster of the current kubeconfig.
pub async fn run_play(args: PlayArgs) -> anyhow::Result<ExitCode> {
    let trace = trace::load(args.trace.as_deref())?;
    println!("{}", on_cluster::run(&args.policies, &trace, &Progress::start()).await?);
    Ok(ExitCode::SUCCESS)
}

/// Flags of `tidegate-e2e demo-standalone`.
#[derive(Debug, Args)]
pub struct StandaloneArgs {
    /// A built `tidegate-sidecar`; built without it.
    #[arg(long, requires = "cli")]
    sidecar: Option<PathBuf>,
    /// A built `kubectl-tidegate`; built without it.
    #[arg(long, requires = "sidecar")]
    cli: Option<PathBuf>,
    /// What it plays.
    #[command(flatten)]
    play: PlayArgs,
}

/// Runs `tidegate-e2e demo-standalone`.
pub async fn run_standalone(args: StandaloneArgs) -> anyhow::Result<ExitCode> {
    let progress = Progress::start();
    let trace = trace::load(args.play.trace.as_deref())?;
    let binaries = match (args.sidecar, args.cli) {
        (Some(sidecar), Some(cli)) => Binaries { sidecar, cli },
        _ => build(&progress).await?,
    };
    println!("{}", standalone::run(&binaries, &args.play.policies, &trace, &progress).await?);
    Ok(ExitCode::SUCCESS)
}

async fn build(progress: &Progress) -> anyhow::Result<Binaries> {
    let mut cargo = process::command("cargo");
    cargo.args(["build", "--quiet", "-p", "tidegate-sidecar", "-p", "tidegate-cli"]);
    progress.say("building the sidecar and kubectl-tidegate");
    progress.during("building", process::output(&mut cargo)).await?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    let built = std::path::absolute(target.join("debug"))?;
    Ok(Binaries { sidecar: built.join("tidegate-sidecar"), cli: built.join("kubectl-tidegate") })
}
