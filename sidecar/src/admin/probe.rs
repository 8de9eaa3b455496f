//! The kubelet's TCP and gRPC probes, asked of the engine on the kubelet's behalf: on a guarded port the sidecar
//! would answer for it, and a dead engine would look alive.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::time::timeout;

use crate::loopback::connect;
use crate::transport::Driven;

/// The kubelet gives up earlier, by the probe's own timeout, and the question then ends with its connection; this
/// is for other callers.
const PATIENCE: Duration = Duration::from_mins(1);
const LARGEST_ANSWER: usize = 4096;
/// `grpc.health.v1.HealthCheckResponse.ServingStatus`.
const SERVING: u64 = 1;

/// Whether the engine accepts connections.
pub(super) async fn tcp(port: u16) -> Result<()> {
    bounded(async { connect(port).await.map(drop) }).await
}

/// Whether the engine's gRPC health service says SERVING for `service`.
pub(super) async fn grpc(port: u16, service: &str) -> Result<()> {
    bounded(ask_health(port, service)).await
}

async fn bounded(question: impl Future<Output = Result<()>>) -> Result<()> {
    timeout(PATIENCE, question).await.context("no answer within a minute")?
}

async fn ask_health(port: u16, service: &str) -> Result<()> {
    let stream = TokioIo::new(connect(port).await?);
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), stream).await?;
    let _driven = Driven::spawn(connection);
    let request = Request::post(format!("http://localhost:{port}/grpc.health.v1.Health/Check"))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .body(Full::new(health_request(service)))?;
    let response = sender.send_request(request).await?;
    if response.status() != StatusCode::OK {
        bail!("the health service answered {}", response.status());
    }
    let head = response.headers().get("grpc-status").cloned();
    let body = Limited::new(response.into_body(), LARGEST_ANSWER).collect().await;
    let body = body.map_err(|error| anyhow::anyhow!(error))?;
    let status = head.or_else(|| body.trailers()?.get("grpc-status").cloned());
    judge(status.as_ref(), &body.to_bytes())
}

fn judge(status: Option<&HeaderValue>, body: &[u8]) -> Result<()> {
    match status.map(HeaderValue::as_bytes) {
        Some(b"0") => {}
        Some(code) => bail!("the health service answered gRPC status {}", String::from_utf8_lossy(code)),
        None => bail!("the health service gave no gRPC status"),
    }
    match serving_status(body) {
        Some(SERVING) => Ok(()),
        Some(other) => bail!("the health service says {other}, which is not SERVING"),
        None => bail!("the health service's answer can't be read"),
    }
}

/// A message of gRPC: not compressed, its length, a `HealthCheckRequest` with field 1.
fn health_request(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(1 << 3 | 2);
        put_varint(&mut message, service.len() as u64);
        message.put_slice(service.as_bytes());
    }
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(message.len() as u32);
    frame.put(message);
    frame.freeze()
}

/// Field 1 of a `HealthCheckResponse`, 0 when it is left out.
fn serving_status(frame: &[u8]) -> Option<u64> {
    let (head, message) = frame.split_first_chunk::<5>()?;
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
    if head[0] != 0 || message.len() != length {
        return None;
    }
    let mut rest = message;
    let mut status = 0;
    while !rest.is_empty() {
        let tag = take_varint(&mut rest)?;
        match tag & 7 {
            0 => {
                let value = take_varint(&mut rest)?;
                status = if tag >> 3 == 1 { value } else { status };
            }
            2 => {
                let length = usize::try_from(take_varint(&mut rest)?).ok()?;
                rest = rest.get(length..)?;
            }
            _ => return None,
        }
    }
    Some(status)
}

fn put_varint(bytes: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        bytes.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.put_u8(value as u8);
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for i in 0..10 {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << (7 * i);
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_names_its_service() {
        assert_eq!(health_request("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(health_request("llm")[..], [0, 0, 0, 0, 5, 0x0a, 3, b'l', b'l', b'm']);
        assert_eq!(health_request(&"x".repeat(300)).len(), 5 + 3 + 300);
    }

    #[test]
    fn only_serving_is_healthy() {
        let ok = HeaderValue::from_static("0");
        assert!(judge(Some(&ok), &[0, 0, 0, 0, 2, 8, 1]).is_ok());
        for body in [
            &[0, 0, 0, 0, 2, 8, 2][..],
            &[0, 0, 0, 0, 0],
            &[],
            &[0, 0, 0, 0, 9, 8, 1],
            &[1, 0, 0, 0, 2, 8, 1],
        ] {
            assert!(judge(Some(&ok), body).is_err(), "{body:?}");
        }
        assert!(judge(Some(&HeaderValue::from_static("12")), &[0, 0, 0, 0, 2, 8, 1]).is_err());
        assert!(judge(None, &[0, 0, 0, 0, 2, 8, 1]).is_err());
    }

    #[test]
    fn unknown_fields_are_passed_over() {
        assert_eq!(serving_status(&[0, 0, 0, 0, 7, 0x12, 3, 1, 2, 3, 8, 1]), Some(1));
        assert_eq!(serving_status(&[0, 0, 0, 0, 1, 0x80]), None);
    }
}
