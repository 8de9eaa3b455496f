//! What a decision costs and that it is right, from the benchmark of the core and that of its peers.

use std::path::{Path, PathBuf};

use super::figure::Figure;
use crate::cluster::process;
use anyhow::Context as _;

/// Runs both benchmarks. The peers are no part of the workspace: they bring dependencies that the product may not
/// have.
pub async fn run() -> anyhow::Result<Vec<Figure>> {
    let mut core = process::command("cargo");
    core.args(["bench", "--quiet", "-p", "tidegate-core", "--bench", "decide"]);
    let mut figures = figures(&process::output(&mut core).await?)?;
    let mut peers = process::command("cargo");
    peers.args(["run", "--quiet", "--release", "--manifest-path", "sidecar/core/peers/Cargo.toml"]);
    peers.arg("--target-dir").arg(target_directory().join("peers"));
    match process::output(&mut peers).await {
        Ok(output) => figures.extend(self::figures(&output)?),
        Err(error) => figures.push(Figure {
            name: "beside limitador and sentinel-core".to_owned(),
            value: None,
            unit: "ratio".to_owned(),
            at_most: Some(0.2),
            at_least: None,
            note: format!("{error:#}").lines().next().unwrap_or_default().to_owned(),
        }),
    }
    Ok(figures)
}

fn target_directory() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| Path::new("target").to_owned(), PathBuf::from)
}

/// One JSON object in each line.
fn figures(output: &str) -> anyhow::Result<Vec<Figure>> {
    let parse = |line| serde_json::from_str(line).with_context(|| format!("not a figure: {line}"));
    output.lines().filter(|line| line.starts_with('{')).map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_that_was_not_measured_breaks_its_promise() {
        let lines = "{\"name\":\"a\",\"value\":1.0,\"unit\":\"ns\",\"at_most\":1.0,\"note\":\"\"}\nnoise\n\
            {\"name\":\"b\",\"value\":null,\"unit\":\"ns\",\"at_least\":1.0,\"note\":\"no valgrind\"}\n\
            {\"name\":\"c\",\"value\":0.9,\"unit\":\"ns\",\"at_least\":1.0,\"note\":\"\"}\n\
            {\"name\":\"d\",\"value\":0.9,\"unit\":\"ns\",\"note\":\"\"}\n";
        let holds: Vec<_> = figures(lines).unwrap().iter().map(Figure::holds).collect();
        assert_eq!(holds, [Some(true), Some(false), Some(false), None]);
    }
}
