//! Asks the API server whether it serves, from a process that must not have an asynchronous runtime (PID 1 of a node).

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::cluster::local::{layout, pki};

const TIMEOUT: Duration = Duration::from_secs(1);

/// A client for the API server's health endpoints, which anybody may read.
pub(super) struct Health {
    address: SocketAddr,
    tls: Arc<ClientConfig>,
}

impl Health {
    /// A client that trusts the cluster's CA.
    pub(super) fn of_api_server() -> anyhow::Result<Self> {
        let address: IpAddr = layout::node_address(0).parse()?;
        let mut roots = RootCertStore::empty();
        roots.add(
            CertificateDer::from_pem_file(pki::certificates().join("ca.crt"))
                .context("cannot read the CA")?,
        )?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { address: SocketAddr::new(address, 6443), tls: Arc::new(tls) })
    }

    /// Whether a health endpoint answers 200.
    pub(super) fn is_ok(&self, path: &str) -> bool {
        self.status(path).is_ok_and(|line| line.starts_with(b"HTTP/1.1 200"))
    }

    fn status(&self, path: &str) -> anyhow::Result<[u8; 12]> {
        let socket = TcpStream::connect_timeout(&self.address, TIMEOUT)?;
        socket.set_read_timeout(Some(TIMEOUT))?;
        socket.set_write_timeout(Some(TIMEOUT))?;
        let name = ServerName::from(self.address.ip());
        let mut stream = StreamOwned::new(ClientConnection::new(Arc::clone(&self.tls), name)?, socket);
        write!(stream, "GET {path} HTTP/1.1\r\nhost: kubernetes\r\nconnection: close\r\n\r\n")?;
        let mut line = [0; 12];
        stream.read_exact(&mut line)?;
        Ok(line)
    }
}
