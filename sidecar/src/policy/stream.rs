//! The operator's policy stream.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::TokioExecutor;
use tidegate_policy::stream::{BOOKMARK_SECONDS, PolicyEvent, WATCH_PATH};
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};

use super::lines::Lines;
use super::report::keep_reporting;
use super::{Keeper, Source};
use crate::backoff::{Backoff, random};
use crate::endpoint::Endpoint;
use crate::transport::{Driven, connect};
use crate::trust::{Trust, authorization};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(10);
/// Longest silence on a stream that lives, and longest wait for its head.
const SILENCE: Duration = Duration::from_secs(3 * BOOKMARK_SECONDS);
/// A stream that lived this long was not broken from the start.
const HEALTHY_LIFE: Duration = Duration::from_secs(BOOKMARK_SECONDS);
/// Over this the sidecars of an operator come back that all lost their streams at one instant: without it a replica that
/// takes over would shake a thousand hands within the first tenth of a second.
const RETURN: Duration = Duration::from_secs(2);

/// The operator and how to speak to it.
#[derive(Debug, Clone)]
pub struct Operator {
    /// Where it is.
    pub endpoint: Endpoint,
    /// File with the token that shows which pod this is.
    pub token: PathBuf,
    /// Whom to believe that it is the operator.
    pub trust: Trust,
}

impl Operator {
    pub(super) fn uri(&self, path_and_query: &str) -> String {
        format!("{}{path_and_query}", self.endpoint)
    }
}

/// Follows the stream for ever. Without it the last good document stays in force; one line tells when it is lost,
/// one for each new reason why it can't be had, and one when it is back.
pub async fn follow(operator: Operator, keeper: Arc<Keeper>) {
    let mut backoff = Backoff::new(FIRST_PAUSE, LAST_PAUSE);
    let mut told = String::new();
    loop {
        let start = Instant::now();
        let ended = session(&operator, &keeper, &mut told).await;
        if keeper.state().operator_connected {
            keeper.set_operator_connected(false);
        }
        let reason =
            ended.err().map_or_else(|| "it ended the stream".to_owned(), |error| format!("{error:#}"));
        if reason != told {
            warn!(operator = %operator.endpoint, reason, "no policy stream; the last good policy stays in force");
            told = reason;
        }
        sleep(pause(&mut backoff, start.elapsed(), random())).await;
    }
}

/// Until the next attempt after one of which the stream lived so long.
fn pause(backoff: &mut Backoff, lived: Duration, random: u64) -> Duration {
    if lived < HEALTHY_LIFE {
        return backoff.jittered_pause(random);
    }
    backoff.reset();
    Backoff::spread(RETURN, random)
}

/// One connection.
async fn session(operator: &Operator, keeper: &Keeper, told: &mut String) -> Result<()> {
    let (mut sender, _driven) = open(operator).await?;
    let stream = watch(operator, keeper, &mut sender).await?;
    info!(operator = %operator.endpoint, "policy stream is up");
    told.clear();
    keeper.set_operator_connected(true);
    tokio::select! {
        ended = read(stream, keeper) => ended,
        ended = keep_reporting(operator, keeper, sender) => ended,
    }
}

async fn open(operator: &Operator) -> Result<(SendRequest<Full<Bytes>>, Driven)> {
    let connection = connect(&operator.endpoint, &operator.trust, b"h2").await?;
    let handshake = http2::handshake(TokioExecutor::new(), connection);
    let (sender, connection) =
        timeout(SILENCE, handshake).await.context("no HTTP/2 handshake")?.context("no HTTP/2 handshake")?;
    Ok((sender, Driven::spawn(connection)))
}

async fn watch(
    operator: &Operator,
    keeper: &Keeper,
    sender: &mut SendRequest<Full<Bytes>>,
) -> Result<Incoming> {
    let revision = encode(&keeper.state().document.revision);
    let request = Request::builder()
        .uri(operator.uri(&format!("{WATCH_PATH}?revision={revision}")))
        .header(header::AUTHORIZATION, authorization(&operator.token)?)
        .header(header::ACCEPT_ENCODING, "identity")
        .body(Full::default())?;
    let Ok(response) = timeout(SILENCE, sender.send_request(request)).await else {
        bail!("no answer within {} s", SILENCE.as_secs());
    };
    let response = response?;
    if response.status() != StatusCode::OK {
        bail!("it answered {}", describe(response).await);
    }
    Ok(response.into_body())
}

/// Status and the first line of the body, which says why.
async fn describe(response: Response<Incoming>) -> String {
    const MOST: usize = 4096;
    let status = response.status();
    let body = timeout(FIRST_PAUSE, Limited::new(response.into_body(), MOST).collect()).await;
    let body = body.ok().and_then(Result::ok).map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let text = String::from_utf8_lossy(&body);
    match text.lines().next() {
        Some(line) if !line.is_empty() => format!("{status}: {line}"),
        _ => status.to_string(),
    }
}

/// Until the server ends the stream, or is silent for so long that it must be dead.
async fn read<B>(mut stream: B, keeper: &Keeper) -> Result<()>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::error::Error + Send + Sync + 'static,
{
    let mut lines = Lines::default();
    loop {
        let Ok(frame) = timeout(SILENCE, stream.frame()).await else {
            bail!("it was silent for {} s", SILENCE.as_secs());
        };
        let Some(frame) = frame else { return Ok(()) };
        let Ok(chunk) = frame.context("the stream broke")?.into_data() else { continue };
        for line in lines.push(&chunk)? {
            obey(&line, keeper).await;
        }
    }
}

async fn obey(line: &[u8], keeper: &Keeper) {
    match serde_json::from_slice(line) {
        Ok(PolicyEvent::Modified { document }) => {
            keeper.offer(Source::Stream, document.to_string().as_bytes()).await;
        }
        Ok(PolicyEvent::Bookmark { revision }) => keeper.confirm(&revision),
        Ok(PolicyEvent::Endpoints { withdrawn }) => keeper.set_endpoints_withdrawn(withdrawn),
        Err(error) => match kind(line) {
            Some(kind) if !KINDS.contains(&kind.as_str()) => {
                debug!(kind, "event of a newer operator passed over");
            }
            _ => {
                let error = anyhow::anyhow!("a line of the stream can't be read: {error}");
                keeper.refuse_unreadable(Source::Stream, &error);
            }
        },
    }
}

/// The events that are obeyed here. Others may come from an operator that is newer than this sidecar.
const KINDS: [&str; 3] = ["MODIFIED", "BOOKMARK", "ENDPOINTS"];

fn kind(line: &[u8]) -> Option<String> {
    let line: serde_json::Value = serde_json::from_slice(line).ok()?;
    line.get("type")?.as_str().map(str::to_owned)
}

/// As a query's value.
fn encode(text: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
    text.bytes().map(|b| if plain(&b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

#[cfg(test)]
mod tests;
