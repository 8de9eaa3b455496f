//! Runs `wrk` and reads its figures. It is closed-loop: its latencies tell little, the CPU time per completed request
//! is what counts.

use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::Serialize;

use crate::cluster::process;

/// A slow answer on a busy machine is no error.
const PATIENCE: &str = "30s";

/// One run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Run {
    /// Completed requests.
    pub requests: u64,
    /// Completed requests per second.
    pub per_second: f64,
    /// 99th percentile of the latency, in milliseconds.
    pub p99_ms: f64,
}

/// Runs `wrk` with one thread. An answer that is not a success makes the run worthless: that is an error.
pub async fn run(url: &str, connections: u32, duration: Duration) -> anyhow::Result<Run> {
    let mut command = process::command("wrk");
    command.args([
        "-t1",
        "--latency",
        "--timeout",
        PATIENCE,
        &format!("-c{connections}"),
        &format!("-d{}s", duration.as_secs().max(1)),
    ]);
    command.args(["-H", "x-api-key: bench", "-H", "x-priority: medium", url]);
    let text = process::output(&mut command).await?;
    let run = parse(&text).with_context(|| format!("wrk wrote something else than expected:\n{text}"))?;
    for trouble in ["Non-2xx", "Socket errors"] {
        if let Some(line) = text.lines().find(|line| line.contains(trouble)) {
            bail!("{url} with {connections} connections: {}", line.trim());
        }
    }
    Ok(run)
}

fn parse(text: &str) -> Option<Run> {
    let line = |end: &str| text.lines().map(str::trim).find(|line| line.contains(end));
    let requests = line(" requests in ")?.split_whitespace().next()?.parse().ok()?;
    let per_second = line("Requests/sec:")?.split_whitespace().nth(1)?.parse().ok()?;
    let p99_ms = milliseconds(line("99%")?.split_whitespace().nth(1)?)?;
    Some(Run { requests, per_second, p99_ms })
}

pub(super) fn milliseconds(text: &str) -> Option<f64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match &text[digits.len()..] {
        "us" => 1e-3,
        "ms" => 1.0,
        "s" => 1e3,
        "m" => 60e3,
        _ => return None,
    };
    Some(digits.parse::<f64>().ok()? * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_in_their_units() {
        let text = "Running 3s test @ http://127.0.0.1:1/\n  Latency Distribution\n     50%  812.00us\n     99%    1.52s \n  \
            93543 requests in 3.00s, 11.06MB read\nRequests/sec:  31178.91\nTransfer/sec:      3.69MB\n";
        assert_eq!(parse(text), Some(Run { requests: 93_543, per_second: 31_178.91, p99_ms: 1520.0 }));
    }
}
