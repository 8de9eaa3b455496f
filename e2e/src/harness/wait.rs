//! Waits for conditions. Nothing here sleeps and hopes: each wait names what it waits for, and until when.

use std::fmt::Debug;
use std::time::{Duration, Instant};

/// Far beyond what a step of a test takes, also on a loaded machine.
pub const PATIENCE: Duration = Duration::from_mins(2);
/// How often a condition is looked at.
const INTERVAL: Duration = Duration::from_millis(50);

/// Looks until `probe` gives a value. An error says what was waited for and what was seen last.
pub async fn eventually<T, E: Debug>(
    what: &str,
    deadline: Duration,
    mut probe: impl AsyncFnMut() -> Result<T, E>,
) -> anyhow::Result<T> {
    let start = Instant::now();
    loop {
        match probe().await {
            Ok(value) => return Ok(value),
            Err(seen) if start.elapsed() > deadline => {
                anyhow::bail!("waited {deadline:?} for {what}; seen last: {seen:?}")
            }
            Err(_) => tokio::time::sleep(INTERVAL).await,
        }
    }
}

/// Fails as soon as `probe` fails within `length`: the condition has to hold all the time.
pub async fn holds(
    what: &str,
    length: Duration,
    mut probe: impl AsyncFnMut() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let start = Instant::now();
    while start.elapsed() < length {
        if let Err(error) = probe().await {
            anyhow::bail!("{what} ended after {:?}: {error:#}", start.elapsed());
        }
        tokio::time::sleep(INTERVAL).await;
    }
    Ok(())
}
