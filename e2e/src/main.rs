//! `tidegate-e2e`: the clusters, the simulators, the load, the benchmarks and the demo behind one command line.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tidegate_e2e::{bench, cluster, demo, device_plugin, engine, harness, load, plots, quality, scale};

/// Test clusters, simulators, benchmarks and the demo of Tidegate.
#[derive(Parser)]
#[command(name = "tidegate-e2e", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Bring a test cluster up or down, look at it, load images into it.
    Cluster(cluster::cli::ClusterArgs),
    /// Bring a cluster up, run a command against it, take the cluster down whatever happens.
    Test(cluster::cli::TestArgs),
    /// PID 1 of a node of the local cluster.
    #[command(hide = true)]
    NodeInit(cluster::cli::NodeInitArgs),
    /// The container runtime of kind's own Docker engine.
    #[command(hide = true, disable_help_flag = true)]
    OciRuntime(cluster::cli::RuntimeArgs),
    /// Takes a cluster down when the process that uses it has died.
    #[command(hide = true)]
    ClusterGuard(cluster::cli::GuardArgs),
    /// Build the images to be published, as OCI archives, each with the list of what is in it.
    Release(cluster::images::release::ReleaseArgs),
    /// Print the plain manifests: what the chart renders with its own values.
    Manifests,
    /// Simulate an inference engine with an OpenAI-compatible API.
    Engine(Box<engine::EngineArgs>),
    /// Offer `nvidia.com/gpu` devices to the kubelet.
    DevicePlugin(device_plugin::DevicePluginArgs),
    /// Send open-loop traffic to an engine.
    Load(load::LoadArgs),
    /// Draw the plots of the documentation.
    Plots(plots::PlotsArgs),
    /// Measure the sidecar beside other proxies.
    Bench(bench::BenchArgs),
    /// Write the profile by which the sidecar's release is compiled.
    Profile(bench::profile::ProfileArgs),
    /// Compare admission policies against a model of an engine, in virtual time.
    BenchQuality(quality::QualityArgs),
    /// Measure the operator with many pods, nodes and policies against a real API server.
    Scale(scale::ScaleArgs),
    /// Show every tier and breaker at work on a real cluster.
    Demo(demo::DemoArgs),
    /// Play the demo on the cluster of the current kubeconfig.
    #[command(hide = true)]
    DemoPlay(demo::PlayArgs),
    /// Show the sidecar at work with the same policy files and no cluster.
    DemoStandalone(demo::StandaloneArgs),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::NodeInit(args) => cluster::cli::node_init(&args),
        Command::OciRuntime(args) => cluster::cli::oci_runtime(&args),
        other => run(other),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("tidegate-e2e: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs a subcommand inside the asynchronous runtime.
fn run(command: Command) -> anyhow::Result<ExitCode> {
    let _already_installed = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async move {
        match command {
            Command::Cluster(args) => cluster::cli::run(args).await,
            Command::Test(args) => cluster::cli::test(args).await,
            Command::NodeInit(args) => cluster::cli::node_init(&args),
            Command::OciRuntime(args) => cluster::cli::oci_runtime(&args),
            Command::ClusterGuard(args) => cluster::cli::run_guard(args).await,
            Command::Release(args) => cluster::images::release::run(&args).await.map(|()| ExitCode::SUCCESS),
            Command::Manifests => print_manifests().await,
            Command::Engine(args) => engine::run(*args).await,
            Command::DevicePlugin(args) => device_plugin::run(args).await,
            Command::Load(args) => load::cli::run(args).await,
            Command::Plots(args) => plots::run(&args).map(|()| ExitCode::SUCCESS),
            Command::Bench(args) => bench::run(args).await,
            Command::Profile(args) => bench::profile::run(args).await.map(|()| ExitCode::SUCCESS),
            Command::BenchQuality(args) => quality::run(&args),
            Command::Scale(args) => scale::run(args).await,
            Command::Demo(args) => demo::run(args).await,
            Command::DemoPlay(args) => demo::run_play(args).await,
            Command::DemoStandalone(args) => demo::run_standalone(args).await,
        }
    })
}

async fn print_manifests() -> anyhow::Result<ExitCode> {
    print!("{}", harness::release::render().await?);
    Ok(ExitCode::SUCCESS)
}
