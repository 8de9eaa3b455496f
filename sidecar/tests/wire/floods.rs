//! Clients that cost much and send little, or send much and take nothing. Beside them a good client is served on a
//! connection that it keeps, and what they make the sidecar hold is bounded.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::memory::resident;
use crate::raw_http2::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, GOAWAY, HEADERS, PING, RST_STREAM, Raw,
    SETTINGS, frame, head,
};
use crate::sidecar::{Sidecar, eventually};
use crate::start;
use crate::support::{Engine, Peer, ok};

/// What a flood may make the sidecar hold: far below what it sends, and what a pod can spare.
const MOST: u64 = 32 << 20;

/// The setting of a stream's window.
const INITIAL_WINDOW_SIZE: u16 = 4;

/// Asks again and again on one connection until it is told to stop.
struct Good {
    stop: Arc<AtomicBool>,
    asks: JoinHandle<()>,
}

impl Good {
    /// A client whose first request is answered already: a flood that starts now finds it connected.
    fn beside(address: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let mut peer = Peer::new(TcpStream::connect(address).unwrap());
        ask(&mut peer);
        let asks = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(5));
                ask(&mut peer);
            }
        });
        Self { stop, asks }
    }

    /// Every one of its requests was answered, the last of them after the flood, on its first connection.
    fn was_served(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.asks.join().unwrap();
    }
}

fn ask(peer: &mut Peer) {
    peer.send("GET /good HTTP/1.1\r\nHost: a\r\n\r\n");
    let answer = peer.response();
    assert_eq!((answer.status, answer.text()), (200, "good"));
}

/// Answers `/good` at once, and leaves everything else to `speak`.
fn engine(speak: impl Fn(Peer) + Send + Sync + 'static) -> Engine {
    Engine::new(move |_, mut peer| {
        let head = peer.read_to("\r\n\r\n");
        if !head.starts_with("GET /good ") {
            return speak(peer);
        }
        peer.send(&ok("good"));
        while peer.request().is_some() {
            peer.send(&ok("good"));
        }
    })
}

/// Sends as much as is taken of it, until the sidecar leaves.
fn endless_engine() -> Engine {
    engine(|mut peer| {
        let piece = vec![b'x'; 1 << 20];
        peer.send("HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\n");
        while peer.stream.write_all(&piece).is_ok() {}
    })
}

/// Most that was resident until `is_over`.
fn most_resident(sidecar: &Sidecar, what: &str, mut is_over: impl FnMut() -> bool) -> u64 {
    let mut most = 0;
    eventually(what, || {
        most = most.max(resident(sidecar));
        is_over().then_some(())
    });
    most
}

fn refused(sidecar: &Sidecar, reason: &str) -> u64 {
    sidecar.metric(&format!("tidegate_protocol_refused_total{{reason=\"{reason}\"}}")).unwrap() as u64
}

#[test]
fn a_head_that_trickles_has_its_time_as_a_whole() {
    const SLOW: usize = 50;
    let engine = engine(|mut peer| drop(peer.rest()));
    let sidecar = start(engine.address, &[]);
    let good = Good::beside(sidecar.data);
    let mut slow: Vec<TcpStream> = (0..SLOW)
        .map(|_| {
            let mut stream = TcpStream::connect(sidecar.data).unwrap();
            stream.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nX-Slow: ").unwrap();
            stream
        })
        .collect();
    let most = most_resident(&sidecar, "all are given up", || {
        for stream in &mut slow {
            // It may have been given up already.
            let _ = stream.write_all(b"x");
        }
        thread::sleep(Duration::from_millis(100));
        refused(&sidecar, "head_timeout") == SLOW as u64
    });
    assert!(most < MOST, "{most} bytes are resident");
    good.was_served();
}

