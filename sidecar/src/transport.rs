//! TLS connections to operator and agent.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::endpoint::Endpoint;
use crate::trust::Trust;

/// Longest time until a connection is there, name and handshake included.
const PATIENCE: Duration = Duration::from_secs(5);

/// What hyper drives.
pub type Connection = TokioIo<TlsStream<TcpStream>>;

/// Connects and shakes hands for `protocol`, an ALPN name.
pub async fn connect(endpoint: &Endpoint, trust: &Trust, protocol: &[u8]) -> Result<Connection> {
    let client = trust.client(protocol).with_context(|| format!("can't connect to {endpoint}"))?;
    connect_as(endpoint, client).await
}

/// Connects and shakes hands as `client`.
pub async fn connect_as(endpoint: &Endpoint, client: Arc<ClientConfig>) -> Result<Connection> {
    timeout(PATIENCE, shake_hands(endpoint, client))
        .await
        .with_context(|| format!("{endpoint} gives no connection within {} s", PATIENCE.as_secs()))?
        .with_context(|| format!("can't connect to {endpoint}"))
}

async fn shake_hands(endpoint: &Endpoint, client: Arc<ClientConfig>) -> Result<Connection> {
    let connector = TlsConnector::from(client);
    let name = endpoint.server_name().context("its host has no valid name")?;
    let stream = TcpStream::connect((endpoint.host(), endpoint.port())).await?;
    stream.set_nodelay(true)?;
    Ok(TokioIo::new(connector.connect(name, stream).await?))
}

/// A task that ends with its owner.
#[derive(Debug)]
pub struct Driven(JoinHandle<()>);

impl Driven {
    /// Drives a connection. That it ended is seen by whoever uses it.
    pub fn spawn<E>(connection: impl Future<Output = Result<(), E>> + Send + 'static) -> Self {
        Self(tokio::spawn(async move {
            let _ = connection.await;
        }))
    }
}

impl Drop for Driven {
    fn drop(&mut self) {
        self.0.abort();
    }
}
