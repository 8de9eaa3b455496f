//! Watches policies and pods, injects sidecars, programs them and reports back.
//!
//! ```text
//! watch ──▶ world ──▶ stream ──▶ sidecars          certificates ──▶ trust: webhook configurations, ConfigMaps
//!             │  ▲                  │                     │
//!             │  └──── reports ─────┘                     └──▶ server (TLS) ──▶ webhook, stream
//!             └──▶ status, events (leader)
//! ```

mod app;
mod args;
mod brief;
mod certificates;
mod events;
#[cfg(test)]
mod fake_api;
mod forward;
mod health;
mod leader;
mod metrics;
mod retry;
mod server;
mod shutdown;
mod status;
mod stream;
mod trust;
mod watch;
mod webhook;
mod world;

use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use args::{Args, EXIT_USAGE};

// A list of every pod is read at once, and a thousand streams open at once: what was taken for them is given back.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            print!("{error}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("tidegate-operator: {}", args::one_line(&error));
            return ExitCode::from(EXIT_USAGE);
        }
    };
    start_log(&args.log_level);
    match start(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tidegate-operator: {}", brief::in_context(&error));
            ExitCode::FAILURE
        }
    }
}

/// JSON lines on standard error. Of the libraries only warnings are heard: in detail they show frames, with tokens
/// of sidecars among them. What `kube` warns of, the watches here say themselves, in one line.
fn start_log(level: &str) {
    let level = level.parse().unwrap_or(LevelFilter::INFO);
    let filter = Targets::new()
        .with_target(env!("CARGO_CRATE_NAME"), level)
        .with_target("kube_runtime", LevelFilter::ERROR)
        .with_default(level.min(LevelFilter::WARN));
    let lines = tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(std::io::stderr);
    tracing_subscriber::registry().with(lines.with_filter(filter)).init();
}

fn start(args: Args) -> anyhow::Result<()> {
    // The client takes the provider of the process. It can only be installed once, and this is the once.
    let _ = rustls::crypto::ring::default_provider().install_default();
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(app::run(args))
}
