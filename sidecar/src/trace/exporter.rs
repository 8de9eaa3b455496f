//! Sends spans to a collector, over HTTP with binary protobuf.

use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::Full;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use prost::Message as _;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::{info, warn};

use super::span::Record;
use super::target::Target;
use super::wire::{Export, KeyValue, Resource, ResourceSpans, Scope, ScopeSpans};
use crate::backoff::{Backoff, random};
use crate::endpoint::Endpoint;
use crate::metrics::{SpanOutcome, Traces};
use crate::transport::{self, Driven};
use crate::trust;

/// Spans in one request.
const MOST_IN_BATCH: usize = 512;
/// How long a span waits for others.
const BATCH: Duration = Duration::from_secs(1);
/// Longest time for one request.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often a batch is sent before it is given up.
const ATTEMPTS: usize = 4;

/// Exports until it is told to end; then what is there, and no more.
pub async fn export(
    target: Target,
    mut spans: mpsc::Receiver<Record>,
    counts: Traces,
    mut end: oneshot::Receiver<()>,
) {
    let mut collector = Collector { target, connection: None };
    let mut away = false;
    loop {
        let mut batch = Vec::new();
        let received = tokio::select! {
            biased;
            _ = &mut end, if !spans.is_closed() => {
                spans.close();
                continue;
            }
            received = spans.recv_many(&mut batch, MOST_IN_BATCH) => received,
        };
        if received == 0 {
            return;
        }
        let deadline = Instant::now() + BATCH;
        while batch.len() < MOST_IN_BATCH {
            let room = MOST_IN_BATCH - batch.len();
            match timeout_at(deadline, spans.recv_many(&mut batch, room)).await {
                Ok(more) if more > 0 => {}
                _ => break,
            }
        }
        let count = batch.len() as u64;
        match collector.send(batch).await {
            Ok(()) => {
                counts.count(SpanOutcome::Exported, count);
                if std::mem::take(&mut away) {
                    info!("spans are exported again");
                }
            }
            Err(error) => {
                counts.count(SpanOutcome::Failed, count);
                if !std::mem::replace(&mut away, true) {
                    warn!(cause = format!("{error:#}"), "spans are not exported");
                }
            }
        }
    }
}

struct Collector {
    target: Target,
    connection: Option<(SendRequest<Full<Bytes>>, Driven)>,
}

/// Whether it is worth another attempt.
enum Unsent {
    Later(anyhow::Error),
    Never(anyhow::Error),
}

impl Collector {
    async fn send(&mut self, batch: Vec<Record>) -> Result<()> {
        let body = Bytes::from(self.encode(batch));
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(5));
        let mut attempts = 1;
        loop {
            let sent = timeout(PATIENCE, self.post(body.clone())).await;
            let sent = sent.unwrap_or_else(|_| Err(Unsent::Later(anyhow::anyhow!("no answer in time"))));
            let Err(unsent) = sent else { return Ok(()) };
            self.connection = None;
            match unsent {
                Unsent::Later(_) if attempts < ATTEMPTS => attempts += 1,
                Unsent::Later(error) | Unsent::Never(error) => return Err(error),
            }
            sleep(backoff.jittered_pause(random())).await;
        }
    }

    fn encode(&self, batch: Vec<Record>) -> Vec<u8> {
        let attributes = self.target.resource.iter().map(|(key, value)| KeyValue::new(key, value.as_str()));
        let scope = Scope { name: "tidegate".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() };
        let spans = batch.into_iter().map(Record::into_wire).collect();
        let resource = Resource { attributes: attributes.collect() };
        let scope_spans = vec![ScopeSpans { scope: Some(scope), spans }];
        Export { resource_spans: vec![ResourceSpans { resource: Some(resource), scope_spans }] }
            .encode_to_vec()
    }

    async fn post(&mut self, body: Bytes) -> Result<(), Unsent> {
        let request = self.request(body).map_err(Unsent::Never)?;
        let sender = self.sender().await.map_err(Unsent::Later)?;
        let response = sender.send_request(request).await.map_err(|error| Unsent::Later(error.into()))?;
        // What it says beside is of no use here, and nothing reads it: the connection is done.
        let status = response.status();
        self.connection = None;
        let error = anyhow::anyhow!("the collector answered {status}");
        match status {
            status if status.is_success() => Ok(()),
            // As OTLP lists them.
            StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => Err(Unsent::Later(error)),
            _ => Err(Unsent::Never(error)),
        }
    }

    fn request(&self, body: Bytes) -> Result<Request<Full<Bytes>>> {
        let uri = &self.target.uri;
        let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        let host = uri.authority().map_or("", http::uri::Authority::as_str);
        let mut request = Request::post(path).body(Full::new(body))?;
        let headers = request.headers_mut();
        headers.insert(header::HOST, HeaderValue::try_from(host)?);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        headers.extend(self.target.headers.iter().cloned());
        Ok(request)
    }

    async fn sender(&mut self) -> Result<&mut SendRequest<Full<Bytes>>> {
        let uri = &self.target.uri;
        let host = uri.host().context("no host")?;
        let connection = if uri.scheme_str() == Some("https") {
            let port = uri.port_u16().unwrap_or(443);
            let endpoint: Endpoint = format!("https://{host}:{port}").parse().map_err(anyhow::Error::msg)?;
            let connection = transport::connect_as(&endpoint, trust::public_client()?).await?;
            let (sender, connection) = http1::handshake(connection).await?;
            (sender, Driven::spawn(connection))
        } else {
            let name = host.trim_start_matches('[').trim_end_matches(']');
            let stream = TcpStream::connect((name, uri.port_u16().unwrap_or(80))).await;
            let stream = stream.with_context(|| format!("can't connect to {uri}"))?;
            let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
            (sender, Driven::spawn(connection))
        };
        Ok(&mut self.connection.insert(connection).0)
    }
}
