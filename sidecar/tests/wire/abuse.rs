//! Clients that break the rules, flood, or do nothing at all. Beside them a good client is served.

use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::raw_http2::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, Frame, GOAWAY, HEADERS, PREFACE,
    PRIORITY, PROTOCOL_ERROR, REFUSED_STREAM, RST_STREAM, Raw, WINDOW_UPDATE, frame, head,
};
use crate::sidecar::{Sidecar, eventually};
use crate::start;
use crate::support::{DEADLINE, Engine, Peer, ok};

fn refused(sidecar: &Sidecar, reason: &str) -> u64 {
    let series = format!("tidegate_protocol_refused_total{{reason=\"{reason}\"}}");
    sidecar.metric(&series).unwrap() as u64
}

fn connect(address: SocketAddr) -> Peer {
    Peer::new(std::net::TcpStream::connect(address).unwrap())
}

fn ask(address: SocketAddr) -> u16 {
    let mut good = connect(address);
    good.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    good.response().status
}

/// The frames of an attack for a number or a stream.
type Attack = fn(u32) -> Vec<u8>;

fn is_goodbye(frame: &Frame) -> bool {
    frame.kind == GOAWAY && frame.code() != 0
}

/// Sends what `attack` makes of each number, until the connection is ended, and returns how it was.
fn flood(address: SocketAddr, first: &[u8], attack: impl Fn(u32) -> Vec<u8> + Send + 'static) -> Option<u32> {
    let mut raw = Raw::connect(address, &[]);
    raw.send(first);
    let mut sender = Raw(raw.0.try_clone().unwrap());
    // As much as is taken: buffers of kernels take millions of bytes before the sidecar has read the first.
    let sending = thread::spawn(move || {
        let began = Instant::now();
        (0..u32::MAX).take_while(|_| began.elapsed() < DEADLINE).all(|number| sender.send(&attack(number)))
    });
    let goodbye = raw.until(is_goodbye).map(|frame| frame.code());
    drop(raw);
    assert!(!sending.join().unwrap(), "the flood is taken for ever");
    goodbye
}

