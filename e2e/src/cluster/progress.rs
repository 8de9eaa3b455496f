//! Progress lines with the time since the start, so that nothing long is silent.

use std::fmt::Display;
use std::future::Future;
use std::time::{Duration, Instant};

/// How long something may take before a line says that it is still going on.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// Prints lines such as `[  12.3s] node tidegate-worker is Ready` to stderr.
#[derive(Clone, Debug)]
pub struct Progress {
    started: Instant,
}

impl Progress {
    /// Starts the clock.
    pub fn start() -> Self {
        Self { started: Instant::now() }
    }

    /// Prints one line.
    pub fn say(&self, line: impl Display) {
        eprintln!("[{:6.1}s] {line}", self.started.elapsed().as_secs_f64());
    }

    /// Waits for `work` and prints a line every 15 s until it is done.
    pub async fn during<T>(&self, what: &str, work: impl Future<Output = T>) -> T {
        let began = Instant::now();
        let mut work = std::pin::pin!(work);
        loop {
            match tokio::time::timeout(HEARTBEAT, &mut work).await {
                Ok(done) => return done,
                Err(_elapsed) => {
                    self.say(format_args!("  {what}: {:.0} s so far", began.elapsed().as_secs_f64()));
                }
            }
        }
    }
}
