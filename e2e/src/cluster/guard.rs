//! A process that outlives the one that uses a cluster, and takes the cluster down after its death.
//!
//! A signal or a panic is handled by the user of the cluster itself; nobody handles its own SIGKILL. The guard reads from a
//! pipe that only that process writes to: a byte means that all is done, the end of the pipe without one means that it died.

use std::process::{ExitCode, Stdio};

use anyhow::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

use crate::cluster::ClusterChoice;
use crate::cluster::progress::Progress;

/// The side of the process that uses the cluster.
pub(super) struct Guard {
    process: Child,
}

impl Guard {
    /// Starts the guard in a process group of its own, so that Ctrl-C does not reach it.
    pub(super) fn start(choice: &ClusterChoice) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("cannot find this program's own file")?;
        let process = Command::new(program)
            .args([
                "cluster-guard",
                "--cluster",
                choice.kind.name(),
                "--workers",
                &choice.workers.to_string(),
            ])
            .stdin(Stdio::piped())
            .process_group(0)
            .spawn()
            .context("cannot start the cluster's guard")?;
        Ok(Self { process })
    }

    /// Tells the guard that there is nothing left to do.
    pub(super) async fn dismiss(mut self) {
        if let Some(mut pipe) = self.process.stdin.take() {
            let _died_before = pipe.write_all(b".").await;
        }
        let _reaped = self.process.wait().await;
    }
}

/// The guard's own side: waits for the pipe and takes the cluster down when its other end has died.
pub(super) async fn watch(choice: ClusterChoice) -> anyhow::Result<ExitCode> {
    if tokio::io::stdin().read(&mut [0; 1]).await.is_ok_and(|bytes| bytes == 1) {
        return Ok(ExitCode::SUCCESS);
    }
    let progress = Progress::start();
    progress.say("the process that used the cluster has died: taking the cluster down");
    choice.open(&progress).down().await?;
    Ok(ExitCode::SUCCESS)
}
