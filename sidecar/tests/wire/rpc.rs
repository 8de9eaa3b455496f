//! Clients and engines that speak HTTP/2, on hyper.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::http2::SendRequest;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

/// A body of which the test sends the frames.
pub(crate) struct Frames(UnboundedReceiver<Frame<Bytes>>);

pub(crate) type Sender = UnboundedSender<Frame<Bytes>>;

pub(crate) fn frames() -> (Sender, Frames) {
    let (sender, frames) = mpsc::unbounded_channel();
    (sender, Frames(frames))
}

/// A body of these frames.
pub(crate) fn whole(all: impl IntoIterator<Item = Frame<Bytes>>) -> Frames {
    let (sender, frames) = frames();
    all.into_iter().for_each(|frame| sender.send(frame).unwrap());
    frames
}

pub(crate) fn data(data: impl Into<Bytes>) -> Frame<Bytes> {
    Frame::data(data.into())
}

pub(crate) fn trailers(fields: &[(&'static str, &'static str)]) -> Frame<Bytes> {
    Frame::trailers(
        fields.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect(),
    )
}

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|frame| frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_closed() && self.0.is_empty()
    }
}

pub(crate) async fn client(address: SocketAddr) -> SendRequest<Frames> {
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let (sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(65_535)
        .initial_connection_window_size(65_535)
        .handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    sender
}

/// A call of gRPC.
pub(crate) fn call(path: &str, body: Frames) -> Request<Frames> {
    Request::post(format!("http://engine{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(body)
        .unwrap()
}

/// Status, trailers and data of a response that arrives whole.
pub(crate) async fn collected(response: Response<Incoming>) -> (http::HeaderMap, Bytes) {
    let collected = response.into_body().collect().await.unwrap();
    (collected.trailers().cloned().unwrap_or_default(), collected.to_bytes())
}

/// An engine of HTTP/2 that answers with what `answer` makes of a request.
pub(crate) fn engine<A, F>(answer: A) -> SocketAddr
where
    A: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Response<Frames>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let answer = answer.clone();
                let service = service_fn(move |request| {
                    let answer = answer(request);
                    async move { Ok::<_, Infallible>(answer.await) }
                });
                let server = http2::Builder::new(TokioExecutor::new());
                tokio::spawn(server.serve_connection(TokioIo::new(stream), service));
            }
        });
    });
    address
}
