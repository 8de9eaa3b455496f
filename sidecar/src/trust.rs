//! Whom this sidecar trusts, and as whom it shows itself to operator and agent.
//!
//! Everything is read at the moment of connecting: authorities are rotated by the operator and tokens by the
//! kubelet, both by replacing files.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use anyhow::{Context, Result, bail};
use http::HeaderValue;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

/// Files with authorities in PEM.
#[derive(Debug, Clone)]
pub struct Trust {
    /// The one that is kept up to date.
    pub ca: Option<PathBuf>,
    /// As at admission; read while the other is absent or has no certificate.
    pub fallback: Option<PathBuf>,
}

impl Trust {
    /// What connects with the authorities of this moment and speaks `protocol`.
    pub fn client(&self, protocol: &[u8]) -> Result<Arc<ClientConfig>> {
        client(self.roots()?, protocol)
    }

    fn roots(&self) -> Result<RootCertStore> {
        let mut problems = Vec::new();
        for file in [&self.ca, &self.fallback].into_iter().flatten() {
            match read_roots(file) {
                Ok(roots) => return Ok(roots),
                Err(error) => problems.push(format!("{error:#}")),
            }
        }
        bail!("no authority to trust: {}", problems.join("; "))
    }
}

/// A client that believes these authorities and speaks `protocol`, an ALPN name.
pub fn client(roots: RootCertStore, protocol: &[u8]) -> Result<Arc<ClientConfig>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok(Arc::new(config))
}

/// A client of HTTP/1.1 that believes the public authorities. Made once.
pub fn public_client() -> Result<Arc<ClientConfig>> {
    static CLIENT: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    if let Some(client) = CLIENT.get() {
        return Ok(Arc::clone(client));
    }
    let made = client(webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect(), b"http/1.1")?;
    Ok(Arc::clone(CLIENT.get_or_init(|| made)))
}

fn read_roots(file: &Path) -> Result<RootCertStore> {
    let pem = std::fs::read(file).with_context(|| format!("can't read {}", file.display()))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.with_context(|| format!("{} is not PEM", file.display()))?;
        roots.add(certificate).with_context(|| format!("{} has a certificate of no use", file.display()))?;
    }
    if roots.is_empty() {
        bail!("{} has no certificate", file.display());
    }
    Ok(roots)
}

/// The `authorization` that the token in `file` makes.
pub fn authorization(file: &Path) -> Result<HeaderValue> {
    let token =
        std::fs::read_to_string(file).with_context(|| format!("can't read the token {}", file.display()))?;
    if token.trim().is_empty() {
        bail!("the token {} is empty", file.display());
    }
    let mut value = HeaderValue::try_from(format!("Bearer {}", token.trim()))
        .with_context(|| format!("{} is not a token", file.display()))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn certificate() -> String {
        rcgen::generate_simple_self_signed(["ca".to_owned()]).unwrap().cert.pem()
    }

    #[test]
    fn the_fallback_is_trusted_while_the_bundle_is_absent_empty_or_broken() {
        let folder = tempfile::tempdir().unwrap();
        let (ca, fallback) = (folder.path().join("ca"), folder.path().join("fallback"));
        let trust = Trust { ca: Some(ca.clone()), fallback: Some(fallback.clone()) };
        fs::write(&fallback, certificate()).unwrap();
        assert_eq!(trust.roots().unwrap().len(), 1);
        for broken in ["", "no certificate", "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n"] {
            fs::write(&ca, broken).unwrap();
            assert_eq!(trust.roots().unwrap().len(), 1, "{broken:?}");
        }
        fs::write(&ca, certificate() + &certificate()).unwrap();
        assert_eq!(trust.roots().unwrap().len(), 2);
    }

    #[test]
    fn without_any_authority_the_files_are_named() {
        let trust = Trust { ca: Some("/nowhere/ca".into()), fallback: Some("/nowhere/fallback".into()) };
        let message = trust.roots().unwrap_err().to_string();
        assert!(message.contains("/nowhere/ca") && message.contains("/nowhere/fallback"), "{message}");
    }

    #[test]
    fn a_token_is_trimmed_and_kept_out_of_logs() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(authorization(file.path()).unwrap_err().to_string().contains("is empty"));
        fs::write(file.path(), "abc.def\n").unwrap();
        let value = authorization(file.path()).unwrap();
        assert_eq!(value.to_str().unwrap(), "Bearer abc.def");
        assert!(!format!("{value:?}").contains("abc"));
    }
}
