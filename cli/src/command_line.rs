//! What is asked for on the command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use tidegate_operator_core::inject::Interception;

/// Policies of Tidegate without a cluster, and a look into one.
#[derive(Debug, Parser)]
#[command(name = "kubectl-tidegate", bin_name = "kubectl tidegate", version)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Print the document that a sidecar obeys under the policies of some files
    Compile(CompileArguments),
    /// Print pods as the webhook would make them
    Inject(InjectArguments),
    /// Replay a log of requests against policies in virtual time and print what was decided
    Simulate(SimulateArguments),
    /// Judge whether the installation is sound, and say what to do where it is not
    Check(CheckArguments),
    /// Show policies, the pods that they act on, tiers and breakers
    Status(StatusArguments),
    /// Say which policies and rules act on a pod, why, and who lost
    Explain(ExplainArguments),
    /// Watch the sidecars of a namespace live
    Top(TopArguments),
    /// Restart the workloads whose pods have an old sidecar, or none although a policy selects them
    Rotate(RotateArguments),
    /// Take injection out of the cluster, before Tidegate is uninstalled
    Cleanup(CleanupArguments),
}

/// Which cluster, and which part of it.
#[derive(Debug, Args)]
pub(crate) struct ClusterArguments {
    /// File of the connection (default: $KUBECONFIG, then ~/.kube/config)
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig (default: its current one)
    #[arg(long, value_name = "NAME")]
    pub(crate) context: Option<String>,
    /// Namespace (default: that of the context)
    #[arg(short, long)]
    pub(crate) namespace: Option<String>,
    /// Namespace in which Tidegate is installed
    #[arg(long, default_value = "tidegate-system")]
    pub(crate) install_namespace: String,
}

