//! `tidegate-e2e load`.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, bail};
use clap::Args;

use super::{
    Load, Spec,
    plan::{self, Mix, Planned},
};
use crate::trace;

/// Flags of `tidegate-e2e load`.
#[derive(Debug, Args)]
pub struct LoadArgs {
    /// Where to send, such as `http://127.0.0.1:8000/v1/chat/completions`.
    #[arg(long)]
    url: String,
    /// Requests per second.
    #[arg(long, default_value_t = 10.0)]
    rate: f64,
    /// Requests per second at the end; they rise evenly from --rate.
    #[arg(long)]
    to_rate: Option<f64>,
    /// Seconds.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Arrivals and sizes from an Azure LLM inference trace; evenly spaced equal requests without one.
    #[arg(long)]
    trace: Option<PathBuf>,
    /// Arrivals and sizes from a synthetic trace.
    #[arg(long, conflicts_with = "trace")]
    synthetic: bool,
    /// Shares of the priorities.
    #[arg(long, default_value = "low=30,medium=50,high=20")]
    mix: Mix,
    /// Tokens of each prompt, without a trace.
    #[arg(long, default_value_t = 200)]
    prompt_tokens: u32,
    /// Tokens of each answer, without a trace.
    #[arg(long, default_value_t = 20)]
    output_tokens: u32,
    /// Number of API keys that the requests use in turn.
    #[arg(long, default_value_t = 0)]
    keys: usize,
    /// Ask for whole answers instead of streams.
    #[arg(long)]
    no_stream: bool,
    /// How often a refused request is sent again after its Retry-After.
    #[arg(long, default_value_t = 0)]
    retries: u32,
    /// Seconds after which an answer counts as lost.
    #[arg(long, default_value_t = 60.0)]
    timeout: f64,
    /// Write the figures as JSON to this file.
    #[arg(long)]
    json: Option<PathBuf>,
}

impl LoadArgs {
    fn plan(&self) -> anyhow::Result<Vec<Planned>> {
        let reasonable = |value: f64| value.is_finite() && value > 0.0 && value <= 1e6;
        let to_rate = self.to_rate.unwrap_or(self.rate);
        if ![self.rate, to_rate, self.seconds, self.timeout].into_iter().all(reasonable) {
            bail!("--rate, --to-rate, --seconds, --timeout: write positive numbers of at most 1000000");
        }
        let duration = Duration::from_secs_f64(self.seconds);
        let plan = if self.synthetic || self.trace.is_some() || self.to_rate.is_some() {
            let trace = trace::load(self.trace.as_deref())?;
            eprintln!("load: arrivals {}", trace.source);
            let rate = |at: f64| self.rate + (to_rate - self.rate) * at / self.seconds;
            plan::replay(&trace.entries, duration, rate, self.mix)
        } else {
            plan::constant(self.rate, duration, self.mix, self.prompt_tokens, self.output_tokens)
        };
        Ok(if self.keys > 0 { plan::with_keys(plan, self.keys) } else { plan })
    }
}

/// Runs `tidegate-e2e load`.
pub async fn run(args: LoadArgs) -> anyhow::Result<ExitCode> {
    let spec = Spec {
        stream: !args.no_stream,
        retries: args.retries,
        timeout: Duration::from_secs_f64(args.timeout.clamp(0.001, 1e6)),
        ..Spec::new(&args.url, args.plan()?)
    };
    let load = Load::start(spec)?;
    let report = load.finish().await?;
    print!("{}", report.table());
    if let Some(file) = &args.json {
        write_json(file, &report.json())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn write_json(file: &Path, figures: &serde_json::Value) -> anyhow::Result<()> {
    std::fs::write(file, serde_json::to_vec_pretty(figures)?).with_context(|| file.display().to_string())
}
