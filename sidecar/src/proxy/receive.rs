//! Reading from connections that hold no buffers while they wait.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;

thread_local! {
    /// Where every connection of this thread reads to. What was read is copied out at its exact size.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; 64 * 1024].into());
}

/// Appends to `received` what has arrived, up to `most` bytes and 64 KiB. The number of new bytes; 0 when the other side
/// has closed its own.
pub(super) fn poll_receive(
    stream: &mut TcpStream,
    received: &mut Bytes,
    cx: &mut Context<'_>,
    most: usize,
) -> Poll<io::Result<usize>> {
    SCRATCH.with_borrow_mut(|scratch| {
        let most = most.min(scratch.len());
        let mut buffer = ReadBuf::new(&mut scratch[..most]);
        ready!(Pin::new(stream).poll_read(cx, &mut buffer))?;
        let new = buffer.filled();
        *received = if received.is_empty() {
            Bytes::copy_from_slice(new)
        } else {
            [&received[..], new].concat().into()
        };
        Poll::Ready(Ok(new.len()))
    })
}
