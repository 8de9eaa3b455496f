//! Tells each sidecar of its node about the GPUs of its own pod.
//!
//! Three things that may be slow or absent are kept away from the answers: NVML runs on a thread of its own and is only
//! ever seen through its last readings, the kubelet is asked for a second at most, and the API server's verdict on a
//! token is remembered.

mod answer;
mod certificate;
mod config;
mod health;
mod identity;
mod kubelet;
mod metrics;
mod pod_resources;
mod sampling;
mod serve;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use tokio::sync::watch;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::answer::Answers;
use crate::certificate::Certificate;
use crate::config::Config;
use crate::health::Health;
use crate::identity::Reviewer;
use crate::kubelet::Kubelet;
use crate::metrics::Metrics;
use crate::sampling::Samples;

fn main() -> ExitCode {
    let config = match config::parse() {
        Ok(config) => config,
        Err(code) => return code,
    };
    start_log(config.log_level);
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&anyhow::Error::new(error).context("cannot start the runtime")),
    };
    match runtime.block_on(run(config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

/// JSON lines on standard error. The libraries below are heard from warnings on only: what they say in detail are
/// frames, with callers' tokens among them.
fn start_log(level: LevelFilter) {
    let filter = Targets::new()
        .with_target(env!("CARGO_CRATE_NAME"), level)
        .with_default(level.min(LevelFilter::WARN));
    let lines = tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(std::io::stderr);
    tracing_subscriber::registry().with(lines.with_filter(filter)).init();
}

fn fail(error: &anyhow::Error) -> ExitCode {
    tracing::error!("{error:#}");
    ExitCode::FAILURE
}

async fn run(config: Config) -> anyhow::Result<()> {
    // Two libraries below bring rustls; the one provider is chosen here. Only a second choice could fail.
    let _chosen = rustls::crypto::ring::default_provider().install_default();
    let stop = stop_signal()?;
    let client = kube::Client::try_default().await.context("no way to the API server")?;
    let metrics = Arc::new(Metrics::new());
    let samples = Arc::new(Samples::default());
    let sampling = sampling::start(&config, &samples, &metrics).context("cannot start the NVML thread")?;
    let kubelet = Arc::new(Kubelet::new(&config.pod_resources, Arc::clone(&metrics)));
    let reviewer = Reviewer::new(client, &config.audience, &config.node_name, Arc::clone(&metrics));
    let certificate = Arc::new(Certificate::new(&config.tls_dir));
    tokio::spawn(certificate::follow(Arc::clone(&certificate)));

    let health = Health {
        sampling: Arc::new(sampling),
        certificate: Arc::clone(&certificate),
        samples: Arc::clone(&samples),
        kubelet: Arc::clone(&kubelet),
        metrics: Arc::clone(&metrics),
    };
    let answers = Answers { reviewer, kubelet, samples, metrics };
    let health_listener = serve::bind(config.health).await?;
    let listener = serve::bind(config.listen).await?;
    tracing::info!(
        node = config.node_name,
        listen = %listener.local_addr()?,
        health = %health_listener.local_addr()?,
        "answering the sidecars of this node"
    );
    let tls = certificate::server_config(certificate)?;
    let health_server = serve::plain(health_listener, health::router(health), stop.clone());
    let server = serve::tls(listener, tls, answer::router(answers), stop);
    tokio::try_join!(server, health_server)?;
    Ok(())
}

/// Turns true on SIGTERM or SIGINT.
fn stop_signal() -> anyhow::Result<watch::Receiver<bool>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let (sender, receiver) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
        sender.send_replace(true);
    });
    Ok(receiver)
}
