//! Serving a router over TLS or in the clear, until told to stop.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::shutdown::Shutdown;

/// A client that has not sent its head or finished its handshake by then is dropped.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often an idle HTTP/2 connection is asked whether anybody is there.
const PING: Duration = Duration::from_secs(20);
/// How long running requests may go on after the end of accepting.
const FINISH: Duration = Duration::from_secs(8);
/// What a peer may have open on one connection. A sidecar needs two.
const STREAMS: u32 = 64;

/// Opens a listening socket, for IPv4 too where the address is `[::]`.
pub(crate) fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let open = || -> std::io::Result<TcpListener> {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    };
    match open() {
        // A node without IPv6 has no `[::]`.
        Err(error) if address.is_ipv6() && error.kind() != std::io::ErrorKind::AddrInUse => {
            if !address.ip().is_unspecified() {
                return Err(error).with_context(|| format!("{address} cannot be listened on"));
            }
            listen(SocketAddr::from(([0, 0, 0, 0], address.port())))
        }
        result => result.with_context(|| format!("{address} cannot be listened on")),
    }
}

/// Serves until shutdown, then lets running requests end.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    router: Router,
    shutdown: Shutdown,
) {
    let acceptor = tls.map(TlsAcceptor::from);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = shutdown.stopped() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, acceptor.clone(), router.clone(), shutdown.clone()));
                }
                // Out of descriptors, most likely: the sockets that close meanwhile give some back.
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
    let all = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(FINISH, all).await.is_err() {
        tracing::warn!("connections were cut off at shutdown");
    }
}

async fn connection(stream: TcpStream, acceptor: Option<TlsAcceptor>, router: Router, shutdown: Shutdown) {
    // Only a delay is lost when the option cannot be set.
    let _ = stream.set_nodelay(true);
    let Some(acceptor) = acceptor else { return http(stream, router, shutdown).await };
    match tokio::time::timeout(PATIENCE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => http(stream, router, shutdown).await,
        Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
        Err(_) => tracing::debug!("TLS handshake took too long"),
    }
}

async fn http<S>(stream: S, router: Router, shutdown: Shutdown)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(PATIENCE);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING)
        .keep_alive_timeout(PATIENCE)
        .max_concurrent_streams(STREAMS);
    let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(connection);
    let mut stopping = false;
    loop {
        tokio::select! {
            result = connection.as_mut() => {
                if let Err(error) = result {
                    tracing::debug!(%error, "connection ended");
                }
                return;
            }
            () = shutdown.stopped(), if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}
