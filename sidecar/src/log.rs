//! The process's own log: JSON lines on standard error.

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Starts it. To be called once, before anything else is said. The level is for our own lines: libraries say what
/// is wrong and nothing else, since what they tell at lower levels has headers of clients in it.
pub fn start(level: LevelFilter) {
    let targets = Targets::new().with_target("tidegate", level).with_default(level.min(LevelFilter::WARN));
    let lines = tracing_subscriber::fmt::layer()
        .json()
        .flatten_event(true)
        .with_target(false)
        .with_writer(std::io::stderr);
    tracing_subscriber::registry().with(targets).with(lines).init();
    // A defect is told as everything else is: in one line of JSON.
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, "panic: {}", panic.payload_as_str().unwrap_or("no message"));
    }));
}
