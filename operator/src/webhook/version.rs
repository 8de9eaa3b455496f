//! What the API server's version lets injected pods rely on.

use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use tokio::sync::OnceCell;

use crate::brief::brief;

/// From this minor version on, Services find the named ports of native sidecars.
const SIDECAR_PORT_NAMES: u32 = 32;
/// What the webhook's own timeout leaves for it.
const PATIENCE: Duration = Duration::from_millis(500);

/// Asks once, and again after the process restarts: an upgrade of the API server moves every pod anyway.
#[derive(Clone)]
pub(super) struct ApiServer {
    client: Client,
    minor: Arc<OnceCell<u32>>,
}

impl ApiServer {
    pub(super) fn new(client: Client) -> Self {
        Self { client, minor: Arc::default() }
    }

    /// Whether a name that a native sidecar gives its port leads Services there. While nobody knows it does not: a pod
    /// without a sidecar is served, one behind a name that nobody finds is not.
    pub(super) async fn finds_sidecar_port_names(&self) -> bool {
        let asked = tokio::time::timeout(PATIENCE, self.minor.get_or_try_init(|| self.ask())).await;
        matches!(asked, Ok(Ok(minor)) if *minor >= SIDECAR_PORT_NAMES)
    }

    async fn ask(&self) -> Result<u32, kube::Error> {
        let version = self.client.apiserver_version().await.inspect_err(|error| {
            tracing::warn!(error = brief(error), "the version of the API server is unknown");
        })?;
        Ok(minor(&version.major, &version.minor))
    }
}

/// Some providers write a sign behind the number. A later major version has all that the first had.
fn minor(major: &str, minor: &str) -> u32 {
    let digits = minor.trim_end_matches(|c: char| !c.is_ascii_digit());
    if major == "1" { digits.parse().unwrap_or(0) } else { u32::MAX }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_providers_are_read_and_others_are_old() {
        assert_eq!((minor("1", "32"), minor("1", "31+"), minor("2", "0")), (32, 31, u32::MAX));
        assert_eq!((minor("1", ""), minor("1", "x")), (0, 0));
    }
}
