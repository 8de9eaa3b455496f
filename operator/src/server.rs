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
/// How long after a replica began to leave it closes its webhooks' connections: by then Services lead to the others.
const HANDOVER: Duration = Duration::from_secs(2);
/// What a peer may have open on one connection. A sidecar needs two.
const STREAMS: u32 = 64;

/// When connections that are open are closed, each after the requests that are running on it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Closing {
    /// When the servers end: a sidecar keeps its stream for as long as it can.
    Stopped,
    /// While the replica still serves: the API server keeps a connection for hours, and would have its pods injected by a
    /// replica that is leaving until the very end, as the older one of an upgrade does.
    Leaving,
}

impl Closing {
    async fn is_due(self, shutdown: &Shutdown) {
        match self {
            Self::Stopped => shutdown.stopped().await,
            Self::Leaving => {
                shutdown.leaving().await;
                tokio::time::sleep(HANDOVER).await;
            }
        }
    }
}

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
    closing: Closing,
) {
    let acceptor = tls.map(TlsAcceptor::from);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = shutdown.stopped() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let http = Http { router: router.clone(), shutdown: shutdown.clone(), closing };
                    connections.spawn(connection(stream, acceptor.clone(), http));
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

/// What is served on a connection, and until when.
struct Http {
    router: Router,
    shutdown: Shutdown,
    closing: Closing,
}

async fn connection(stream: TcpStream, acceptor: Option<TlsAcceptor>, http: Http) {
    // Only a delay is lost when the option cannot be set.
    let _ = stream.set_nodelay(true);
    let Some(acceptor) = acceptor else { return http.serve(stream).await };
    match tokio::time::timeout(PATIENCE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => http.serve(stream).await,
        Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
        Err(_) => tracing::debug!("TLS handshake took too long"),
    }
}

impl Http {
    async fn serve<S>(self, stream: S)
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
        let service = TowerToHyperService::new(self.router);
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        let due = self.closing.is_due(&self.shutdown);
        tokio::pin!(connection, due);
        let mut is_closing = false;
        loop {
            tokio::select! {
                result = connection.as_mut() => {
                    if let Err(error) = result {
                        tracing::debug!(%error, "connection ended");
                    }
                    return;
                }
                () = due.as_mut(), if !is_closing => {
                    is_closing = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::shutdown;

    /// Far beyond what a step takes, also on a loaded machine.
    const LONG: Duration = Duration::from_mins(1);

    async fn asked(stream: &mut TcpStream) -> String {
        stream.write_all(b"GET / HTTP/1.1\r\nhost: o\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"served") {
            let mut piece = [0; 256];
            let read = tokio::time::timeout(LONG, stream.read(&mut piece)).await.unwrap().unwrap();
            assert!(read > 0, "it hung up after {:?}", String::from_utf8_lossy(&answer));
            answer.extend_from_slice(&piece[..read]);
        }
        String::from_utf8(answer).unwrap()
    }

    #[tokio::test]
    async fn a_replica_that_leaves_hands_its_webhooks_over_before_it_stops() {
        let (trigger, shutdown) = shutdown::channel();
        let router = Router::new().route("/", get(async || "served"));
        let mut kept = Vec::new();
        for closing in [Closing::Leaving, Closing::Stopped] {
            let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
            let address = listener.local_addr().unwrap();
            tokio::spawn(serve(listener, None, router.clone(), shutdown.clone(), closing));
            let mut stream = TcpStream::connect(address).await.unwrap();
            assert!(asked(&mut stream).await.starts_with("HTTP/1.1 200"));
            kept.push(stream);
        }
        trigger.leave();
        let [webhook, policies] = kept.as_mut_slice() else { panic!("two connections") };
        let mut rest = Vec::new();
        tokio::time::timeout(LONG, webhook.read_to_end(&mut rest)).await.unwrap().unwrap();
        assert!(rest.is_empty(), "nothing but the end of the connection");
        assert!(asked(policies).await.starts_with("HTTP/1.1 200"));
        trigger.stop();
        tokio::time::timeout(LONG, policies.read_to_end(&mut rest)).await.unwrap().unwrap();
    }
}