/// One namespace or all of them.
#[derive(Debug, Args)]
pub(crate) struct ScopeArguments {
    #[command(flatten)]
    pub(crate) cluster: ClusterArguments,
    /// All namespaces
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    pub(crate) all_namespaces: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CheckArguments {
    #[command(flatten)]
    pub(crate) cluster: ClusterArguments,
    /// What is printed
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct StatusArguments {
    #[command(flatten)]
    pub(crate) scope: ScopeArguments,
    /// What is printed
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct ExplainArguments {
    /// Name of the pod
    pub(crate) pod: String,
    #[command(flatten)]
    pub(crate) cluster: ClusterArguments,
    /// What is printed
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct TopArguments {
    #[command(flatten)]
    pub(crate) scope: ScopeArguments,
    /// Seconds between two looks
    #[arg(long, default_value_t = 2.0, value_name = "SECONDS", value_parser = interval)]
    pub(crate) interval: f64,
    /// Looks, of which the last ends the command; without it there is no end
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) count: Option<u32>,
    /// What is printed at each look
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct RotateArguments {
    #[command(flatten)]
    pub(crate) scope: ScopeArguments,
    /// Only say what would be done
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Longest wait for one workload or one eviction, in seconds; 0 does not wait for workloads
    #[arg(long, default_value_t = 600, value_name = "SECONDS")]
    pub(crate) timeout: u64,
    /// What is printed: lines as it goes on, or a report at the end
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct CleanupArguments {
    #[command(flatten)]
    pub(crate) cluster: ClusterArguments,
    /// Only say what would be done
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Create the pods anew that have a sidecar; without it they keep it until they are next created
    #[arg(long)]
    pub(crate) restart: bool,
    /// With --restart, the longest wait for one workload or one eviction, in seconds; 0 does not wait for workloads
    #[arg(long, default_value_t = 600, value_name = "SECONDS")]
    pub(crate) timeout: u64,
    /// What is printed: lines as it goes on, or a report at the end
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
}

fn interval(text: &str) -> Result<f64, &'static str> {
    let seconds = text.parse().ok().filter(|seconds| (0.1..=3600.0).contains(seconds));
    seconds.ok_or("write seconds from 0.1 to 3600")
}

/// Which policies, and for which pod.
#[derive(Debug, Args)]
pub(crate) struct PolicyArguments {
    /// YAML file with policies, and with the Services that they name, or a folder of such files; - is standard input
    #[arg(short, long = "filename", value_name = "FILE", required = true)]
    pub(crate) filenames: Vec<PathBuf>,
    /// Only policies of this namespace; that of objects that name none (default: "default")
    #[arg(short, long)]
    pub(crate) namespace: Option<String>,
    /// Only policies that select the pod in this YAML file; without it all are taken as selecting one pod
    #[arg(long, value_name = "FILE")]
    pub(crate) pod: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct CompileArguments {
    #[command(flatten)]
    pub(crate) policies: PolicyArguments,
}

#[derive(Debug, Args)]
pub(crate) struct InjectArguments {
    /// YAML file with pods, and with policies and Services that decide what they obey, or a folder of such files; - is
    /// standard input
    #[arg(short, long = "filename", value_name = "FILE", required = true)]
    pub(crate) filenames: Vec<PathBuf>,
    /// Namespace of objects that name none
    #[arg(short, long, default_value = "default")]
    pub(crate) namespace: String,
    /// Image of the sidecar
    #[arg(long, default_value = concat!("tidegate-sidecar:", env!("CARGO_PKG_VERSION")))]
    pub(crate) image: String,
    /// How traffic comes to the sidecar of pods that do not say: `Auto`, `Redirect` or `NamedPort`
    #[arg(long, value_name = "WAY", default_value = "Auto", value_parser = interception)]
    pub(crate) interception: Interception,
    /// Namespace in which Tidegate is installed
    #[arg(long, default_value = "tidegate-system")]
    pub(crate) install_namespace: String,
    /// What is printed
    #[arg(short, long, value_enum, default_value_t = Manifest::Yaml)]
    pub(crate) output: Manifest,
}

#[derive(Debug, Args)]
pub(crate) struct SimulateArguments {
    #[command(flatten)]
    pub(crate) policies: PolicyArguments,
    /// Log of requests: CSV, or JSON with one object per line; - is standard input
    #[arg(long, visible_alias = "trace", value_name = "FILE")]
    pub(crate) log: PathBuf,
    /// Zone of dates that name none
    #[arg(long, default_value = "+00:00", value_name = "OFFSET", allow_hyphen_values = true)]
    pub(crate) utc_offset: String,
    /// How many times faster the requests arrive than in the log
    #[arg(long, default_value_t = 1.0, value_name = "FACTOR")]
    pub(crate) speed: f64,
    /// Seconds that are counted together over time; chosen by the length of the log without it
    #[arg(long, value_name = "SECONDS")]
    pub(crate) step: Option<f64>,
    /// Keys of each limit that are listed, those with the most refusals first
    #[arg(long, default_value_t = 10, value_name = "COUNT")]
    pub(crate) top: usize,
    /// Draw what happened over time
    #[arg(long, value_name = "FILE.svg")]
    pub(crate) plot: Option<PathBuf>,
    /// What is printed
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
    #[command(flatten)]
    pub(crate) model: ModelArguments,
}

fn interception(name: &str) -> Result<Interception, &'static str> {
    Interception::parse(name).ok_or("write Auto, Redirect or NamedPort")
}

/// Forms of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people
    Table,
    /// For programs
    Json,
    /// For both
    Yaml,
}

/// Forms of objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Manifest {
    /// A document for each
    Yaml,
    /// The object, or a List of several
    Json,
}

/// The engine that answers when the log has no latencies. By default it is vLLM with Llama-3-8B on one RTX 4090.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct ModelArguments {
    /// Requests that the engine works on at once; more wait in its queue
    #[arg(long, value_name = "COUNT")]
    pub(crate) batch: Option<usize>,
    /// Prompt tokens that the engine reads per second
    #[arg(long, value_name = "RATE")]
    pub(crate) prefill_rate: Option<f64>,
    /// Milliseconds between two tokens of a request that is alone
    #[arg(long, value_name = "MILLISECONDS")]
    pub(crate) token_time: Option<f64>,
    /// Tokens of prompts and answers that the engine's cache holds
    #[arg(long, value_name = "TOKENS")]
    pub(crate) cache_tokens: Option<u64>,
}
