//! The command line of the clusters.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use clap::{Args, Subcommand};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::ListParams;
use kube::{Api, ResourceExt};

use crate::cluster::progress::Progress;
use crate::cluster::{Cluster, ClusterChoice, Lifetime, client, dump, guard, images, kind, local, session};

/// Flags of `tidegate-e2e cluster`.
#[derive(Debug, Args)]
pub struct ClusterArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Bring the cluster up and keep it until `down`.
    Up(ClusterChoice),
    /// Take the cluster down and remove everything it put on this machine.
    Down(ClusterChoice),
    /// Show nodes and pods.
    Status(ClusterChoice),
    /// Print the path of the kubeconfig.
    Kubeconfig(ClusterChoice),
    /// Compile the product, build its images and load them into every node.
    LoadImages {
        #[command(flatten)]
        choice: ClusterChoice,
        /// Load these docker-archives instead of building the product's images.
        archives: Vec<PathBuf>,
    },
    /// Run a command on a node.
    Exec {
        #[command(flatten)]
        choice: ClusterChoice,
        /// Name of the node.
        node: String,
        /// The command.
        #[arg(trailing_var_arg = true, required = true)]
        command: Vec<String>,
    },
}

/// Flags of `tidegate-e2e test`.
#[derive(Debug, Args)]
pub struct TestArgs {
    #[command(flatten)]
    pub(crate) choice: ClusterChoice,
    /// Keep the cluster when the command has ended.
    #[arg(long)]
    pub(crate) keep: bool,
    /// Build the product's images and load them before the command runs.
    #[arg(long)]
    pub(crate) load_images: bool,
    /// The command, after `--`.
    #[arg(last = true, required = true)]
    pub(crate) command: Vec<String>,
}

/// Flags of `tidegate-e2e node-init`.
#[derive(Debug, Args)]
pub struct NodeInitArgs {
    spec: PathBuf,
}

/// Arguments of `tidegate-e2e oci-runtime`: runc's.
#[derive(Debug, Args)]
pub struct RuntimeArgs {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// Flags of `tidegate-e2e cluster-guard`.
#[derive(Debug, Args)]
pub struct GuardArgs {
    #[command(flatten)]
    choice: ClusterChoice,
}

/// Runs `tidegate-e2e cluster`.
///
/// # Errors
/// One line that says what failed.
pub async fn run(args: ClusterArgs) -> anyhow::Result<ExitCode> {
    let progress = Progress::start();
    match args.action {
        Action::Up(choice) => up(choice.open(&progress).as_ref(), &progress).await?,
        Action::Down(choice) => choice.open(&progress).down().await?,
        Action::Status(choice) => status(choice.open(&progress).as_ref()).await?,
        Action::Kubeconfig(choice) => println!("{}", choice.open(&progress).kubeconfig().display()),
        Action::LoadImages { choice, archives } => {
            load_images(choice.open(&progress).as_ref(), archives, &progress).await?;
        }
        Action::Exec { choice, node, command } => {
            let words: Vec<&str> = command.iter().map(String::as_str).collect();
            let output = choice.open(&progress).exec(&node, &words).await?;
            print!("{}", String::from_utf8_lossy(&output.stdout));
            eprint!("{}", String::from_utf8_lossy(&output.stderr));
            return Ok(if output.status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs `tidegate-e2e test`.
///
/// # Errors
/// When the cluster cannot be brought up or taken down.
pub async fn test(args: TestArgs) -> anyhow::Result<ExitCode> {
    session::run(args).await
}

/// Runs PID 1 of a node.
///
/// # Errors
/// When the node cannot be set up.
pub fn node_init(args: &NodeInitArgs) -> anyhow::Result<ExitCode> {
    local::node_init::run(&args.spec)?;
    Ok(ExitCode::SUCCESS)
}

/// Becomes runc.
///
/// # Errors
/// When it cannot.
pub fn oci_runtime(args: &RuntimeArgs) -> anyhow::Result<ExitCode> {
    kind::runtime::run(&args.arguments)?;
    Ok(ExitCode::SUCCESS)
}

/// Waits for the end of the process at the other end of stdin, and takes the cluster down after it.
///
/// # Errors
/// When the cluster cannot be taken down.
pub async fn run_guard(args: GuardArgs) -> anyhow::Result<ExitCode> {
    guard::watch(args.choice).await
}

async fn up(cluster: &dyn Cluster, progress: &Progress) -> anyhow::Result<()> {
    if let Err(error) = cluster.up(Lifetime::Kept).await {
        let was_created = cluster.kubeconfig().exists();
        if was_created {
            save_failure(cluster).await;
        }
        if let Err(also) = cluster.down().await
            && was_created
        {
            eprintln!("tidegate-e2e: {also:#}");
        }
        return Err(error);
    }
    progress.say(format_args!("ready: export KUBECONFIG={}", cluster.kubeconfig().display()));
    Ok(())
}

/// Builds the product's images, or takes the given archives, and loads them into every node.
pub(crate) async fn load_images(
    cluster: &dyn Cluster,
    mut archives: Vec<PathBuf>,
    progress: &Progress,
) -> anyhow::Result<()> {
    if !cluster.is_up() {
        bail!(
            "the {} cluster is not up: `tidegate-e2e cluster up --cluster {}`",
            cluster.kind().name(),
            cluster.kind().name()
        );
    }
    if archives.is_empty() {
        archives = images::build(progress).await?;
    }
    cluster.load_images(&archives).await?;
    progress.say(format_args!("{} images are on every node", archives.len()));
    Ok(())
}

async fn status(cluster: &dyn Cluster) -> anyhow::Result<()> {
    if !cluster.is_up() {
        bail!("the {} cluster is not up", cluster.kind().name());
    }
    let client = client::from_file(&cluster.kubeconfig()).await?;
    println!("KUBECONFIG={}", cluster.kubeconfig().display());
    for node in Api::<Node>::all(client.clone()).list(&ListParams::default()).await? {
        let conditions = node.status.clone().and_then(|status| status.conditions).unwrap_or_default();
        let ready = conditions.iter().find(|condition| condition.type_ == "Ready");
        println!(
            "node {} Ready={}",
            node.name_any(),
            ready.map_or("Unknown", |condition| condition.status.as_str())
        );
    }
    for pod in Api::<Pod>::all(client).list(&ListParams::default()).await? {
        print!("{}", dump::summary(&pod));
    }
    Ok(())
}

/// Saves what helps to understand a failure and prints where.
pub(crate) async fn save_failure(cluster: &dyn Cluster) {
    let saved = async {
        let directory = dump::new_directory("failure")?;
        if let Err(error) = cluster.save_node_logs(&directory).await {
            eprintln!("the nodes' logs cannot be saved: {error:#}");
        }
        if let Ok(client) = client::from_file(&cluster.kubeconfig()).await {
            let all = dump::save(&client, None, &directory);
            let _unreachable_cluster = tokio::time::timeout(std::time::Duration::from_secs(30), all).await;
        }
        anyhow::Ok(directory)
    };
    match saved.await {
        Ok(directory) => eprintln!("pods, events and logs are in {}", directory.display()),
        Err(error) => eprintln!("the cluster's state cannot be saved: {error:#}"),
    }
}