#[test]
fn floods_of_http_2_end_their_connection_and_no_other() {
    let engine = Engine::answering(|_| ok("fine"));
    let sidecar = start(engine.address, &[]);
    let request = |stream| frame(HEADERS, END_HEADERS | END_STREAM, stream, &head(&[]));
    // CVE-2023-44487: requests that are reset at once.
    let rapid_reset = flood(sidecar.data, &[], move |number| {
        let stream = 2 * number + 1;
        [request(stream), frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat()
    });
    assert_eq!(rapid_reset, Some(ENHANCE_YOUR_CALM));
    // RUSTSEC-2024-0332: a head that never ends.
    let unended = frame(HEADERS, END_STREAM, 1, &head(&[]));
    let endless_head = flood(sidecar.data, &unended, |number| {
        let name = format!("x-{number}");
        frame(CONTINUATION, 0, 1, &head(&[(&name, &"v".repeat(100))])[6..])
    });
    // What of the flood is read after the goodbye was decided on can put another reason in its place.
    assert!(matches!(endless_head, Some(PROTOCOL_ERROR | ENHANCE_YOUR_CALM)), "{endless_head:?}");
    eventually("both are counted", || (refused(&sidecar, "http2") == 2).then_some(()));
    assert_eq!(ask(sidecar.data), 200);
}

/// CVE-2025-8671: mistakes that make the server reset its own streams while their requests go on.
#[test]
fn a_client_that_makes_the_sidecar_reset_streams_is_not_let_go_on() {
    let engine = Engine::answering(|_| ok("fine"));
    let sidecar = start(engine.address, &[]);
    let mistakes: [(&str, Attack); 5] = [
        ("a window that grows by nothing", |stream| frame(WINDOW_UPDATE, 0, stream, &[0; 4])),
        ("a window that grows too far", |stream| frame(WINDOW_UPDATE, 0, stream, &[0x7f, 0xff, 0xff, 0xff])),
        ("data behind the end", |stream| frame(DATA, 0, stream, b"x")),
        ("a priority of a wrong length", |stream| frame(PRIORITY, 0, stream, &[0; 6])),
        ("a stream that depends on itself", |stream| {
            frame(PRIORITY, 0, stream, &[&stream.to_be_bytes()[..], &[0]].concat())
        }),
    ];
    for (name, mistake) in mistakes {
        let ended = flood(sidecar.data, &[], move |number| {
            let stream = 2 * number + 1;
            [frame(HEADERS, END_HEADERS | END_STREAM, stream, &head(&[])), mistake(stream)].concat()
        });
        assert!(ended.is_some(), "{name}");
        assert_eq!(ask(sidecar.data), 200, "{name}");
    }
    eventually("nothing is left in flight", || {
        (sidecar.metric("tidegate_in_flight") == Some(0.0)).then_some(())
    });
}

#[test]
fn one_stream_more_than_allowed_is_refused_as_unprocessed() {
    let engine = Engine::new(|_, mut peer| {
        peer.request();
        peer.rest();
    });
    let sidecar = start(engine.address, &["--max-streams", "3"]);
    let mut raw = Raw::connect(sidecar.data, &[]);
    // The settings that tell the limit bind a client once it has acknowledged them.
    raw.until(|frame| frame.kind == 4 && frame.flags == 1).unwrap();
    for stream in [1, 3, 5, 7] {
        assert!(raw.get(stream));
    }
    let reset = raw.until(|frame| frame.kind == RST_STREAM).unwrap();
    assert_eq!((reset.stream, reset.code()), (7, REFUSED_STREAM));
    eventually("three in flight", || (sidecar.metric("tidegate_in_flight") == Some(3.0)).then_some(()));
    drop(raw);
    eventually("none in flight", || (sidecar.metric("tidegate_in_flight") == Some(0.0)).then_some(()));
}

#[test]
fn a_head_that_is_too_large_is_431_in_both_versions() {
    let engine = Engine::answering(|_| ok("fine"));
    let sidecar = start(engine.address, &["--max-header-bytes", "8192"]);
    let mut http1 = connect(sidecar.data);
    http1.send(&format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(9000)));
    assert_eq!(http1.response().status, 431);
    let mut raw = Raw::connect(sidecar.data, &[]);
    let value = "v".repeat(100);
    let fields: Vec<(String, &str)> = (0..80).map(|number| (format!("x-{number}"), &value[..])).collect();
    let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (&name[..], *value)).collect();
    assert!(raw.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &head(&fields))));
    let answer = raw.until(|frame| frame.kind == HEADERS).unwrap();
    // By the name of the static table and the value in Huffman's code.
    let status = [0x48, 0x83, 0x69, 0x90, 0xff];
    assert!(answer.payload.starts_with(&status), "{:x?}", answer.payload);
}

