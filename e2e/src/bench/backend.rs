//! The small server behind every proxy under test, on a thread of its own.

use std::{convert::Infallible, net::SocketAddr};

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use http::{Response, header};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// Answers with two bytes.
pub const SMALL: &str = "/v1/small";
/// Answers with two bytes when it has read the whole body of the request.
pub const UPLOAD: &str = "/v1/upload";
/// Answers with 16 KiB.
pub const LARGE: &str = "/v1/large";
/// Answers with [`EVENTS`] server-sent events, each written on its own.
pub const STREAM: &str = "/v1/stream";

const EVENTS: usize = 32;
const EVENT: &str = "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\
    \"model\":\"llama\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"tide\"},\"finish_reason\":null}]}\n\n";
const KIBIBYTES: [u8; 16 * 1024] = [b'x'; 16 * 1024];

/// Starts the server; it lives as long as the process.
pub fn start() -> anyhow::Result<SocketAddr> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("backend".to_owned()).spawn(move || {
        if let Err(error) = runtime.block_on(serve(listener)) {
            tracing::error!("backend: {error}");
        }
    })?;
    Ok(address)
}

async fn serve(listener: std::net::TcpListener) -> std::io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let service = service_fn(|request: http::Request<hyper::body::Incoming>| async move {
            let (head, body) = request.into_parts();
            if head.uri.path() == UPLOAD {
                // One that breaks off is answered to nobody.
                drop(body.collect().await);
            }
            Ok::<_, Infallible>(answer(head.uri.path()))
        });
        tokio::spawn(async move {
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            if let Err(error) = connection.await {
                tracing::debug!("backend: {error}");
            }
        });
    }
}

fn answer(path: &str) -> Response<BoxBody<Bytes, Infallible>> {
    let (kind, body) = match path {
        STREAM => ("text/event-stream", events()),
        LARGE => ("application/octet-stream", Full::from(&KIBIBYTES[..]).boxed()),
        _ => ("text/plain", Full::from("ok").boxed()),
    };
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}

/// Yields between the events, so that each is flushed.
fn events() -> BoxBody<Bytes, Infallible> {
    let events = stream::iter(0..EVENTS).then(|_| async {
        tokio::task::yield_now().await;
        Ok(Frame::data(Bytes::from_static(EVENT.as_bytes())))
    });
    BodyExt::boxed(StreamBody::new(events))
}
