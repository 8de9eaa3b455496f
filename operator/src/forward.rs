//! Reports that this replica got, sent on to the replica that writes status.
//!
//! Sidecars connect to whichever replica their Service picks, and only the leader counts them. The others send it what
//! they were told, once a second, over the port of the policy stream and with their own token of its audience.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use axum::http::{Request, Uri};
use kube::client::Body;
use kube::config::AuthInfo;
use kube::{Client, Config};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};
use tidegate_operator_core::key::PodKey;
use tidegate_policy::report::Report;
use tokio::sync::watch;

use crate::brief;
use crate::certificates::Trust;
use crate::metrics::{Metrics, Outcome};
use crate::world::World;

/// Path that takes them.
pub(crate) const PATH: &str = "/v1/forwarded";
/// Of one request: about a quarter of a megabyte of usual reports.
const BATCH: usize = 64;
/// Between two passes. Sidecars report a change within a second, so status is at most two seconds old.
const PERIOD: Duration = Duration::from_secs(1);
/// A leader that does not answer is tried again in the next pass, with newer reports.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A report and whose it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Forwarded {
    namespace: String,
    name: String,
    pub(crate) uid: String,
    pub(crate) report: Report,
}

impl Forwarded {
    pub(crate) fn new(pod: PodKey, uid: String, report: Report) -> Self {
        Self { namespace: pod.namespace, name: pod.name, uid, report }
    }

    pub(crate) fn pod(&self) -> PodKey {
        PodKey::new(self.namespace.as_str(), self.name.as_str())
    }
}

/// How replicas reach each other.
#[derive(Debug, Clone)]
pub(crate) struct Peers {
    /// The name that their certificate is issued for.
    pub(crate) server_name: String,
    /// This replica's token, for the audience of the policy stream; read anew by each connection.
    pub(crate) token_file: PathBuf,
}

/// Sends reports on while another replica leads.
pub(crate) struct Forwarder {
    peers: Peers,
    world: Arc<World>,
    leader: watch::Receiver<Option<String>>,
    trust: watch::Receiver<Option<Trust>>,
    metrics: Metrics,
}

impl Forwarder {
    /// `leader` is the address of the replica that leads, as long as it is another one and has said where it is.
    pub(crate) fn new(
        peers: Peers,
        world: Arc<World>,
        leader: watch::Receiver<Option<String>>,
        trust: watch::Receiver<Option<Trust>>,
        metrics: Metrics,
    ) -> Self {
        Self { peers, world, leader, trust, metrics }
    }

    /// Runs for ever.
    pub(crate) async fn run(mut self) {
        let mut client = None;
        loop {
            let changed =
                self.leader.has_changed().unwrap_or(false) || self.trust.has_changed().unwrap_or(false);
            if changed || client.is_none() {
                client = self.connect();
            }
            match &client {
                Some(client) => self.pass(client).await,
                None => drop(self.world.take_unforwarded()),
            }
            tokio::time::sleep(PERIOD).await;
        }
    }

    /// A client of the leader, which is told everything anew; none while this replica leads or nobody does.
    fn connect(&mut self) -> Option<Client> {
        let address = self.leader.borrow_and_update().clone()?;
        let trust = self.trust.borrow_and_update().clone()?;
        match self.client(&address, &trust) {
            Ok(client) => {
                tracing::info!(leader = address, "reports go to the leader");
                self.world.forward_all_again();
                Some(client)
            }
            Err(error) => {
                tracing::warn!(
                    leader = address,
                    error = brief::in_context(&error),
                    "the leader cannot be reached"
                );
                None
            }
        }
    }

    fn client(&self, address: &str, trust: &Trust) -> anyhow::Result<Client> {
        let url: Uri =
            format!("https://{address}").parse().context("the Lease has no address of its holder")?;
        let roots = CertificateDer::pem_slice_iter(trust.bundle.as_bytes());
        let roots = roots.map(|root| root.map(|der| der.to_vec())).collect::<Result<Vec<_>, _>>();
        let mut config = Config::new(url);
        config.root_cert = Some(roots.context("the CA bundle is not PEM")?);
        config.tls_server_name = Some(self.peers.server_name.clone());
        config.connect_timeout = Some(TIMEOUT);
        config.read_timeout = Some(TIMEOUT);
        let token_file = self.peers.token_file.to_string_lossy().into_owned();
        config.auth_info = AuthInfo { token_file: Some(token_file), ..AuthInfo::default() };
        Client::try_from(config).context("no client can be made")
    }

    async fn pass(&self, client: &Client) {
        let mut reports = self.world.take_unforwarded();
        while !reports.is_empty() {
            let batch: Vec<Forwarded> = reports.drain(..reports.len().min(BATCH)).collect();
            let sent = tokio::time::timeout(TIMEOUT, send(client, &batch)).await;
            let failed = match sent {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(brief::in_context(&error)),
                Err(_) => Some("it took too long".to_owned()),
            };
            let outcome = if failed.is_none() { "ok" } else { "failed" };
            self.metrics.forwarded.get_or_create(&Outcome { outcome }).inc_by(batch.len() as u64);
            if let Some(error) = failed {
                tracing::warn!(error, "reports could not be sent to the leader");
                self.world.forward_again(batch.iter().chain(&reports).map(Forwarded::pod));
                return;
            }
        }
    }
}

async fn send(client: &Client, batch: &[Forwarded]) -> anyhow::Result<()> {
    let body = serde_json::to_vec(batch).context("the reports cannot be written")?;
    let request = Request::post(PATH)
        .header("content-type", "application/json")
        .body(Body::from(body))
        .context("no request can be made")?;
    let response = client.send(request).await.context("the leader does not answer")?;
    if !response.status().is_success() {
        bail!("the leader answers {}", response.status());
    }
    Ok(())
}
