//! Key sets that are read from their issuers.
//!
//! A set that can't be read leaves the last one in force: an issuer that is away must not take its users' classes
//! and keys from them.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tidegate_policy::JwtKeys;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{info, warn};

use super::issuers::Issuer;
use super::key_set::KeySet;
use crate::endpoint::Endpoint;
use crate::shared::Shared;
use crate::transport::{self, Driven};
use crate::trust;

/// Between two readings of a set that nobody misses a key in.
const PERIOD: Duration = Duration::from_mins(5);
/// Between two readings at all, so that made-up key names are no way to flood an issuer.
const COOLDOWN: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(5);
const LARGEST_SET: usize = 256 * 1024;

/// Reads the sets of all issuers that have them elsewhere: at once, every few minutes, when the policy changes and
/// when a token names a key that is not known.
pub async fn follow(shared: Arc<Shared>) {
    loop {
        let began = Instant::now();
        let issuers = shared.issuers.load_full();
        for issuer in issuers.iter() {
            let JwtKeys::Remote { uri, ca_bundle } = &issuer.policy.keys else { continue };
            match timeout(PATIENCE, read(uri, ca_bundle.as_deref()))
                .await
                .context("no answer in time")
                .flatten()
            {
                Ok(keys) => {
                    info!(uri, "key set read");
                    issuers.rotate(issuer, keys);
                }
                Err(error) => {
                    shared.metrics.identity.key_set_error();
                    warn!(uri, cause = format!("{error:#}"), "key set not read; the last one stays in force");
                }
            }
        }
        let unread = issuers.iter().any(Issuer::is_unread);
        let _elapsed = timeout(if unread { COOLDOWN } else { PERIOD }, issuers.missing.notified()).await;
        // Another policy is no flood.
        if Arc::ptr_eq(&issuers, &shared.issuers.load()) {
            sleep_until(began + COOLDOWN).await;
        }
    }
}

async fn read(uri: &str, ca_bundle: Option<&str>) -> Result<KeySet> {
    let uri: Uri = uri.parse().context("not an address")?;
    let host = uri.host().context("no host")?;
    let endpoint: Endpoint =
        format!("https://{host}:{}", uri.port_u16().unwrap_or(443)).parse().map_err(anyhow::Error::msg)?;
    let connection = transport::connect_as(&endpoint, client(ca_bundle)?).await?;
    let (mut sender, connection) = http1::handshake(connection).await?;
    let _driven = Driven::spawn(connection);
    let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let request = Request::get(path)
        .header(header::HOST, uri.authority().map_or(host, http::uri::Authority::as_str))
        .header(header::ACCEPT, "application/jwk-set+json, application/json")
        .body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    if response.status() != StatusCode::OK {
        bail!("it answered {}", response.status());
    }
    let body = Limited::new(response.into_body(), LARGEST_SET).collect().await;
    KeySet::parse(&body.map_err(|error| anyhow::anyhow!(error))?.to_bytes())
}

fn client(ca_bundle: Option<&str>) -> Result<Arc<ClientConfig>> {
    let Some(pem) = ca_bundle else { return trust::public_client() };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        roots.add(certificate.context("caBundle is not PEM")?)?;
    }
    ensure!(!roots.is_empty(), "caBundle has no certificate");
    trust::client(roots, b"http/1.1")
}
