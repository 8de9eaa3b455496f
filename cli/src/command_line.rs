//! What is asked for on the command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

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
    /// Replay a trace of requests against policies in virtual time and print what was decided
    Simulate(SimulateArguments),
}

/// Which policies, and for which pod.
#[derive(Debug, Args)]
pub(crate) struct PolicyArguments {
    /// YAML file with policies, and with the Services that they name; - is standard input
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
    /// YAML file with pods, and with policies and Services that decide what they obey; - is standard input
    #[arg(short, long = "filename", value_name = "FILE", required = true)]
    pub(crate) filenames: Vec<PathBuf>,
    /// Namespace of objects that name none
    #[arg(short, long, default_value = "default")]
    pub(crate) namespace: String,
    /// Image of the sidecar
    #[arg(long, default_value = concat!("tidegate-sidecar:", env!("CARGO_PKG_VERSION")))]
    pub(crate) image: String,
    /// Namespace in which Tidegate is installed
    #[arg(long, default_value = "tidegate-system")]
    pub(crate) install_namespace: String,
}

#[derive(Debug, Args)]
pub(crate) struct SimulateArguments {
    #[command(flatten)]
    pub(crate) policies: PolicyArguments,
    /// CSV file: `timestamp_seconds,prompt_tokens,generated_tokens[,priority]`, or an Azure LLM inference trace
    #[arg(long, value_name = "FILE")]
    pub(crate) trace: PathBuf,
    /// How many times faster the requests arrive than in the trace
    #[arg(long, default_value_t = 1.0, value_name = "FACTOR")]
    pub(crate) speed: f64,
    #[command(flatten)]
    pub(crate) model: ModelArguments,
}

/// The engine that the simulation assumes.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct ModelArguments {
    /// Requests that the engine works on at once; more wait in its queue
    #[arg(long, default_value_t = 64, value_name = "COUNT")]
    pub(crate) batch: usize,
    /// Prompt tokens that the engine reads per second
    #[arg(long, default_value_t = 8000.0, value_name = "RATE")]
    pub(crate) prefill_rate: f64,
    /// Milliseconds between two tokens of a request that is alone; twice as many in a full batch
    #[arg(long, default_value_t = 20.0, value_name = "MILLISECONDS")]
    pub(crate) token_time: f64,
    /// Tokens of prompts and answers that fit into the memory of the GPU beside the model
    #[arg(long, default_value_t = 200_000, value_name = "TOKENS")]
    pub(crate) cache_tokens: u64,
}
