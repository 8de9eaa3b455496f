//! A client that speaks HTTP/2 without TLS from its first byte, as gRPC does.

use anyhow::Context;
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

/// One connection.
pub struct Http2 {
    sender: SendRequest<Full<Bytes>>,
    url: String,
}

impl Http2 {
    /// Connects to the host and port of `url`, such as `http://10.0.0.7:8000`.
    pub async fn connect(url: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(url.trim_start_matches("http://")).await.context(url.to_owned())?;
        let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self { sender, url: url.to_owned() })
    }

    /// POST of a body; the answer is read to its end, with its trailers.
    pub async fn post(
        &mut self,
        path: &str,
        kind: &str,
        body: impl Into<Bytes>,
    ) -> anyhow::Result<(Response<Bytes>, HeaderMap)> {
        let request = Request::post(format!("{}{path}", self.url))
            .header("content-type", kind)
            .header("te", "trailers")
            .body(Full::new(body.into()))?;
        let (head, body) = self.sender.send_request(request).await?.into_parts();
        let body = body.collect().await?;
        let trailers = body.trailers().cloned().unwrap_or_default();
        Ok((Response::from_parts(head, body.to_bytes()), trailers))
    }
}
