//! `tidegate-e2e test`: a cluster for the time of one command.

use std::io::IsTerminal;
use std::process::{ExitCode, ExitStatus};
use std::time::Duration;

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

use crate::cluster::cli::{TestArgs, load_images, save_failure};
use crate::cluster::guard::Guard;
use crate::cluster::progress::Progress;
use crate::cluster::{Cluster, ClusterKind, Lifetime, binaries};

/// How long the command may take to end when it is told to.
const GRACE: Duration = Duration::from_secs(10);
/// Exit status after a signal, as shells report SIGINT.
const INTERRUPTED: u8 = 130;

/// What came out of a session.
#[derive(Clone, Copy)]
enum Outcome {
    Ended(ExitStatus),
    Interrupted,
}

/// Brings the cluster up, runs the command, and takes the cluster down whatever happened: failure, signal, panic, and by the
/// guard also SIGKILL. A cluster that was up before is used and left up.
pub async fn run(args: TestArgs) -> anyhow::Result<ExitCode> {
    let progress = Progress::start();
    let cluster = args.choice.open(&progress);
    let ends_with_us = !args.keep && !cluster.is_up() && args.choice.kind != ClusterKind::Current;
    let mut guard = if ends_with_us { Some(Guard::start(&args.choice)?) } else { None };
    let lifetime = if ends_with_us { Lifetime::ThisProcess } else { Lifetime::Kept };
    let outcome = {
        let work =
            std::panic::AssertUnwindSafe(work(cluster.as_ref(), &args, lifetime, guard.as_mut(), &progress));
        futures::FutureExt::catch_unwind(work).await
    };
    if has_failed(&outcome) && cluster.kubeconfig().exists() {
        save_failure(cluster.as_ref()).await;
    }
    let down = if ends_with_us { cluster.down().await } else { Ok(()) };
    if let Some(guard) = guard {
        guard.dismiss().await;
    }
    match outcome {
        Ok(Ok(outcome)) => down.map(|()| exit_code(outcome)),
        Ok(Err(error)) => Err(error),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

async fn work(
    cluster: &dyn Cluster,
    args: &TestArgs,
    lifetime: Lifetime,
    guard: Option<&mut Guard>,
    progress: &Progress,
) -> anyhow::Result<Outcome> {
    let mut interruption = std::pin::pin!(interruption()?);
    let preparation = async {
        // What the command installs the chart with: built here, where its progress is seen.
        binaries::helm(progress).await?;
        cluster.up(lifetime).await?;
        if args.load_images {
            load_images(cluster, Vec::new(), progress).await?;
        }
        anyhow::Ok(())
    };
    tokio::select! {
        prepared = preparation => prepared?,
        () = &mut interruption => return Ok(Outcome::Interrupted),
    }
    let at_terminal = std::io::stdin().is_terminal();
    let mut child = start(cluster, &args.command, at_terminal)?;
    if let (Some(guard), Some(group), false) = (guard, child.id(), at_terminal) {
        guard.watch_group(group).await;
    }
    tokio::select! {
        status = child.wait() => Ok(Outcome::Ended(status?)),
        () = &mut interruption => {
            progress.say("interrupted: ending the command");
            end(&mut child).await;
            Ok(Outcome::Interrupted)
        }
    }
}

/// Whether there is something to look into; an interruption was somebody's will.
fn has_failed(outcome: &std::thread::Result<anyhow::Result<Outcome>>) -> bool {
    match outcome {
        Ok(Ok(Outcome::Ended(status))) => !status.success(),
        Ok(Ok(Outcome::Interrupted)) => false,
        Ok(Err(_)) | Err(_) => true,
    }
}

/// Ends with the first SIGINT, SIGTERM or SIGHUP.
fn interruption() -> anyhow::Result<impl Future<Output = ()>> {
    let mut signals = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()]
        .into_iter()
        .map(signal)
        .collect::<Result<Vec<_>, _>>()?;
    Ok(async move {
        let any = signals.iter_mut().map(|signal| Box::pin(signal.recv()));
        futures::future::select_all(any).await;
    })
}

/// Starts the command. It gets a process group of its own unless it may want to read from this terminal.
fn start(cluster: &dyn Cluster, words: &[String], at_terminal: bool) -> anyhow::Result<Child> {
    let (program, arguments) = words.split_first().context("no command: write it after `--`")?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env("KUBECONFIG", cluster.kubeconfig())
        .env("TIDEGATE_E2E_CLUSTER", cluster.kind().name())
        .kill_on_drop(true);
    if !at_terminal {
        command.process_group(0);
    }
    command.spawn().with_context(|| format!("cannot start {program}"))
}

async fn end(child: &mut Child) {
    for deadly in [Signal::TERM, Signal::KILL] {
        let group = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        if let Some(group) = group {
            // At a terminal the command is in our own group, whose members have had the terminal's signal already.
            let _gone = kill_process_group(group, deadly);
        }
        if tokio::time::timeout(GRACE, child.wait()).await.is_ok() {
            return;
        }
    }
    let _gone = child.kill().await;
}

fn exit_code(outcome: Outcome) -> ExitCode {
    match outcome {
        Outcome::Interrupted => ExitCode::from(INTERRUPTED),
        Outcome::Ended(status) => {
            let code = status.code().and_then(|code| u8::try_from(code).ok());
            code.map_or(ExitCode::FAILURE, ExitCode::from)
        }
    }
}
