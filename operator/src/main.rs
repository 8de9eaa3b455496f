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

use args::{Args, EXIT_USAGE};

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
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_writer(std::io::stderr)
        .with_env_filter(format!(
            "{},hyper=info,h2=info,rustls=info,tower=info,kube_runtime=error,kube_client=error",
            args.log_level
        ))
        .init();
    match start(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tidegate-operator: {}", brief::in_context(&error));
            ExitCode::FAILURE
        }
    }
}

fn start(args: Args) -> anyhow::Result<()> {
    // The client takes the provider of the process. It can only be installed once, and this is the once.
    let _ = rustls::crypto::ring::default_provider().install_default();
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(app::run(args))
}
