//! What is asked for on the command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use tidegate_operator_core::inject::Interception;

/// Policies of Tidegate without a cluster.
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
