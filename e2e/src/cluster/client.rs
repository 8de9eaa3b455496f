//! Clients of a cluster by its kubeconfig file.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// A node of this machine answers at once or not at all; a lost SYN must not cost half a minute.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// A client for the cluster that a kubeconfig file names.
pub(super) async fn from_file(path: &Path) -> anyhow::Result<Client> {
    let kubeconfig =
        Kubeconfig::read_from(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    Ok(Client::try_from(config)?)
}
