//! The part of `KServe`'s gRPC protocol (v2) that Triton answers without a model: whether the server lives.

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderValue, Response, header};
use http_body::Frame;
use http_body_util::StreamBody;

/// The method's path.
pub const SERVER_LIVE: &str = "/inference.GRPCInferenceService/ServerLive";

/// A message of gRPC, not compressed: `ServerLiveResponse { live: true }`.
pub const LIVE: [u8; 7] = [0, 0, 0, 0, 2, 1 << 3, 1];

/// Answers a call with its message, and with its status in the trailers.
pub async fn server_live() -> Response<Body> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let frames = [Frame::data(Bytes::from_static(&LIVE)), Frame::trailers(trailers)];
    let frames = frames.map(Ok::<_, std::convert::Infallible>);
    let mut response = Response::new(Body::new(StreamBody::new(futures::stream::iter(frames))));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}
