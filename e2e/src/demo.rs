//! The demo: what each tier and the breaker do while traffic rises, a policy changes and an engine fails.

pub mod gpu_agent;
pub mod standalone;
pub mod story;
pub mod summary;
pub mod view;
pub mod watch;

use std::{path::PathBuf, process::ExitCode};

use clap::Args;

use self::standalone::Binaries;
use crate::{
    cluster::{process, progress::Progress},
    trace,
};

/// Flags of `tidegate-e2e demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {}

/// Runs `tidegate-e2e demo`.
///
/// # Errors
/// When the command cannot do its work.
#[allow(clippy::unused_async)]
pub async fn run(_args: DemoArgs) -> anyhow::Result<ExitCode> {
    anyhow::bail!("demo: not part of this build")
}

/// Flags of `tidegate-e2e demo-standalone`.
#[derive(Debug, Args)]
pub struct StandaloneArgs {
    /// Arrivals and sizes from an Azure LLM inference trace; synthetic without one.
    #[arg(long, env = trace::TRACE_ENV)]
    trace: Option<PathBuf>,
    /// A built `tidegate-sidecar`; built without it.
    #[arg(long, requires = "cli")]
    sidecar: Option<PathBuf>,
    /// A built `kubectl-tidegate`; built without it.
    #[arg(long, requires = "sidecar")]
    cli: Option<PathBuf>,
    /// Directory of the policies.
    #[arg(long, default_value = "e2e/demo")]
    policies: PathBuf,
}

/// Runs `tidegate-e2e demo-standalone`.
pub async fn run_standalone(args: StandaloneArgs) -> anyhow::Result<ExitCode> {
    let progress = Progress::start();
    let trace = trace::load(args.trace.as_deref())?;
    let binaries = match (args.sidecar, args.cli) {
        (Some(sidecar), Some(cli)) => Binaries { sidecar, cli },
        _ => build(&progress).await?,
    };
    println!("{}", standalone::run(&binaries, &args.policies, &trace, &progress).await?);
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
