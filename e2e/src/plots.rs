//! The plots of `docs/tiers.md`: the decision core itself in virtual time, drawn as SVG.

mod draw;
mod scenario;
mod tier;

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Args;

use scenario::SCENARIOS;

/// Where the plots go.
#[derive(Debug, Args)]
pub struct PlotsArgs {
    /// Folder to write to.
    #[arg(default_value = "docs/plots")]
    folder: PathBuf,
}

/// Writes every plot.
///
/// # Errors
/// When a document does not validate, a plot cannot be drawn or a file not written.
pub fn run(args: &PlotsArgs) -> Result<()> {
    std::fs::create_dir_all(&args.folder).with_context(|| format!("{}", args.folder.display()))?;
    for (name, svg) in all()? {
        let path = args.folder.join(name);
        std::fs::write(&path, svg).with_context(|| format!("{}", path.display()))?;
    }
    Ok(())
}

/// The name and the text of every plot.
///
/// # Errors
/// When a document does not validate or a plot cannot be drawn.
pub fn all() -> Result<Vec<(String, String)>> {
    let plot = |scenario: &scenario::Scenario| {
        let panels = tier::KINDS.map(|kind| kind.play(scenario));
        let panels = panels.into_iter().collect::<Result<Vec<_>>>()?;
        let svg = draw::svg(scenario.title, &panels).with_context(|| scenario.name.to_owned())?;
        Ok((format!("tiers-{}.svg", scenario.name), svg))
    };
    SCENARIOS.iter().map(plot).collect()
}
