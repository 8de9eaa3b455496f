//! Engines that break HTTP, by mistake or because somebody made them: their client gets an error or a broken answer, and
//! nothing of it ever becomes a part of the next.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::memory::resident;
use crate::sidecar::{Sidecar, eventually};
use crate::start;
use crate::support::{DEADLINE, Engine, Peer, ok};

/// What the client of an answer sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sees {
    /// 502, and nothing of what the engine sent.
    Error,
    /// The answer as far as it goes, and then the end of the connection.
    Broken,
    /// A whole answer with this body.
    Whole(&'static str),
}
use Sees::{Broken, Error, Whole};

/// Its name, the bytes that the engine sends, and what comes of them.
type Answer = (&'static str, String, Sees);

const POISON: &str = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison";

fn answer(head: &str, body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{body}{POISON}")
}

fn chunked(body: &str) -> String {
    answer("transfer-encoding: chunked", body)
}

fn lengths() -> Vec<Answer> {
    vec![
        ("trailing garbage", answer("content-length: 5", "first"), Whole("first")),
        ("two lengths", answer("content-length: 5\r\ncontent-length: 6", "first"), Error),
        ("two lengths in one", answer("content-length: 5, 5", "first"), Error),
        ("the same length twice", answer("content-length: 5\r\ncontent-length: 5", "first"), Whole("first")),
        ("a length with a sign", answer("content-length: +5", "first"), Error),
        ("a length beyond 64 bits", answer("content-length: 18446744073709551621", "first"), Error),
        ("a length in hexadecimal", answer("content-length: 0x5", "first"), Error),
        (
            "length and chunks",
            answer("content-length: 50\r\ntransfer-encoding: chunked", "5\r\nfirst\r\n0\r\n\r\n"),
            Whole("first"),
        ),
        (
            "chunks and length",
            answer("transfer-encoding: chunked\r\ncontent-length: 5", "5\r\nfirst\r\n0\r\n\r\n"),
            Whole("first"),
        ),
        ("several codings", answer("transfer-encoding: gzip, chunked", "5\r\nfirst\r\n0\r\n\r\n"), Error),
        (
            "chunks twice",
            answer("transfer-encoding: chunked\r\ntransfer-encoding: chunked", "5\r\nfirst\r\n0\r\n\r\n"),
            Error,
        ),
        (
            "chunks in HTTP/1.0",
            format!("HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n0\r\n\r\n{POISON}"),
            Error,
        ),
        (
            "an answer without a body that has one",
            format!("HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\nfirst{POISON}"),
            Whole(""),
        ),
        (
            "an unchanged answer with chunks",
            format!(
                "HTTP/1.1 304 Not Modified\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n0\r\n\r\n{POISON}"
            ),
            Whole(""),
        ),
    ]
}

fn chunks() -> Vec<Answer> {
    vec![
        ("trailing garbage behind chunks", chunked("5\r\nfirst\r\n0\r\n\r\n"), Whole("first")),
        ("garbage behind trailers", chunked("5\r\nfirst\r\n0\r\nx-sum: 1\r\n\r\n"), Whole("first")),
        ("a chunk without a size", chunked("\r\nfirst\r\n0\r\n\r\n"), Broken),
        ("a size that is no number", chunked("xyz\r\nfirst\r\n0\r\n\r\n"), Broken),
        ("a size with a sign", chunked("+5\r\nfirst\r\n0\r\n\r\n"), Broken),
        ("a size that overflows", chunked("f0000000000000005\r\nfirst\r\n0\r\n\r\n"), Broken),
        ("a chunk longer than its size", chunked("4\r\nfirst\r\n0\r\n\r\n"), Broken),
        ("a chunk that ends with a line feed", chunked("5\r\nfirst\n0\r\n\r\n"), Broken),
        ("trailers that fold", chunked("5\r\nfirst\r\n0\r\nx: 1\r\n 2\r\n\r\n"), Broken),
        ("trailers without a colon", chunked("5\r\nfirst\r\n0\r\nx\r\n\r\n"), Broken),
    ]
}

fn heads() -> Vec<Answer> {
    let many = "x: 1\r\n".repeat(129);
    let large = format!("x: {}", "x".repeat(200_000));
    vec![
        ("no HTTP", format!("SSH-2.0-OpenSSH\r\n\r\n{POISON}"), Error),
        ("HTTP/2.0 in the line", format!("HTTP/2.0 200 OK\r\ncontent-length: 5\r\n\r\nfirst{POISON}"), Error),
        (
            "an impossible status",
            format!("HTTP/1.1 099 Odd\r\ncontent-length: 5\r\n\r\nfirst{POISON}"),
            Error,
        ),
        (
            "a status that is no number",
            format!("HTTP/1.1 2xx OK\r\ncontent-length: 5\r\n\r\nfirst{POISON}"),
            Error,
        ),
        (
            "a switch that nobody asked for",
            format!("HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n{POISON}"),
            Error,
        ),
        ("a folded field", answer("x: 1\r\n content-length: 5", "first"), Error),
        ("a field with a NUL", answer("x: \0\r\ncontent-length: 5", "first"), Error),
        ("a bare carriage return", answer("x: 1\rset-cookie: 1\r\ncontent-length: 5", "first"), Error),
        ("a space before the colon", answer("content-length : 5", "first"), Error),
        ("too many fields", answer(&format!("{many}content-length: 5"), "first"), Error),
        ("too large a head", answer(&large, "first"), Error),
        ("an endless head", format!("HTTP/1.1 200 OK\r\n{large}"), Error),
    ]
}

/// Answers `/second` with its name, and `/first/3` on a new connection with the third of `answers`.
fn engine(answers: Vec<Answer>) -> Engine {
    Engine::new(move |_, mut peer| {
        let mut request = peer.read_to("\r\n\r\n");
        if let Some(rest) = request.strip_prefix("GET /first/") {
            let number: usize = rest.split(' ').next().unwrap().parse().unwrap();
            // A sidecar that has seen enough may have left.
            let _ = peer.stream.write_all(answers[number].1.as_bytes());
            match peer.stream.peek(&mut [0]) {
                Ok(1) => request = peer.read_to("\r\n\r\n"),
                _ => return,
            }
        }
        assert!(request.starts_with("GET /second "), "{request}");
        peer.send(&ok("second"));
        while peer.request().is_some() {
            peer.send(&ok("second"));
        }
    })
}

fn connect(sidecar: &Sidecar) -> Peer {
    Peer::new(TcpStream::connect(sidecar.data).unwrap())
}

/// What a client sees of the first answer. The connection, if it goes on.
fn first(sidecar: &Sidecar, number: usize) -> (Sees, String, Option<Peer>) {
    let mut client = connect(sidecar);
    client.send(&format!("GET /first/{number} HTTP/1.1\r\nHost: a\r\n\r\n"));
    // Read as it comes: a broken answer is one that ends early.
    let mut seen = String::new();
    loop {
        let mut buffer = [0; 16 * 1024];
        match client.stream.read(&mut buffer) {
            Ok(0) => return (judge(&seen), seen, None),
            Ok(read) => seen.push_str(&String::from_utf8_lossy(&buffer[..read])),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("no end: {seen}"),
            Err(_) => return (judge(&seen), seen, None),
        }
        let judged = judge(&seen);
        let says_close = seen.contains("\r\nconnection: close\r\n");
        if judged != Broken && !says_close {
            return (judged, seen, Some(client));
        }
    }
}

fn judge(seen: &str) -> Sees {
    let Some((head, body)) = seen.split_once("\r\n\r\n") else { return Broken };
    let is_whole = match head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()) {
        Some(length) => body.len() == length.parse::<usize>().unwrap(),
        None if head.contains("transfer-encoding: chunked") => {
            body.ends_with("0\r\n\r\n") || body.ends_with("x-sum: 1\r\n\r\n")
        }
        None => true,
    };
    if head.starts_with("HTTP/1.1 502 ") {
        return if is_whole { Error } else { Broken };
    }
    if head.starts_with("HTTP/1.1 204 ") || head.starts_with("HTTP/1.1 304 ") {
        return if body.is_empty() { Whole("") } else { Broken };
    }
    if is_whole && body.contains("first") { Whole("first") } else { Broken }
}

