//! One policy stream and the reports beside it.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tidegate_policy::Mode;
use tidegate_policy::report::{LimitStatus, Report, Status, TierName, TierState, TierStatus};
use tidegate_policy::stream::{PolicyEvent, REPORT_PATH, WATCH_PATH};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::TlsConnector;

use super::fleet::{Sidecar, Target};
use super::operator::SERVER_NAME;

/// Of the whole way to a connection, as a sidecar waits.
const CONNECT: Duration = Duration::from_secs(5);
/// Until the head of an answer.
const ANSWER: Duration = Duration::from_secs(30);
const REPORT_PERIOD: Duration = Duration::from_secs(10);
const REPORT_PAUSE: Duration = Duration::from_secs(1);

/// Why a stream is no more.
#[derive(Debug)]
pub(super) enum Ended {
    /// Nobody listens, as while the operator is away.
    Unreachable,
    /// It answered, or took the connection and did not answer.
    Refused(String),
    /// After it had been open.
    Broke,
}

/// The sending side of a connection of HTTP/2 over TLS.
pub(super) type Sender = SendRequest<Full<Bytes>>;

/// Shakes hands for HTTP/2 on a connection.
pub(super) async fn shake_hands(stream: TcpStream, tls: Arc<ClientConfig>) -> anyhow::Result<Sender> {
    stream.set_nodelay(true)?;
    let name = ServerName::try_from(SERVER_NAME)?;
    let stream = TlsConnector::from(tls).connect(name, stream).await?;
    let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

pub(super) async fn run(sidecar: &Sidecar, target: &Target) -> Ended {
    let Ok(Ok(stream)) = timeout(CONNECT, TcpStream::connect(target.address)).await else {
        return Ended::Unreachable;
    };
    let tls = Arc::clone(&target.tls.borrow());
    let mut sender = match timeout(CONNECT, shake_hands(stream, tls)).await {
        Ok(Ok(sender)) => sender,
        // The operator went away meanwhile.
        Ok(Err(_)) => return Ended::Unreachable,
        Err(_) => return Ended::Refused("no handshake in time".to_owned()),
    };
    let stream = match watch(sidecar, target, &mut sender).await {
        Ok(stream) => stream,
        Err(ended) => return ended,
    };
    sidecar.opened();
    tokio::select! {
        () = read(stream, sidecar) => Ended::Broke,
        () = keep_reporting(sidecar, target, sender) => Ended::Broke,
    }
}

fn uri(target: &Target, path: &str) -> String {
    format!("https://{SERVER_NAME}:{}{path}", target.address.port())
}

async fn watch(sidecar: &Sidecar, target: &Target, sender: &mut Sender) -> Result<Incoming, Ended> {
    let path = format!("{WATCH_PATH}?revision={}", sidecar.revision());
    let request = Request::get(uri(target, &path))
        .header("authorization", format!("Bearer {}", sidecar.token))
        .body(Full::default())
        .map_err(|error| Ended::Refused(error.to_string()))?;
    let response = match timeout(ANSWER, sender.send_request(request)).await {
        Ok(Ok(response)) => response,
        Ok(Err(_)) => return Err(Ended::Unreachable),
        Err(_) => return Err(Ended::Refused("no answer in time".to_owned())),
    };
    match response.status() {
        StatusCode::OK => Ok(response.into_body()),
        status => Err(Ended::Refused(status.to_string())),
    }
}

async fn read(mut stream: Incoming, sidecar: &Sidecar) {
    let mut buffer = Vec::new();
    while let Ok(Some(Ok(frame))) = timeout(ANSWER, stream.frame()).await {
        let Ok(data) = frame.into_data() else { continue };
        buffer.extend_from_slice(&data);
        while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = buffer.drain(..=end).collect();
            if let Ok(PolicyEvent::Modified { document }) = serde_json::from_slice(&line) {
                sidecar.take(&document);
            }
        }
    }
}

/// At once, on every change at most once a second, and every 10 s.
async fn keep_reporting(sidecar: &Sidecar, target: &Target, mut sender: Sender) {
    loop {
        let (sent, revision) = (Instant::now(), sidecar.revision());
        if post(sidecar, target, &mut sender, &revision).await.is_none() {
            return;
        }
        let mut next = sent + REPORT_PAUSE;
        loop {
            sleep_until(next).await;
            if sidecar.revision() != revision || Instant::now() >= sent + REPORT_PERIOD {
                break;
            }
            next += REPORT_PAUSE;
        }
    }
}

async fn post(sidecar: &Sidecar, target: &Target, sender: &mut Sender, revision: &str) -> Option<()> {
    let body = serde_json::to_vec(&report(revision)).ok()?;
    let request = Request::post(uri(target, REPORT_PATH))
        .header("authorization", format!("Bearer {}", sidecar.token))
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(body)))
        .ok()?;
    timeout(ANSWER, sender.send_request(request)).await.ok()?.ok().map(drop)
}

/// As long as that of a sidecar with two tiers and three limits, and as different each time.
fn report(revision: &str) -> Report {
    let value = UNIX_EPOCH.elapsed().map_or(0.0, |since| f64::from(since.subsec_millis()) / 8.0);
    let tier = |tier| TierStatus {
        tier,
        policy: "inference/policy-1".to_owned(),
        mode: Mode::Enforce,
        state: TierState::Normal,
        shedding: false,
        value: Some(value),
        threshold: Some(400.0),
        unit: "requests/s".to_owned(),
        pressure: 0.03,
        weight: 0.5,
        baseline: Some(11.75),
        last_trigger_reason: None,
        last_triggered_millis_ago: None,
        recovery_countdown_millis: None,
        signal_age_millis: Some(100),
        stale_reason: None,
        signals: Vec::new(),
        estimate: None,
        overdue: None,
    };
    let limit = |name: &str| LimitStatus {
        policy: "inference/policy-1".to_owned(),
        name: name.to_owned(),
        mode: Mode::Enforce,
        keys: 1000,
        refused: 3,
        size: 3000,
        remaining: None,
    };
    let status = Status {
        revision: revision.to_owned(),
        tiers: vec![tier(TierName::Qps), tier(TierName::Latency)],
        limits: ["per-user", "tokens", "everywhere"].map(limit).into(),
        ..Status::default()
    };
    Report {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        revision: revision.to_owned(),
        refused: None,
        status,
    }
}
