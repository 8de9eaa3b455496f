//! Protection quality: admission policies against a model of an inference engine, in virtual time.
//!
//! ```text
//!  trace ──▶ tenants and clients ──▶ policy ──▶ engine model ──▶ record ──▶ score ──▶ table, plots
//!                   ▲                   │
//!                   └──── refusals ─────┘
//! ```
//!
//! Equal seeds give equal results, whatever the machine.

pub mod bound;
pub mod client;
pub mod fit;
pub mod ours;
pub mod peers;
pub mod plots;
pub mod policy;
pub mod record;
pub mod report;
pub mod run;
pub mod scene;
pub mod score;
pub mod study;
pub mod tune;
pub mod workload;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context as _;
use clap::Args;

use self::study::{Effort, Study};
use crate::trace;

/// Marks of the tables in the documentation.
const BEGIN: &str = "<!-- written by make bench-quality -->";
const END: &str = "<!-- end of what make bench-quality writes -->";

/// Flags of `tidegate-e2e bench-quality`.
#[derive(Debug, Args)]
pub struct QualityArgs {
    /// A recorded trace in the Azure LLM inference format; a synthetic one with the same marginals without it.
    #[arg(long, env = trace::TRACE_ENV)]
    trace: Option<PathBuf>,
    /// Fewer seeds, fewer tries and shorter levels: a look in under a minute.
    #[arg(long)]
    quick: bool,
    /// Only policies whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
    /// Directory of the report.
    #[arg(long, default_value = "report/quality")]
    out: PathBuf,
    /// Directory of the documentation, whose page on protection quality and plots are brought up to date.
    #[arg(long)]
    publish: Option<PathBuf>,
    /// Print the first seed's run of each policy second by second.
    #[arg(long)]
    timeline: bool,
}

/// Runs `tidegate-e2e bench-quality`.
pub fn run(args: &QualityArgs) -> anyhow::Result<ExitCode> {
    let trace = trace::load(args.trace.as_deref())?;
    let effort = if args.quick { Effort::quick() } else { Effort::full() };
    let study = Study::new(&trace, effort);
    if args.timeline {
        for kind in study::kinds(&args.only) {
            print!("{}", study.timeline(kind));
        }
        return Ok(ExitCode::SUCCESS);
    }
    let results = study.run(&args.only, |line| eprintln!("{line}"));
    std::fs::create_dir_all(&args.out).with_context(|| args.out.display().to_string())?;
    let text = report::markdown(&results);
    plots::draw(&results, &args.out)?;
    let path = args.out.join("results.md");
    std::fs::write(&path, &text).with_context(|| path.display().to_string())?;
    if let Some(docs) = &args.publish {
        publish(docs, &results, &text)?;
    }
    println!("{text}");
    Ok(ExitCode::SUCCESS)
}

/// Puts the tables between the marks of the page, and the plots beside it.
fn publish(docs: &Path, results: &study::Results, text: &str) -> anyhow::Result<()> {
    let path = docs.join("protection-quality.md");
    let page = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let parts = page.split_once(BEGIN).zip(page.split_once(END));
    let ((before, _), (_, after)) =
        parts.with_context(|| format!("{}: no {BEGIN} … {END}", path.display()))?;
    let page = format!("{before}{BEGIN}\n\n{text}\n{END}{after}");
    std::fs::write(&path, page).with_context(|| path.display().to_string())?;
    let plots = docs.join("plots/quality");
    std::fs::create_dir_all(&plots).with_context(|| plots.display().to_string())?;
    plots::draw(results, &plots)
}

impl Effort {
    /// What the committed results are made with.
    pub fn full() -> Self {
        Self {
            warm_up: Duration::from_mins(5),
            level: Duration::from_mins(2),
            recovery: Duration::from_mins(3),
            seeds: 5,
            tuning_seeds: 2,
            tries: 24,
        }
    }

    /// A look.
    pub fn quick() -> Self {
        Self {
            warm_up: Duration::from_mins(2),
            level: Duration::from_secs(40),
            recovery: Duration::from_mins(1),
            seeds: 2,
            tuning_seeds: 1,
            tries: 6,
        }
    }
}

#[cfg(test)]
mod tests;
