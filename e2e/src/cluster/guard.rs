//! A process that outlives the one that uses a cluster, and cleans up after its death.
//!
//! A signal or a panic is handled by the user of the cluster itself; nobody handles its own SIGKILL. The guard reads from a
//! pipe that only that process writes to. Its lines are `group <number>`, the process group of the running command, and
//! `done`; the end of the pipe without the latter means that the process died.

use std::process::{ExitCode, Stdio};

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, Command};

use crate::cluster::ClusterChoice;
use crate::cluster::progress::Progress;

/// The side of the process that uses the cluster.
pub(super) struct Guard {
    process: Child,
    pipe: Option<ChildStdin>,
}

impl Guard {
    /// Starts the guard in a process group of its own, so that Ctrl-C does not reach it.
    pub(super) fn start(choice: &ClusterChoice) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("cannot find this program's own file")?;
        let mut process = Command::new(program)
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
        let pipe = process.stdin.take();
        Ok(Self { process, pipe })
    }

    /// Tells the guard which process group is to end with us.
    pub(super) async fn watch_group(&mut self, group: u32) {
        self.write(&format!("group {group}\n")).await;
    }

    /// Tells the guard that there is nothing left to do.
    pub(super) async fn dismiss(mut self) {
        self.write("done\n").await;
        drop(self.pipe.take());
        let _reaped = self.process.wait().await;
    }

    /// A guard that has died is missed only if we die too; that alone is no reason to end a test.
    async fn write(&mut self, line: &str) {
        if let Some(pipe) = &mut self.pipe {
            let _died_before = pipe.write_all(line.as_bytes()).await;
        }
    }
}

/// The guard's own side: waits for the end of the pipe and cleans up when its other end has died.
pub(super) async fn watch(choice: ClusterChoice) -> anyhow::Result<ExitCode> {
    let mut text = String::new();
    tokio::io::stdin().read_to_string(&mut text).await?;
    if is_done(&text) {
        return Ok(ExitCode::SUCCESS);
    }
    let progress = Progress::start();
    progress.say("the process that used the cluster has died: taking the cluster down");
    if let Some(group) = command_group(&text) {
        let _ended_too = kill_process_group(group, Signal::KILL);
    }
    choice.open(&progress).down().await?;
    Ok(ExitCode::SUCCESS)
}

fn is_done(text: &str) -> bool {
    text.lines().any(|line| line == "done")
}

/// The process group of the command, if one was started.
fn command_group(text: &str) -> Option<Pid> {
    let mut groups = text.lines().filter_map(|line| line.strip_prefix("group ")?.parse().ok());
    groups.next_back().and_then(Pid::from_raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_word_of_dismissal_is_one() {
        assert!(is_done("group 12\ndone\n"));
        assert!(!is_done("group 12\n") && !is_done(""));
    }

    #[test]
    fn the_last_command_is_the_one_to_kill() {
        assert_eq!(command_group("group 12\ngroup 13\n"), Pid::from_raw(13));
        assert_eq!(command_group(""), None);
    }
}
