//! hyper's server over bytes that come one at a time, so that it is known at which of them it has read a head.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::server::conn::http1;
use hyper::service::service_fn;

use super::{Framed, RequestWatch};

/// What was sent, and what the second reader has made of what was read of it.
#[derive(Default)]
struct Wire {
    bytes: Vec<u8>,
    at: usize,
    watch: RequestWatch,
    /// Where heads ended that hyper has not handed on.
    heads: VecDeque<(usize, Framed)>,
    /// The proxy would have refused a request: what follows is not read any more.
    refused: bool,
}

struct Trickle(Rc<RefCell<Wire>>);

impl Read for Trickle {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let mut wire = self.0.borrow_mut();
        if let Some(byte) = wire.bytes.get(wire.at).copied() {
            buffer.put_slice(&[byte]);
            wire.at += 1;
            wire.watch.feed(&[byte]);
            if let Some(framed) = wire.watch.take() {
                let at = wire.at;
                wire.heads.push_back((at, framed));
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl Write for Trickle {
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

/// hyper has read a head, and nothing behind it.
fn judge(wire: &mut Wire) {
    let at = wire.at;
    match wire.heads.pop_front() {
        Some((end, Framed::Clearly)) => assert_eq!(end, at, "both have read the same head"),
        // Without a verdict, or with this one, it is refused.
        None | Some((_, Framed::Ambiguously)) => wire.refused = true,
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Empty<Bytes>>, Infallible> {
    // One that breaks off is the proxy's to notice.
    let _ = request.into_body().collect().await;
    Ok(Response::new(Empty::new()))
}

/// Both read the same bytes.
pub(super) fn beside_hyper(bytes: &[u8]) {
    let wire = Rc::new(RefCell::new(Wire { bytes: bytes.to_vec(), ..Wire::default() }));
    let service = service_fn({
        let wire = Rc::clone(&wire);
        move |request| {
            judge(&mut wire.borrow_mut());
            answer(request)
        }
    });
    let mut connection = pin!(http1::Builder::new().serve_connection(Trickle(Rc::clone(&wire)), service));
    let mut context = Context::from_waker(Waker::noop());
    // Everything is there at once, so each look brings it on; some more are for its own wake-ups.
    for _ in 0..bytes.len() * 2 + 64 {
        if connection.as_mut().poll(&mut context).is_ready() || wire.borrow().refused {
            return;
        }
    }
    panic!("{} of {} bytes were read", wire.borrow().at, bytes.len());
}
