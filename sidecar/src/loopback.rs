//! Connections to the engine in the same pod that no client asked for.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result};
use tokio::net::TcpStream;

/// Connects to a port of this pod, over IPv6 when nobody answers over IPv4.
pub(crate) async fn connect(port: u16) -> Result<TcpStream> {
    match TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
        Ok(stream) => Ok(stream),
        Err(error) => TcpStream::connect((Ipv6Addr::LOCALHOST, port))
            .await
            .map_err(|_| error)
            .with_context(|| format!("port {port} of the engine")),
    }
}
