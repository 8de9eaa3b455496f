//! Runs `h2load` and reads its figures: HTTP/2 without TLS, known beforehand.

use std::time::Duration;

use anyhow::{Context as _, bail};

use super::wrk::Run;
use crate::cluster::process;

/// Requests in flight on each connection.
pub const STREAMS: u32 = 8;

/// Runs it with one thread. An answer that is not a success makes the run worthless: that is an error.
pub async fn run(url: &str, connections: u32, duration: Duration) -> anyhow::Result<Run> {
    let seconds = duration.as_secs().max(1);
    let mut command = process::command("h2load");
    command.args([
        "-t1",
        "-ph2c",
        &format!("-c{connections}"),
        &format!("-m{STREAMS}"),
        &format!("-D{seconds}"),
    ]);
    command.args(["-H", "x-api-key: bench", "-H", "x-priority: medium", url]);
    let text = process::output(&mut command).await?;
    let (run, bad) = parse(&text, seconds)
        .with_context(|| format!("h2load wrote something else than expected:\n{text}"))?;
    if bad > 0 {
        bail!("{url} over HTTP/2 with {connections} connections: {bad} requests failed");
    }
    Ok(run)
}

/// What was completed, and how many requests were not.
fn parse(text: &str, seconds: u64) -> Option<(Run, u64)> {
    let line = text.lines().find_map(|line| line.strip_prefix("requests: "))?;
    let count = |what: &str| -> Option<u64> {
        let part = line.split(", ").find_map(|part| part.strip_suffix(what))?;
        part.trim().parse().ok()
    };
    let requests = count("succeeded")?;
    let bad = count("failed")? + count("errored")? + count("timeout")?;
    // It tells the longest time and no percentile.
    let times = text.lines().find_map(|line| line.strip_prefix("time for request:"))?;
    let longest = super::wrk::milliseconds(times.split_whitespace().nth(1)?)?;
    Some((Run { requests, per_second: requests as f64 / seconds as f64, p99_ms: longest }, bad))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn completed_and_failed_requests_are_read() {
        let text = "finished in 3.00s, 33333.33 req/s, 2.00MB/s\n\
            requests: 100002 total, 100130 started, 100002 done, 100000 succeeded, 1 failed, 1 errored, 0 timeout\n\
            status codes: 100002 2xx, 0 3xx, 0 4xx, 0 5xx\n\
            time for request:      100us      7.10ms       350us       120us    80.00%\n";
        let (run, bad) = parse(text, 3).unwrap();
        assert_eq!((run.requests, run.p99_ms, bad), (100_000, 7.1, 2));
    }
}
