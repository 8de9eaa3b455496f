//! Installs the chart as a user does: with helm.

use std::path::PathBuf;

use anyhow::Context;
use serde_json::Value;

use crate::cluster::binaries::{self, workspace};
use crate::cluster::process;
use crate::cluster::progress::Progress;

/// Namespace and name of the release.
pub(super) const NAMESPACE: &str = "tidegate-system";
/// Name of the release.
pub(super) const RELEASE: &str = "tidegate";

/// Installs or upgrades the chart at `helm/tidegate` and waits until everything in it is Ready.
///
/// The values are the chart's own with `values` on top; images are the ones that were loaded into the cluster.
pub async fn helm_install(values: &Value) -> anyhow::Result<()> {
    let values_file = values_file(values)?;
    let chart = workspace().join("helm/tidegate").display().to_string();
    let file = values_file.path().display().to_string();
    helm(&[
        "upgrade",
        "--install",
        RELEASE,
        &chart,
        "--namespace",
        NAMESPACE,
        "--create-namespace",
        "--values",
        &file,
        "--wait",
        "--timeout",
        "3m",
    ])
    .await
    .map(drop)
}

/// Uninstalls the release and waits until its objects are gone.
pub async fn helm_uninstall() -> anyhow::Result<()> {
    helm(&["uninstall", RELEASE, "--namespace", NAMESPACE, "--ignore-not-found", "--wait", "--timeout", "2m"])
        .await
        .map(drop)
}

/// Runs helm against the cluster that `KUBECONFIG` names.
pub async fn helm(args: &[&str]) -> anyhow::Result<String> {
    let program: PathBuf = binaries::helm(&Progress::start()).await?;
    process::output(process::command(program).args(args)).await
}

fn values_file(values: &Value) -> anyhow::Result<tempfile::NamedTempFile> {
    let file = tempfile::Builder::new().suffix(".json").tempfile()?;
    serde_json::to_writer(file.as_file(), values).context("cannot write the chart's values")?;
    Ok(file)
}
