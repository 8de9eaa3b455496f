//! The admin port: for the kubelet, for Prometheus and for people. It has a thread of its own together with the
//! rest that is not the data path, so that scraping never waits behind requests, nor they behind it.

mod drain;
mod probe;
mod status;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};
use tracing::warn;

use crate::policy::Keeper;
use crate::shared::Shared;

/// A client that is slower with its request's head is not waited for.
const HEAD_PATIENCE: Duration = Duration::from_secs(10);

/// Connections at once: whoever floods this port must not take the memory and the descriptors of the data path. For one
/// more the oldest goes, so that clients that send or read nothing do not keep a probe of the kubelet from its answer.
const MOST_CONNECTIONS: usize = 128;

/// How long a connection may last, unless a drain is held on it.
const LONGEST_CONNECTION: Duration = Duration::from_mins(1);

/// What the admin port answers from.
#[derive(Debug)]
pub struct Admin {
    /// Engine, metrics and drain.
    pub shared: Arc<Shared>,
    /// The policy in force.
    pub keeper: Arc<Keeper>,
    /// Ports of the engine that may be probed: the guarded and the opaque ones.
    pub ports: Vec<u16>,
    /// Secret part of the drain's path; without it there is no such path.
    pub drain_token: Option<String>,
    /// Longest time that a drain is held.
    pub drain_deadline: Duration,
    /// When the first drain was asked for.
    pub drain_began: OnceLock<Instant>,
}

/// Serves for ever.
pub async fn serve(listener: TcpListener, admin: Arc<Admin>) {
    let mut connections = Connections::default();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => connections.enter(stream, Arc::clone(&admin)),
            Err(error) => {
                warn!(%error, "the admin port can't accept");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Those that are open, the oldest first.
#[derive(Debug, Default)]
struct Connections(VecDeque<Open>);

#[derive(Debug)]
struct Open {
    task: AbortHandle,
    holds_drain: Arc<AtomicBool>,
}

impl Connections {
    fn enter(&mut self, stream: TcpStream, admin: Arc<Admin>) {
        self.0.retain(|open| !open.task.is_finished());
        if self.0.len() >= MOST_CONNECTIONS {
            let oldest = self.0.iter().position(|open| !open.holds_drain.load(Relaxed));
            // Drains on all of them were asked for with the token: whoever has that may have them all.
            let Some(oldest) = oldest.and_then(|at| self.0.remove(at)) else { return };
            oldest.task.abort();
        }
        let holds_drain = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn(connection(stream, admin, Arc::clone(&holds_drain))).abort_handle();
        self.0.push_back(Open { task, holds_drain });
    }
}

async fn connection(stream: TcpStream, admin: Arc<Admin>, holds_drain: Arc<AtomicBool>) {
    let service = service_fn(|request| {
        let (admin, holds_drain) = (Arc::clone(&admin), Arc::clone(&holds_drain));
        async move { Ok::<_, Infallible>(answer(&admin, &request, &holds_drain).await) }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD_PATIENCE).max_buf_size(16 << 10);
    let mut connection = pin!(server.serve_connection(TokioIo::new(stream), service));
    // A client that goes away early is no event.
    while timeout(LONGEST_CONNECTION, &mut connection).await.is_err() {
        if !holds_drain.load(Relaxed) {
            return;
        }
    }
}

type Answer = Response<Full<Bytes>>;

async fn answer(admin: &Admin, request: &Request<Incoming>, holds_drain: &AtomicBool) -> Answer {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
    }
    let path = request.uri().path();
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    match parts[..] {
        ["live"] => text(StatusCode::OK, "live\n"),
        ["ready"] => ready(admin),
        ["metrics"] => metrics(admin),
        ["throttle", "status"] => match status::page(admin) {
            Ok(json) => typed(StatusCode::OK, "application/json", json),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        },
        ["drain", token] if admin.drain_token.as_deref().is_some_and(|own| same(own, token)) => {
            holds_drain.store(true, Relaxed);
            let ended = drain::hold(admin).await;
            holds_drain.store(false, Relaxed);
            typed(StatusCode::OK, "application/json", ended)
        }
        ["probe", "tcp", port] => match admin.engine_port(port) {
            Some(port) => probed(probe::tcp(port).await),
            None => unknown_port(port),
        },
        ["probe", "grpc", port] => match admin.engine_port(port) {
            Some(port) => probed(probe::grpc(port, &service(request)).await),
            None => unknown_port(port),
        },
        _ => text(StatusCode::NOT_FOUND, "no such page: /live /ready /metrics /throttle/status\n"),
    }
}

impl Admin {
    /// Only the engine's ports are probed: the admin port is no way to look around in the pod.
    fn engine_port(&self, port: &str) -> Option<u16> {
        port.parse().ok().filter(|port| self.ports.contains(port))
    }
}

/// Ready as soon as it answers: a sidecar waits for nobody. While draining it says so, though nobody should ask.
fn ready(admin: &Admin) -> Answer {
    if admin.shared.drain.is_draining() {
        return text(StatusCode::SERVICE_UNAVAILABLE, "draining\n");
    }
    text(StatusCode::OK, "ready\n")
}

fn metrics(admin: &Admin) -> Answer {
    const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    typed(StatusCode::OK, OPENMETRICS, admin.shared.render_metrics())
}

fn probed(result: anyhow::Result<()>) -> Answer {
    match result {
        Ok(()) => text(StatusCode::OK, "the engine answers\n"),
        Err(error) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{error:#}\n")),
    }
}

fn unknown_port(port: &str) -> Answer {
    text(StatusCode::NOT_FOUND, format!("{port:?} is no guarded port of this pod\n"))
}

/// The service that a gRPC probe asks about, as in `?service=S`; empty asks about the server.
fn service(request: &Request<Incoming>) -> String {
    let query = request.uri().query().unwrap_or_default();
    let value = query.split('&').find_map(|pair| pair.strip_prefix("service=")).unwrap_or_default();
    decode(value)
}

/// Undoes percent encoding; what is not well-formed stays as it is.
pub(crate) fn decode(text: &str) -> String {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) if first == b'%' => {
                decoded.push(byte);
                rest = &after[2..];
            }
            _ => {
                decoded.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// Compares without telling by its duration where two texts differ.
fn same(own: &str, given: &str) -> bool {
    let differences = own.bytes().zip(given.bytes()).fold(0, |all, (a, b)| all | (a ^ b));
    own.len() == given.len() && differences == 0
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    typed(status, "text/plain; charset=utf-8", body)
}

fn typed(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_encoding_is_undone_and_garbage_stays() {
        assert_eq!(decode("a%2Fb.c"), "a/b.c");
        assert_eq!(decode("100%"), "100%");
        assert_eq!(decode("%zz%4"), "%zz%4");
    }

    #[test]
    fn only_the_whole_token_is_the_token() {
        assert!(same("abcd", "abcd"));
        for other in ["abce", "abc", "abcde", ""] {
            assert!(!same("abcd", other), "{other}");
        }
    }
}
