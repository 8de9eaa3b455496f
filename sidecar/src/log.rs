//! The process's own log: JSON lines on standard error.

use tracing::level_filters::LevelFilter;

/// Starts it. To be called once, before anything else is said.
pub fn start(level: LevelFilter) {
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_max_level(level)
        .with_target(false)
        .with_writer(std::io::stderr)
        .init();
}
