//! Nanoseconds per decision, from the criterion benchmark of the core.

use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

use anyhow::Context as _;
use serde::Serialize;
use serde_json::Value;

use crate::cluster::process;

/// One benchmark's result.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Timing {
    /// Group and function.
    pub name: String,
    /// Median, in nanoseconds.
    pub median: f64,
    /// The median's 95 % confidence interval.
    pub interval: (f64, f64),
}

/// Runs `cargo bench` on the core's decision benchmark.
pub async fn run() -> anyhow::Result<Vec<Timing>> {
    let began = SystemTime::now();
    let mut command = process::command("cargo");
    command.args(["bench", "--quiet", "-p", "tidegate-core", "--bench", "decide"]);
    process::output(&mut command).await?;
    collect(&target_directory().join("criterion"), began)
}

fn target_directory() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from)
}

/// Every result below `directory` that was written since `began`, by name.
fn collect(directory: &Path, began: SystemTime) -> anyhow::Result<Vec<Timing>> {
    let mut timings = Vec::new();
    let mut folders = vec![directory.to_owned()];
    while let Some(folder) = folders.pop() {
        let estimates = folder.join("new/estimates.json");
        let fresh = |file: &Path| Ok::<_, std::io::Error>(file.metadata()?.modified()? >= began);
        if estimates.exists() && fresh(&estimates)? {
            let file = folder.join("new/benchmark.json");
            let timing = timing(&read(&file)?, &read(&estimates)?);
            timings.push(timing.with_context(|| format!("{} is not criterion's", file.display()))?);
        }
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            if entry.path().is_dir() {
                folders.push(entry.path());
            }
        }
    }
    timings.sort_by(|a: &Timing, b| a.name.cmp(&b.name));
    Ok(timings)
}

fn read(file: &Path) -> anyhow::Result<Value> {
    let bytes = std::fs::read(file).with_context(|| file.display().to_string())?;
    serde_json::from_slice(&bytes).with_context(|| file.display().to_string())
}

fn timing(benchmark: &Value, estimates: &Value) -> Option<Timing> {
    let median = &estimates["median"];
    let interval = &median["confidence_interval"];
    Some(Timing {
        name: benchmark["full_id"].as_str()?.to_owned(),
        median: median["point_estimate"].as_f64()?,
        interval: (interval["lower_bound"].as_f64()?, interval["upper_bound"].as_f64()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_earlier_runs_are_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let new = dir.path().join("decide/full/new");
        std::fs::create_dir_all(&new).unwrap();
        std::fs::write(new.join("benchmark.json"), r#"{"full_id": "decide/full"}"#).unwrap();
        let estimates = r#"{"median": {"point_estimate": 71.5, "confidence_interval": {"lower_bound": 70.0, "upper_bound": 73.0}}}"#;
        std::fs::write(new.join("estimates.json"), estimates).unwrap();
        let timings = collect(dir.path(), SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(timings, [Timing { name: "decide/full".into(), median: 71.5, interval: (70.0, 73.0) }]);
        let later = SystemTime::now() + std::time::Duration::from_hours(1);
        assert!(collect(dir.path(), later).unwrap().is_empty());
    }
}
