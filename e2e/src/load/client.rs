//! One request over a pool of kept connections.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use http::{HeaderMap, Request, Response, Uri, header};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    body::Incoming,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Longest tail of a body that is looked at to see how it ended.
const TAIL: usize = 256;

/// The head of a response and what was seen of its body.
#[derive(Debug)]
pub struct Answer {
    /// Status.
    pub status: u16,
    /// Headers.
    pub headers: HeaderMap,
    /// When the first byte of the body came.
    pub first_byte: Option<Instant>,
    /// When the body was complete.
    pub end: Instant,
    /// Bytes of the body.
    pub length: usize,
    /// The last bytes of the body.
    pub tail: Vec<u8>,
}

impl Answer {
    /// Whether it is a stream of server-sent events.
    pub fn is_event_stream(&self) -> bool {
        self.headers
            .get(header::CONTENT_TYPE)
            .is_some_and(|value| value.as_bytes().starts_with(b"text/event-stream"))
    }

    /// A header as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// How long the server asks to wait: `retry-after-ms`, else `Retry-After` in seconds.
    pub fn retry_after(&self) -> Option<Duration> {
        let number = |name| self.header(name)?.trim().parse::<u64>().ok();
        number("retry-after-ms")
            .map(Duration::from_millis)
            .or_else(|| number("retry-after").map(Duration::from_secs))
    }
}

/// A client of one server.
#[derive(Debug)]
pub struct Client {
    authority: String,
    idle: Mutex<Vec<SendRequest<Full<Bytes>>>>,
}

impl Client {
    /// A client of the server that `url` names; only `http`.
    pub fn new(url: &Uri) -> anyhow::Result<Self> {
        if url.scheme_str() != Some("http") {
            bail!("{url}: write a URL that begins with http://");
        }
        let host = url.host().with_context(|| format!("{url}: write a host"))?;
        let authority = format!("{host}:{}", url.port_u16().unwrap_or(80));
        Ok(Self { authority, idle: Mutex::default() })
    }

    /// Sends one request and reads the whole answer. A kept connection that the server has closed meanwhile is
    /// replaced, as long as nothing of the request was written.
    pub async fn send(&self, request: Request<Full<Bytes>>) -> anyhow::Result<Answer> {
        let mut request = request;
        while let Some(mut connection) = self.take() {
            match connection.try_send_request(request).await {
                Ok(response) => return self.read(response, connection).await,
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(error.into_error().into()),
                },
            }
        }
        let mut connection = self.connect().await?;
        let response = connection.send_request(request).await?;
        self.read(response, connection).await
    }

    /// Connections that are kept for the next request.
    pub fn kept(&self) -> usize {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn take(&self) -> Option<SendRequest<Full<Bytes>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    async fn connect(&self) -> anyhow::Result<SendRequest<Full<Bytes>>> {
        let stream = TcpStream::connect(&self.authority)
            .await
            .with_context(|| format!("cannot connect to {}", self.authority))?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // The request that is affected sees the error, too.
        tokio::spawn(async move { connection.await.unwrap_or_default() });
        Ok(sender)
    }

    async fn read(
        &self,
        response: Response<Incoming>,
        mut connection: SendRequest<Full<Bytes>>,
    ) -> anyhow::Result<Answer> {
        let (head, mut body) = response.into_parts();
        let mut first_byte = None;
        let mut length = 0;
        let mut tail = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame =
                frame.map_err(|error| anyhow!("the answer broke off after {length} bytes: {error}"))?;
            let Some(data) = frame.data_ref().filter(|data| !data.is_empty()) else { continue };
            first_byte.get_or_insert_with(Instant::now);
            length += data.len();
            tail.extend_from_slice(&data[data.len().saturating_sub(TAIL)..]);
            let surplus = tail.len().saturating_sub(TAIL);
            tail.drain(..surplus);
        }
        let end = Instant::now();
        if connection.ready().await.is_ok() {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        }
        let status = head.status.as_u16();
        Ok(Answer { status, headers: head.headers, first_byte, end, length, tail })
    }
}
