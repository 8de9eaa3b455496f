//! Requests of clients, as this reader and as hyper's server read them.

use std::cell::RefCell;
use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Method, Request, Response, Uri, Version};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::server::conn::http1;
use hyper::service::service_fn;

use super::super::codec::{BodyDecoder, Decoded, Framing, parse_request};

/// Largest head.
const LARGEST: usize = 64 * 1024;

/// One request.
#[derive(Debug, PartialEq)]
struct Asked {
    method: Method,
    uri: Uri,
    version: Version,
    headers: HeaderMap,
    body: Vec<u8>,
    /// Its body was read to its end.
    is_whole: bool,
}

impl Asked {
    fn new(parts: Parts) -> Self {
        let Parts { method, uri, version, headers, .. } = parts;
        Self { method, uri, version, headers, body: Vec::new(), is_whole: false }
    }
}

/// What came in pieces, and how much of it was taken.
struct Pieces<'a> {
    pieces: std::slice::Chunks<'a, u8>,
    received: Bytes,
}

impl Pieces<'_> {
    fn more(&mut self) -> Option<()> {
        let piece = self.pieces.next()?;
        self.received = [&self.received[..], piece].concat().into();
        Some(())
    }

    /// Reads the next request, and whether another may follow it. None where no request can be read.
    fn request(&mut self) -> Option<(Asked, bool)> {
        let head = loop {
            match parse_request(&mut self.received, LARGEST).ok()? {
                Some(head) => break head,
                None => self.more()?,
            }
            assert!(self.received.len() <= LARGEST + 32, "no head is waited for without end");
        };
        let mut asked = Asked::new(head.parts);
        let mut decoder = match head.framing? {
            Framing::None => BodyDecoder::Done,
            Framing::Length(length) => BodyDecoder::length(length),
            Framing::Chunked => BodyDecoder::chunked(),
        };
        asked.is_whole = self.body(&mut decoder, &mut asked.body).is_some();
        let follows = asked.is_whole && head.keep_alive;
        Some((asked, follows))
    }

    fn body(&mut self, decoder: &mut BodyDecoder, body: &mut Vec<u8>) -> Option<()> {
        while !decoder.is_done() {
            match decoder.decode(&mut self.received).ok()? {
                Decoded::Data(data) => body.extend_from_slice(&data),
                Decoded::Trailers(_) | Decoded::End => {}
                Decoded::NeedMore => self.more()?,
            }
        }
        Some(())
    }
}

/// Reads until nothing is known of what follows. A body that is not whole is the last, and how much of it was told
/// depends on how it came.
fn ours(wire: &[u8], step: usize) -> Vec<Asked> {
    let mut pieces = Pieces { pieces: wire.chunks(step), received: Bytes::new() };
    let mut all = Vec::new();
    while let Some((asked, follows)) = pieces.request() {
        all.push(asked);
        if !follows {
            break;
        }
    }
    if let Some(last) = all.last_mut().filter(|last| !last.is_whole) {
        last.body.clear();
    }
    all
}

/// All bytes at once, and an end behind them.
struct Memory {
    bytes: Vec<u8>,
    at: usize,
}

impl Read for Memory {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let end = self.bytes.len().min(self.at + buffer.remaining());
        buffer.put_slice(&self.bytes[self.at..end]);
        self.at = end;
        Poll::Ready(Ok(()))
    }
}

impl Write for Memory {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// As hyper's server reads them.
fn of_hyper(wire: &[u8]) -> Vec<Asked> {
    let all = Rc::new(RefCell::new(Vec::new()));
    let service = service_fn(|request: Request<Incoming>| {
        let all = Rc::clone(&all);
        async move {
            let (parts, body) = request.into_parts();
            let mut asked = Asked::new(parts);
            if let Ok(collected) = body.collect().await {
                asked.body = collected.to_bytes().to_vec();
                asked.is_whole = true;
            }
            all.borrow_mut().push(asked);
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        }
    });
    let memory = Memory { bytes: wire.to_vec(), at: 0 };
    {
        let mut connection = pin!(http1::Builder::new().half_close(true).serve_connection(memory, service));
        let mut context = Context::from_waker(Waker::noop());
        // Everything is there at once, so each look brings it on; some more are for its own wake-ups.
        let looks = wire.len() * 2 + 64;
        assert!(
            (0..looks).any(|_| connection.as_mut().poll(&mut context).is_ready()),
            "hyper waits for ever"
        );
    }
    all.take()
}

/// However the bytes are cut, this reader finds the same requests; and where it finds one, hyper finds the same.
pub(super) fn check(wire: &[u8], step: usize) {
    let ours = ours(wire, step);
    assert_eq!(ours, self::ours(wire, wire.len().max(1)), "in pieces of {step}");
    let theirs = of_hyper(wire);
    for (i, asked) in ours.iter().enumerate().filter(|(_, asked)| asked.is_whole) {
        assert_eq!(Some(asked), theirs.get(i), "hyper reads request {i} otherwise");
    }
}