#[test]
fn nothing_that_an_engine_sends_becomes_a_part_of_the_next_answer() {
    let answers = [lengths(), chunks(), heads()].concat();
    let engine = engine(answers.clone());
    let sidecar = start(engine.address, &[]);
    for (number, (name, _, expected)) in answers.into_iter().enumerate() {
        let (seen, text, kept) = first(&sidecar, number);
        assert_eq!(seen, expected, "{name}: {text}");
        assert!(!text.contains("poison"), "{name}: {text}");
        let mut client = kept.unwrap_or_else(|| connect(&sidecar));
        client.send("GET /second HTTP/1.1\r\nHost: a\r\n\r\n");
        let answer = client.response();
        assert_eq!((answer.status, answer.text()), (200, "second"), "{name}");
        eventually(name, || (sidecar.metric("tidegate_in_flight") == Some(0.0)).then_some(()));
    }
}

#[test]
fn what_comes_late_or_before_it_was_asked_for_is_no_answer() {
    for late_answers in [1, 2] {
        let (sent, was_sent) = mpsc::channel();
        let engine = Engine::new(move |number, mut peer| {
            if number > 0 {
                while peer.request().is_some() {
                    peer.send(&ok("second"));
                }
                return;
            }
            // It answers before it is asked, and again when it is; and a little later once more.
            peer.send(&ok("first"));
            peer.request();
            for _ in 0..late_answers {
                thread::sleep(Duration::from_millis(20));
                // The sidecar may have left.
                let _ = peer.stream.write_all(POISON.as_bytes());
                sent.send(()).unwrap();
            }
            peer.rest();
        });
        let sidecar = start(engine.address, &[]);
        let mut client = connect(&sidecar);
        client.send("GET /first HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.response().text(), "first");
        // What comes behind the next request can be an answer to nothing else.
        for _ in 0..late_answers {
            was_sent.recv_timeout(DEADLINE).unwrap();
        }
        for _ in 0..3 {
            client.send("GET /second HTTP/1.1\r\nHost: a\r\n\r\n");
            assert_eq!(client.response().text(), "second");
        }
    }
}

#[test]
fn an_answer_to_head_with_a_body_keeps_the_body_to_itself() {
    let engine = Engine::new(|number, mut peer| {
        while let Some(request) = peer.request() {
            assert_eq!(number == 0, request.head.starts_with("HEAD "), "{}", request.head);
            peer.send(&if number == 0 { answer("content-length: 5", "first") } else { ok("second") });
        }
    });
    let sidecar = start(engine.address, &[]);
    let mut client = connect(&sidecar);
    client.send("HEAD /first HTTP/1.1\r\nHost: a\r\n\r\n");
    let head = client.read_to("\r\n\r\n");
    assert!(head.contains("content-length: 5\r\n"), "{head}");
    thread::sleep(Duration::from_millis(100));
    client.send("GET /second HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.response().text(), "second");
}

#[test]
fn an_engine_that_never_stops_to_announce_its_answer_has_failed() {
    let engine = Engine::new(|_, mut peer| {
        peer.request();
        let announcement = "HTTP/1.1 103 Early Hints\r\nlink: </style.css>\r\n\r\n".repeat(100);
        while peer.stream.write_all(announcement.as_bytes()).is_ok() {}
    });
    let sidecar = start(engine.address, &[]);
    let mut client = connect(&sidecar);
    client.send("GET /first HTTP/1.1\r\nHost: a\r\n\r\n");
    // The client reads nothing of them.
    let answered = "tidegate_request_duration_seconds_count";
    eventually("it is given up", || (sidecar.metric(answered) == Some(1.0)).then_some(()));
    assert!(resident(&sidecar) < 32 << 20, "{} bytes are resident", resident(&sidecar));
    let mut heads = 0;
    while client.read_to("\r\n\r\n").starts_with("HTTP/1.1 103 ") {
        heads += 1;
    }
    assert!((1..2000).contains(&heads), "{heads} announcements");
}
