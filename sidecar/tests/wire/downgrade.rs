//! Requests of HTTP/2 that would be others in HTTP/1.1. Each is refused as a whole, or reaches the engine as the one
//! request that was judged.

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::raw_http2::{DATA, END_HEADERS, END_STREAM, HEADERS, Raw, SETTINGS, frame, literals};
use crate::sidecar::eventually;
use crate::start;
use crate::support::{Peer, ok};

/// What the engine gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gets {
    /// Nothing that it could take for a request.
    Nothing,
    /// One request.
    One,
}
use Gets::{Nothing, One};

/// Its name, the fields of its head, its body if it has one, trailers, and what comes of it.
type Payload = (
    &'static str,
    Vec<(&'static str, &'static str)>,
    Option<&'static str>,
    Vec<(&'static str, &'static str)>,
    Gets,
);

const SMUGGLED: &str = "0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: s\r\n\r\n";

fn with(fields: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
    [&[(":method", "POST"), (":scheme", "http"), (":path", "/first"), (":authority", "a")], fields].concat()
}

fn pseudo(
    method: &'static str,
    path: &'static str,
    authority: &'static str,
) -> Vec<(&'static str, &'static str)> {
    vec![(":method", method), (":scheme", "http"), (":path", path), (":authority", authority)]
}

fn framing() -> Vec<Payload> {
    let body = Some(SMUGGLED);
    vec![
        ("H2.TE", with(&[("transfer-encoding", "chunked")]), body, vec![], Nothing),
        ("H2.TE in other letters", with(&[("Transfer-Encoding", "chunked")]), body, vec![], Nothing),
        ("H2.CL, no body by its length", with(&[("content-length", "0")]), body, vec![], Nothing),
        ("H2.CL, a shorter body", with(&[("content-length", "5")]), body, vec![], Nothing),
        ("H2.CL, a longer body", with(&[("content-length", "500")]), body, vec![], Nothing),
        ("H2.CL, without a body", with(&[("content-length", "5")]), None, vec![], Nothing),
        ("two lengths", with(&[("content-length", "40"), ("content-length", "5")]), body, vec![], Nothing),
        ("a length with a sign", with(&[("content-length", "+40")]), body, vec![], Nothing),
        ("a connection", with(&[("connection", "close, x"), ("x", "1")]), body, vec![], Nothing),
        ("an upgrade", with(&[("upgrade", "h2c")]), body, vec![], Nothing),
        ("a keep-alive", with(&[("keep-alive", "timeout=5")]), body, vec![], Nothing),
        ("a coding of trailers", with(&[("te", "chunked")]), body, vec![], Nothing),
        (
            "trailers that name framing",
            with(&[]),
            body,
            vec![("content-length", "5"), ("transfer-encoding", "chunked")],
            Nothing,
        ),
        ("trailers with a method", with(&[]), body, vec![(":method", "GET")], One),
        ("a request in a body", with(&[]), body, vec![], One),
        ("a request in a body, with its length", with(&[("content-length", "40")]), body, vec![], One),
    ]
}

fn fields() -> Vec<Payload> {
    vec![
        ("a line in a value", with(&[("x", "1\r\ntransfer-encoding: chunked")]), None, vec![], Nothing),
        ("a line feed in a value", with(&[("x", "1\ntransfer-encoding: chunked")]), None, vec![], Nothing),
        ("a carriage return in a value", with(&[("x", "1\rx")]), None, vec![], Nothing),
        (
            "a request in a value",
            with(&[("x", "1\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: s\r\n\r\n")]),
            None,
            vec![],
            Nothing,
        ),
        ("a NUL in a value", with(&[("x", "\0")]), None, vec![], Nothing),
        ("a line in a name", with(&[("x: 1\r\ntransfer-encoding", "chunked")]), None, vec![], Nothing),
        ("a colon in a name", with(&[("transfer-encoding:", "chunked")]), None, vec![], Nothing),
        ("a space in a name", with(&[("transfer-encoding ", "chunked")]), None, vec![], Nothing),
        ("a name in capital letters", with(&[("X", "1")]), None, vec![], Nothing),
        ("no name", with(&[("", "chunked")]), None, vec![], Nothing),
    ]
}

