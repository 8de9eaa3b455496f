//! The serving certificate of the moment, for rustls.

use std::sync::{Arc, PoisonError, RwLock};

use anyhow::{Context, anyhow};
use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::pair::Pair;

/// Gives each handshake the newest certificate; none before there is one.
#[derive(Debug, Default)]
pub(crate) struct Resolver(RwLock<Option<Arc<CertifiedKey>>>);

impl Resolver {
    pub(super) fn set(&self, pair: &Pair) -> anyhow::Result<()> {
        let chain = CertificateDer::pem_slice_iter(pair.certificate.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| anyhow!("{e}"))
            .context("the serving certificate is not PEM")?;
        let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes())
            .map_err(|e| anyhow!("{e}"))
            .context("the serving key is not PEM")?;
        let provider = rustls::crypto::ring::default_provider();
        let key = CertifiedKey::from_der(chain, key, &provider).context("the serving key cannot be used")?;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(key));
        Ok(())
    }

    /// TLS for servers that show this certificate.
    pub(crate) fn server_config(self: &Arc<Self>) -> anyhow::Result<ServerConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .context("no version of TLS can be used")?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
