//! Requests to servers outside of this pod.

use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri, header};
use http_body::Body;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tidegate_policy::HttpUrl;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::endpoint::Endpoint;
use crate::transport;
use crate::trust;

/// Longest wait for a connection, its name and its handshake included.
const CONNECT: Duration = Duration::from_secs(2);

/// A request for another server. Its connection is for it alone.
#[derive(Debug)]
pub struct Outgoing<B> {
    /// How.
    pub method: Method,
    /// Where; a path of `url` stands in place of this one.
    pub path: PathAndQuery,
    /// All fields but `host`.
    pub headers: HeaderMap,
    /// With what.
    pub body: B,
}

/// Sends a request to the server at `url` and waits for the head of its answer.
pub async fn send<B>(url: &HttpUrl, outgoing: Outgoing<B>) -> Result<Response<Incoming>>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let uri: Uri = url.as_str().parse().context("no URL")?;
    let authority = uri.authority().context("a URL without a host")?;
    let own = uri.path_and_query().filter(|path| path.as_str() != "/").cloned();
    let mut request = Request::new(outgoing.body);
    *request.method_mut() = outgoing.method;
    *request.uri_mut() = Uri::from(own.unwrap_or(outgoing.path));
    *request.headers_mut() = outgoing.headers;
    request.headers_mut().insert(header::HOST, HeaderValue::from_str(authority.as_str())?);
    request.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    let mut sender = match timeout(CONNECT, connect(&uri)).await {
        Ok(sender) => sender?,
        Err(_) => anyhow::bail!("no connection within {} s", CONNECT.as_secs()),
    };
    Ok(sender.send_request(request).await?)
}

async fn connect<B>(uri: &Uri) -> Result<http1::SendRequest<B>>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let host = uri.host().context("a URL without a host")?;
    if uri.scheme_str() == Some("https") {
        let endpoint: Endpoint = format!("https://{host}:{}", uri.port_u16().unwrap_or(443))
            .parse()
            .map_err(anyhow::Error::msg)?;
        let stream = transport::connect_as(&endpoint, trust::public_client()?).await?;
        let (sender, connection) = http1::handshake(stream).await?;
        tokio::spawn(connection);
        return Ok(sender);
    }
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((host, uri.port_u16().unwrap_or(80))).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // It ends with the answer, and whoever reads that is told how.
    tokio::spawn(connection);
    Ok(sender)
}