fn heads() -> Vec<Payload> {
    vec![
        (
            "a request in the path",
            pseudo("GET", "/first HTTP/1.1\r\nhost: a\r\n\r\nGET /smuggled", "a"),
            None,
            vec![],
            Nothing,
        ),
        ("a space in the path", pseudo("GET", "/first /x", "a"), None, vec![], Nothing),
        ("a path without a slash", pseudo("GET", "first", "a"), None, vec![], Nothing),
        ("a whole URL for a path", pseudo("GET", "http://b/first", "a"), None, vec![], Nothing),
        ("no path", pseudo("GET", "", "a"), None, vec![], Nothing),
        ("a query for a path", pseudo("GET", "?q", "a"), None, vec![], Nothing),
        ("a star for a path", pseudo("GET", "*", "a"), None, vec![], Nothing),
        (
            "a line in the method",
            pseudo("GET / HTTP/1.1\r\nhost: a\r\n\r\nGET", "/first", "a"),
            None,
            vec![],
            Nothing,
        ),
        ("a space in the method", pseudo("GET /smuggled", "/first", "a"), None, vec![], Nothing),
        ("CONNECT", vec![(":method", "CONNECT"), (":authority", "a:80")], None, vec![], Nothing),
        ("a line in the authority", pseudo("GET", "/first", "a\r\nx: 1"), None, vec![], Nothing),
        ("a user in the authority", pseudo("GET", "/first", "a@b"), None, vec![], Nothing),
        ("a space in the authority", pseudo("GET", "/first", "a b"), None, vec![], Nothing),
    ]
}

fn order() -> Vec<Payload> {
    let host = |authority, host| [pseudo("GET", "/first", authority), vec![("host", host)]].concat();
    vec![
        (
            "a scheme with a slash",
            vec![(":method", "GET"), (":scheme", "http://b/x?"), (":path", "/first"), (":authority", "a")],
            None,
            vec![],
            Nothing,
        ),
        ("two paths", with(&[(":path", "/smuggled")]), None, vec![], Nothing),
        (
            "a path behind a field",
            vec![
                (":method", "GET"),
                (":scheme", "http"),
                (":authority", "a"),
                ("x", "1"),
                (":path", "/first"),
            ],
            None,
            vec![],
            Nothing,
        ),
        ("a status in a request", with(&[(":status", "200")]), None, vec![], Nothing),
        (
            "a protocol that was not offered",
            [vec![(":protocol", "websocket")], pseudo("CONNECT", "/first", "a")].concat(),
            None,
            vec![],
            Nothing,
        ),
        ("two hosts", [host("a", "b"), vec![("host", "c")]].concat(), None, vec![], Nothing),
        ("a host that is none", host("a", "b c"), None, vec![], Nothing),
        ("a host beside the authority", host("a", "b"), None, vec![], One),
        (
            "cookies in crumbs",
            [pseudo("GET", "/first", "a"), vec![("cookie", "a=1"), ("cookie", "b=2")]].concat(),
            None,
            vec![],
            One,
        ),
    ]
}

/// An engine that notes the bytes of each connection, and answers every request that it finds in them.
fn recording_engine() -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let requests = Arc::new(Mutex::new(Vec::new()));
    let record = Arc::clone(&requests);
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let record = Arc::clone(&record);
            thread::spawn(move || {
                let mut peer = Peer::new(stream);
                while let Some(request) = whole(&mut peer) {
                    record.lock().unwrap().push(request);
                    peer.send(&ok("ok"));
                }
            });
        }
    });
    (address, requests)
}

/// The head of a request with all of its body; one that breaks off is none.
fn whole(peer: &mut Peer) -> Option<String> {
    let request = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| peer.request())).ok()??;
    Some(request.head)
}

#[test]
fn no_request_of_http_2_is_another_in_http_1() {
    let (engine, seen) = recording_engine();
    let sidecar = start(engine, &[]);
    let mut wrong = Vec::new();
    for (name, fields, body, trailers, expected) in [framing(), fields(), heads(), order()].concat() {
        let mut raw = Raw::connect(sidecar.data, &[]);
        let end = if body.is_none() { END_STREAM } else { 0 };
        let mut wire = frame(HEADERS, END_HEADERS | end, 1, &literals(&fields));
        if let Some(body) = body {
            let end = if trailers.is_empty() { END_STREAM } else { 0 };
            wire.extend(frame(DATA, end, 1, body.as_bytes()));
        }
        if !trailers.is_empty() {
            wire.extend(frame(HEADERS, END_HEADERS | END_STREAM, 1, &literals(&trailers)));
        }
        assert!(raw.send(&wire));
        // The end of the stream or of the connection, whatever it is.
        raw.until(|frame| frame.kind != SETTINGS && (frame.stream == 1 || frame.kind == 7));
        drop(raw);
        eventually(name, || (sidecar.metric("tidegate_in_flight") == Some(0.0)).then_some(()));
        let requests = std::mem::take(&mut *seen.lock().unwrap());
        let clean = requests.iter().all(|head| {
            let lines: Vec<&str> = head.split("\r\n").collect();
            let framings = lines
                .iter()
                .filter(|l| l.starts_with("content-length:") || l.starts_with("transfer-encoding:"));
            head.starts_with("POST /first HTTP/1.1\r\n") | head.starts_with("GET /first HTTP/1.1\r\n")
                && framings.count() <= 1
                && lines.iter().filter(|line| line.starts_with("host:")).count() == 1
        });
        let count = usize::from(expected == One);
        if requests.len() != count || !clean {
            wrong.push(format!("{name}: {requests:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