#[test]
fn a_body_that_trickles_is_passed_on_as_it_comes_and_holds_up_nobody() {
    const SLOW: usize = 50;
    let engine = engine(|mut peer| drop(peer.read_exactly(20)));
    let sidecar = start(engine.address, &[]);
    let good = Good::beside(sidecar.data);
    let mut slow: Vec<TcpStream> = (0..SLOW).map(|_| TcpStream::connect(sidecar.data).unwrap()).collect();
    for (number, stream) in slow.iter_mut().enumerate() {
        let framing = if number % 2 == 0 { "Content-Length: 1000" } else { "Transfer-Encoding: chunked" };
        stream.write_all(format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n").as_bytes()).unwrap();
    }
    eventually("all are in flight", || {
        (sidecar.metric("tidegate_in_flight") >= Some(SLOW as f64)).then_some(())
    });
    let most = most_resident(&sidecar, "the engine has read enough of each and left", || {
        for (number, stream) in slow.iter_mut().enumerate() {
            let _ = stream.write_all(if number % 2 == 0 { b"x" } else { b"1\r\nx\r\n" });
        }
        thread::sleep(Duration::from_millis(20));
        sidecar.metric("tidegate_in_flight") <= Some(1.0)
    });
    assert!(most < MOST, "{most} bytes are resident");
    good.was_served();
}

#[test]
fn who_reads_slowly_holds_back_its_engine_and_nobody_else() {
    const SLOW: usize = 40;
    let engine = endless_engine();
    let sidecar = start(engine.address, &[]);
    let good = Good::beside(sidecar.data);
    let mut slow: Vec<Peer> =
        (0..SLOW).map(|_| Peer::new(TcpStream::connect(sidecar.data).unwrap())).collect();
    for peer in &mut slow {
        peer.send("GET /large HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    let mut rounds = 0;
    let most = most_resident(&sidecar, "each has read some", || {
        for peer in &mut slow {
            peer.read_exactly(1);
        }
        thread::sleep(Duration::from_millis(20));
        rounds += 1;
        rounds == 50
    });
    assert!(most < MOST, "{most} bytes are resident");
    assert_eq!(sidecar.metric("tidegate_connections"), Some(SLOW as f64 + 1.0));
    good.was_served();
    drop(slow);
    eventually("all are let go", || (sidecar.metric("tidegate_in_flight") == Some(0.0)).then_some(()));
}

/// Sends `flood` until the sidecar takes no more of it, or has taken far more than it may keep, without reading.
fn pour(address: SocketAddr, settings: &[(u16, u32)], first: &[u8], flood: &[u8]) -> Raw {
    let mut raw = Raw::connect(address, settings);
    raw.send(first);
    raw.0.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let mut poured = 0;
    while poured < 3 * MOST && raw.0.write_all(flood).is_ok() {
        poured += flood.len() as u64;
    }
    raw
}

#[test]
fn who_asks_for_acknowledgements_without_reading_them_is_not_listened_to() {
    let engine = engine(|mut peer| drop(peer.rest()));
    let sidecar = start(engine.address, &[]);
    let good = Good::beside(sidecar.data);
    let pings = frame(PING, 0, 0, &[0; 8]).repeat(1000);
    let settings = frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]).repeat(1000);
    for flood in [pings, settings] {
        let raw = pour(sidecar.data, &[], &[], &flood);
        assert!(resident(&sidecar) < MOST, "{} bytes are resident", resident(&sidecar));
        drop(raw);
    }
    good.was_served();
}

/// CVE-2019-9518 and its kin: frames that carry next to nothing, and cost more than they carry.
#[test]
fn tiny_pieces_of_uploads_cost_no_more_than_they_may() {
    let engine = engine(|peer| {
        // It reads nothing, so what comes has to wait.
        thread::sleep(Duration::from_secs(8));
        drop(peer);
    });
    let sidecar = start(engine.address, &[]);
    let good = Good::beside(sidecar.data);
    let request = |stream| frame(HEADERS, END_HEADERS, stream, &head(&[]));
    for tiny in [&b""[..], b"x"] {
        let pieces: Vec<u8> = (0..8).flat_map(|number| frame(DATA, 0, 2 * number + 1, tiny)).collect();
        let first: Vec<u8> = (0..8).flat_map(|number| request(2 * number + 1)).collect();
        let raw = pour(sidecar.data, &[], &first, &pieces.repeat(500));
        assert!(resident(&sidecar) < MOST, "{} bytes are resident", resident(&sidecar));
        drop(raw);
    }
    good.was_served();
}

#[test]
fn streams_without_a_window_take_nothing_from_the_engine_and_nothing_from_others() {
    const STREAMS: u32 = 100;
    let engine = endless_engine();
    let sidecar = start(engine.address, &[]);
    let good = Good::beside(sidecar.data);
    let stalled: Vec<Raw> = (0..3)
        .map(|_| {
            let mut raw = Raw::connect(sidecar.data, &[(INITIAL_WINDOW_SIZE, 0)]);
            for number in 0..STREAMS {
                assert!(raw.get(2 * number + 1));
            }
            raw
        })
        .collect();
    let most = most_resident(&sidecar, "all are in flight", || {
        sidecar.metric("tidegate_in_flight") >= Some(f64::from(3 * STREAMS))
    });
    thread::sleep(Duration::from_millis(500));
    let most = most.max(resident(&sidecar));
    // Each keeps what came with the head of its answer.
    let kept = u64::from(3 * STREAMS) * (64 << 10);
    assert!(most < MOST + kept, "{most} bytes are resident");
    good.was_served();
    drop(stalled);
    eventually("all are let go", || (sidecar.metric("tidegate_in_flight") == Some(0.0)).then_some(()));
}

/// Patience is short as soon as they fill the memory.
#[test]
fn streams_whose_client_opens_no_window_are_given_up() {
    let engine = engine(|mut peer| {
        peer.send("HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\n");
        let _ = peer.stream.write_all(&vec![b'x'; 1 << 20]);
        drop(peer.rest());
    });
    let sidecar = start(engine.address, &["--max-memory-bytes", "16777216"]);
    let mut raw = Raw::connect(sidecar.data, &[(INITIAL_WINDOW_SIZE, 0)]);
    for number in 0..100 {
        assert!(raw.get(2 * number + 1));
    }
    raw.until(|frame| frame.kind == RST_STREAM).expect("a stream is reset");
    drop(raw);
    eventually("all are let go", || (sidecar.metric("tidegate_in_flight") == Some(0.0)).then_some(()));
}

/// A field that is sent once and named by one byte from then on.
#[test]
fn a_head_that_unpacks_to_far_more_than_it_is_ends_its_stream_or_connection() {
    let engine = engine(|mut peer| drop(peer.rest()));
    let sidecar = start(engine.address, &[]);
    let good = Good::beside(sidecar.data);
    let mut raw = Raw::connect(sidecar.data, &[]);
    // Kept in the table: a name of one byte and a value of 3900.
    let mut block = head(&[]);
    block.extend([0x40, 1, b'x', 0x7f]);
    block.extend([0xbd, 0x1d]);
    block.extend([b'v'; 3900]);
    assert!(raw.send(&frame(HEADERS, 0, 1, &block)));
    // The newest of the table is the first behind the 61 that are always there.
    let bomb = [0xbe_u8; 16_000];
    for _ in 0..4 {
        raw.send(&frame(CONTINUATION, 0, 1, &bomb));
    }
    raw.send(&frame(CONTINUATION, END_HEADERS, 1, &bomb));
    let ended = raw.until(|frame| matches!(frame.kind, HEADERS | RST_STREAM | GOAWAY));
    if let Some(frame) = ended.filter(|frame| frame.kind == GOAWAY) {
        assert!(frame.code() != 0, "{frame:?}");
    }
    assert!(resident(&sidecar) < MOST, "{} bytes are resident", resident(&sidecar));
    good.was_served();
}

#[test]
fn connections_that_come_and_go_leave_nothing_behind_and_those_that_are_kept_are_served() {
    let engine = engine(|mut peer| drop(peer.rest()));
    let sidecar = start(engine.address, &["--max-connections", "200"]);
    let good = Good::beside(sidecar.data);
    let come_and_go = || {
        for number in 0..2000 {
            let stream = TcpStream::connect(sidecar.data).unwrap();
            if number % 2 == 0 {
                // It may have been refused already.
                drop((&stream).write_all(b"GET / HT"));
            }
        }
    };
    come_and_go();
    // More than there are places, until the sidecar has come to them.
    let held: Vec<_> = (0..300).map(|_| TcpStream::connect(sidecar.data).unwrap()).collect();
    eventually("those over the limit are refused", || {
        (refused(&sidecar, "too_many_connections") > 0).then_some(())
    });
    come_and_go();
    drop(held);
    eventually("all are let go", || (sidecar.metric("tidegate_connections") == Some(1.0)).then_some(()));
    assert!(resident(&sidecar) < MOST, "{} bytes are resident", resident(&sidecar));
    good.was_served();
}

/// CVE-2023-44487, and CVE-2023-26964: streams that are reset before they are served must not pile up.
#[test]
fn many_rapid_resets_at_once_are_told_to_calm_down() {
    let engine = engine(|mut peer| drop(peer.rest()));
    let sidecar = start(engine.address, &[]);
    let good = Good::beside(sidecar.data);
    let floods: Vec<_> = (0..8)
        .map(|_| {
            let address = sidecar.data;
            thread::spawn(move || {
                let mut raw = Raw::connect(address, &[]);
                // At once: one by one they could be served as they come, by a sidecar that is faster.
                let pair = |number: u32| {
                    let stream = 2 * number + 1;
                    let request = frame(HEADERS, END_HEADERS | END_STREAM, stream, &head(&[]));
                    [request, frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat()
                };
                raw.send(&(0..200).flat_map(pair).collect::<Vec<u8>>());
                raw.until(|frame| frame.kind == GOAWAY && frame.code() != 0).map(|frame| frame.code())
            })
        })
        .collect();
    for flood in floods {
        assert_eq!(flood.join().unwrap(), Some(ENHANCE_YOUR_CALM));
    }
    assert!(resident(&sidecar) < MOST, "{} bytes are resident", resident(&sidecar));
    good.was_served();
    eventually("nothing is left in flight", || {
        (sidecar.metric("tidegate_in_flight") == Some(0.0)).then_some(())
    });
}
