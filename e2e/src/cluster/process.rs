//! Runs other programs and turns their failures into one clear line.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Output, Stdio};

use anyhow::{Context, bail};
use tokio::process::Command;

/// A command that dies with the future that waits for it.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// The cargo that runs this program, where one does.
pub fn cargo() -> Command {
    command(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Runs a program by name and arguments; see [`output`].
pub async fn run(program: &str, args: &[&str]) -> anyhow::Result<String> {
    output(command(program).args(args)).await
}

/// Runs a program and returns its stdout.
///
/// # Errors
/// When it cannot be started or fails; the error names the command and ends with the last lines of its stderr.
pub async fn output(command: &mut Command) -> anyhow::Result<String> {
    let words = in_words(command);
    let output = command.output().await.with_context(|| format!("cannot start `{words}`"))?;
    if !output.status.success() {
        bail!("`{words}` failed ({}): {}", output.status, last_lines(&output, 6));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a program that tells its own errors on our stderr.
pub async fn visibly(command: &mut Command) -> anyhow::Result<()> {
    let words = in_words(command);
    let status = command.status().await.with_context(|| format!("cannot start `{words}`"))?;
    if !status.success() {
        bail!("`{words}` failed ({status})");
    }
    Ok(())
}

/// Whether a program by name and arguments succeeds.
pub async fn succeeds(program: &str, args: &[&str]) -> bool {
    command(program).args(args).output().await.is_ok_and(|output| output.status.success())
}

/// Runs a program that may not find what it is to remove.
pub async fn try_run(program: &str, args: &[&str]) {
    let _absent_is_fine = succeeds(program, args).await;
}

/// The last lines of a text file, or a note why there are none.
pub fn tail(path: &Path, lines: usize) -> String {
    match std::fs::read(path) {
        Ok(bytes) => last(&String::from_utf8_lossy(&bytes), lines),
        Err(error) => format!("({}: {error})", path.display()),
    }
}

fn in_words(command: &Command) -> String {
    let command = command.as_std();
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let text = words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ");
    if text.chars().count() > 200 {
        format!("{}…", text.chars().take(200).collect::<String>())
    } else {
        text
    }
}

fn last_lines(output: &Output, lines: usize) -> String {
    let text = if output.stderr.is_empty() { &output.stdout } else { &output.stderr };
    last(&String::from_utf8_lossy(text), lines)
}

fn last(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.trim_end().lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
