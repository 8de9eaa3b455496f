//! The serving certificate, which the operator writes into a Secret: it may come after the agent, and changes.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// The certificate in use.
#[derive(Debug)]
pub(crate) struct Certificate {
    dir: PathBuf,
    provider: Arc<CryptoProvider>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    key: Option<Arc<CertifiedKey>>,
    files: Option<Files>,
    said: Option<String>,
}

#[derive(Debug, PartialEq, Eq)]
struct Files {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Certificate {
    /// The certificate of a directory, taken up at once when it is there.
    pub(crate) fn new(dir: &Path) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let certificate = Self { dir: dir.to_owned(), provider, state: Mutex::default() };
        certificate.look();
        certificate
    }

    /// Whether clients can be served.
    pub(crate) fn is_there(&self) -> bool {
        self.lock().key.is_some()
    }

    /// The directory of the files.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Takes up the files when they changed. Files that do not fit together leave the last good pair in use.
    fn look(&self) {
        let result = self.read();
        let mut state = self.lock();
        let trouble = match result {
            Ok(files) if state.files.as_ref() == Some(&files) => return,
            Ok(files) => match self.parse(&files) {
                Ok(key) => {
                    tracing::info!(dir = %self.dir.display(), "serving certificate taken up");
                    state.key = Some(Arc::new(key));
                    state.files = Some(files);
                    state.said = None;
                    return;
                }
                Err(error) => format!("{error:#}"),
            },
            Err(error) => format!("{error:#}"),
        };
        if state.said.as_ref() != Some(&trouble) {
            let kept = if state.key.is_some() { "the last one stays in use" } else { "waiting for it" };
            tracing::warn!("no serving certificate: {trouble}; {kept}");
            state.said = Some(trouble);
        }
    }

    fn read(&self) -> anyhow::Result<Files> {
        let read = |name: &str| {
            let path = self.dir.join(name);
            std::fs::read(&path).with_context(|| path.display().to_string())
        };
        Ok(Files { certificate: read("tls.crt")?, key: read("tls.key")? })
    }

    fn parse(&self, files: &Files) -> anyhow::Result<CertifiedKey> {
        let certificates = CertificateDer::pem_slice_iter(&files.certificate)
            .collect::<Result<Vec<_>, _>>()
            .context("tls.crt is not PEM")?;
        let key = PrivateKeyDer::from_pem_slice(&files.key).context("tls.key is not a private key in PEM")?;
        CertifiedKey::from_der(certificates, key, &self.provider)
            .context("tls.crt and tls.key do not belong together")
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _client: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.lock().key.clone()
    }
}

/// Looks at the files for as long as the agent runs.
pub(crate) async fn follow(certificate: Arc<Certificate>) {
    loop {
        tokio::time::sleep(LOOK).await;
        certificate.look();
    }
}

/// TLS as the agent serves it: HTTP/2 or HTTP/1.1, no client certificate, since callers show a token.
pub(crate) fn server_config(certificate: Arc<Certificate>) -> anyhow::Result<Arc<ServerConfig>> {
    let provider = Arc::clone(&certificate.provider);
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("TLS versions")?
        .with_no_client_auth()
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(dir: &Path) -> Vec<u8> {
        let pair = rcgen::generate_simple_self_signed(vec!["tidegate-agent.tidegate-system.svc".to_owned()])
            .expect("a certificate");
        std::fs::write(dir.join("tls.crt"), pair.cert.pem()).expect("tls.crt");
        std::fs::write(dir.join("tls.key"), pair.signing_key.serialize_pem()).expect("tls.key");
        pair.cert.der().to_vec()
    }

    fn served(certificate: &Certificate) -> Option<Vec<u8>> {
        certificate.lock().key.as_ref().map(|key| key.cert[0].to_vec())
    }

    #[test]
    fn a_certificate_may_come_late_and_is_replaced_when_it_changes() {
        let dir = tempfile::tempdir().expect("a directory");
        let certificate = Certificate::new(dir.path());
        assert!(!certificate.is_there());
        let first = write(dir.path());
        certificate.look();
        assert_eq!(served(&certificate), Some(first));
        let second = write(dir.path());
        certificate.look();
        assert_eq!(served(&certificate), Some(second));
    }

    #[test]
    fn a_broken_or_mismatched_pair_leaves_the_last_good_one_in_use() {
        let dir = tempfile::tempdir().expect("a directory");
        let good = write(dir.path());
        let certificate = Certificate::new(dir.path());
        std::fs::write(dir.path().join("tls.key"), "garbage").expect("tls.key");
        certificate.look();
        assert_eq!(served(&certificate), Some(good.clone()));
        let other = tempfile::tempdir().expect("a directory");
        write(other.path());
        std::fs::copy(other.path().join("tls.key"), dir.path().join("tls.key")).expect("a copy");
        certificate.look();
        assert_eq!(served(&certificate), Some(good.clone()));
        std::fs::remove_file(dir.path().join("tls.crt")).expect("removed");
        certificate.look();
        assert_eq!(served(&certificate), Some(good));
    }
}