#[test]
fn a_connection_that_says_nothing_or_never_ends_its_preface_is_given_up_and_counted() {
    let engine = Engine::answering(|_| ok("fine"));
    let sidecar = start(engine.address, &[]);
    let silent = connect(sidecar.data);
    let mut unended = connect(sidecar.data);
    unended.send_bytes(&PREFACE[..20]);
    let mut undecided = connect(sidecar.data);
    undecided.send("P");
    for mut peer in [silent, unended, undecided] {
        peer.rest();
    }
    eventually("they are counted", || {
        (refused(&sidecar, "silent") == 2 && refused(&sidecar, "head_timeout") == 1).then_some(())
    });
    let mut late = connect(sidecar.data);
    late.send("P");
    late.send("OST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(late.response().status, 200);
}

#[test]
fn one_connection_more_than_allowed_is_told_503_and_counted() {
    let engine = Engine::answering(|_| ok("fine"));
    let sidecar = start(engine.address, &["--max-connections", "3"]);
    let held: Vec<Peer> = (0..3)
        .map(|_| {
            let mut peer = connect(sidecar.data);
            peer.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            assert_eq!(peer.response().status, 200);
            peer
        })
        .collect();
    assert_eq!(sidecar.metric("tidegate_connections"), Some(3.0));
    let mut more = connect(sidecar.data);
    let answer = more.response();
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    assert!(answer.text().contains("\"code\":\"overloaded\""), "{}", answer.text());
    assert!(more.rest().is_empty());
    eventually("it is counted", || (refused(&sidecar, "too_many_connections") == 1).then_some(()));
    drop(held);
    eventually("room again", || (sidecar.metric("tidegate_connections") == Some(0.0)).then_some(()));
    assert_eq!(ask(sidecar.data), 200);
}

#[test]
fn one_request_more_than_allowed_is_told_503_and_scrapes_still_pass() {
    let (arrived, arrivals) = mpsc::channel();
    let engine = Engine::new(move |_, mut peer| {
        if peer.request().unwrap().head.starts_with("GET /metrics") {
            peer.send(&ok("metrics"));
        } else {
            arrived.send(()).unwrap();
        }
        peer.rest();
    });
    let sidecar = start(engine.address, &["--max-requests", "2"]);
    let held: Vec<Peer> = (0..2)
        .map(|_| {
            let mut peer = connect(sidecar.data);
            peer.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            arrivals.recv_timeout(DEADLINE).unwrap();
            peer
        })
        .collect();
    assert_eq!(ask(sidecar.data), 503);
    let mut scrape = connect(sidecar.data);
    scrape.send("GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(scrape.response().text(), "metrics");
    eventually("it is counted", || (refused(&sidecar, "too_many_requests") == 1).then_some(()));
    drop(held);
}

#[test]
fn a_drain_says_goodbye_over_http_2_and_lets_streams_end() {
    let (go, wait) = mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let engine = Engine::new(move |_, mut peer| {
        peer.request();
        peer.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n");
        wait.lock().unwrap().recv_timeout(DEADLINE).unwrap();
        peer.send("3\r\ndef\r\n0\r\n\r\n");
    });
    let mut sidecar = start(engine.address, &[]);
    let mut raw = Raw::connect(sidecar.data, &[]);
    assert!(raw.get(1));
    let is_data = |frame: &Frame| frame.kind == DATA;
    assert_eq!(raw.until(is_data).unwrap().payload, b"abc");
    sidecar.signal(Signal::TERM);
    let goodbye = raw.until(|frame| frame.kind == GOAWAY).unwrap();
    assert_eq!(goodbye.code(), 0);
    go.send(()).unwrap();
    assert_eq!(raw.until(is_data).unwrap().payload, b"def");
    raw.until(|frame| frame.kind == DATA && frame.flags & END_STREAM != 0).unwrap();
    assert_eq!(sidecar.await_exit().code(), Some(0));
}

#[test]
fn an_upload_that_its_length_does_not_fit_never_leaves_an_engine_s_connection_to_the_next() {
    let engine = Engine::new(|_, mut peer| {
        peer.read_to("\r\n\r\n");
        // It answers before it has read the body, and would take the next request for the rest of it.
        peer.send(&ok("early"));
        peer.rest();
    });
    let sidecar = start(engine.address, &[]);
    let mut raw = Raw::connect(sidecar.data, &[]);
    for stream in [1, 3] {
        let fields = [("content-length", "50")];
        assert!(raw.send(&frame(HEADERS, END_HEADERS, stream, &head(&fields))));
        assert!(raw.send(&frame(DATA, 0, stream, b"GET /smuggled")));
        // A reset without an error, which hyper takes for the end of the body.
        assert!(raw.send(&frame(RST_STREAM, 0, stream, &[0; 4])));
    }
    raw.get(5);
    // The others may have been answered before their reset came.
    let answer = raw.until(|frame| frame.kind == DATA && frame.stream == 5).unwrap();
    assert_eq!(answer.payload, b"early");
    thread::sleep(Duration::from_millis(50));
    eventually("nothing is left in flight", || {
        (sidecar.metric("tidegate_in_flight") == Some(0.0)).then_some(())
    });
}
