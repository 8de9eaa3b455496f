//! Engines and clients that send exactly the bytes they are told to. Every wait has a deadline.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tidegate_core::Engine as DecisionEngine;
use tidegate_policy::PolicyDocument;
use tidegate_sidecar::caps::Caps;
use tidegate_sidecar::clock::Clock;
use tidegate_sidecar::proxy::{self, Config};
use tidegate_sidecar::shared::Shared;

use crate::sidecar::Sidecar;

/// What is not there after this does not come.
pub(crate) const DEADLINE: Duration = Duration::from_mins(1);

/// The real binary in front of one engine.
pub(crate) struct Proxy {
    sidecar: Sidecar,
    folder: TempDir,
}

impl Proxy {
    /// Under the default document: everything passes.
    pub(crate) fn new(upstream: SocketAddr) -> Self {
        Self::with_document(upstream, &PolicyDocument::default())
    }

    pub(crate) fn with_document(upstream: SocketAddr, document: &PolicyDocument) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("policy.json");
        std::fs::write(&file, serde_json::to_string(document).unwrap()).unwrap();
        let file = file.display().to_string();
        // The engine's metrics are looked for where there are none: every connection to it is the test's own.
        let arguments = ["--policy-file", &file, "--unlimited-path", "/health", "--engine-metrics", "1"];
        Self { sidecar: Sidecar::start(upstream, &arguments), folder }
    }

    pub(crate) fn connect(&self) -> Peer {
        Peer::new(TcpStream::connect(self.sidecar.data).unwrap())
    }

    /// One request on a connection of its own.
    pub(crate) fn ask(&self, request: &str) -> Response {
        let mut client = self.connect();
        client.send(request);
        client.response()
    }

    /// Puts the next document in force.
    pub(crate) fn swap(&self, document: &PolicyDocument) {
        let next = self.folder.path().join("next.json");
        std::fs::write(&next, serde_json::to_string(document).unwrap()).unwrap();
        std::fs::rename(next, self.folder.path().join("policy.json")).unwrap();
        self.sidecar.await_status("the next document", |status| status["revision"] == document.revision);
    }

    /// What `/metrics` says.
    pub(crate) fn metrics(&self) -> String {
        self.sidecar.admin("/metrics").unwrap().body
    }

    /// The first line of the log that `is` the one.
    pub(crate) fn line(&self, what: &str, is: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
        self.sidecar.line(what, is)
    }

    /// What `/throttle/status` says.
    pub(crate) fn status(&self) -> serde_json::Value {
        self.sidecar.status()
    }

    /// The value of a metric, by its name and labels as they are exposed; 0 where there is none.
    pub(crate) fn metric(&self, series: &str) -> u64 {
        self.sidecar.metric(series).unwrap_or_default() as u64
    }

    pub(crate) fn in_flight(&self) -> u64 {
        self.metric("tidegate_in_flight")
    }

    /// Waits until nothing is in flight.
    pub(crate) fn settled(&self) {
        until("nothing is in flight", || self.in_flight() == 0);
    }
}

/// The data path of the binary in a thread of the test, for what cannot be seen or done from outside. Stopped when it is
/// dropped.
pub(crate) struct InProcess {
    pub(crate) address: SocketAddr,
    pub(crate) shared: Arc<Shared>,
    worker: Option<JoinHandle<()>>,
}

impl InProcess {
    /// Under the default document: everything passes.
    pub(crate) fn new(upstream: SocketAddr) -> Self {
        Self::with_document(upstream, &PolicyDocument::default())
    }

    pub(crate) fn with_document(upstream: SocketAddr, document: &PolicyDocument) -> Self {
        let config = Config {
            upstream: Some(upstream),
            unlimited_paths: vec!["/health".to_owned()],
            ..Config::default()
        };
        Self::with_config(config, document)
    }

    pub(crate) fn with_config(config: Config, document: &PolicyDocument) -> Self {
        let clock = Clock::new();
        let engine = DecisionEngine::new(document, 7, clock.now());
        let shared = Arc::new(Shared::new(engine, clock, Caps::DEFAULT));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let worker = {
            let shared = shared.clone();
            std::thread::spawn(move || proxy::serve(vec![listener], &Arc::new(config), &shared).unwrap())
        };
        Self { address, shared, worker: Some(worker) }
    }

    pub(crate) fn connect(&self) -> Peer {
        Peer::new(TcpStream::connect(self.address).unwrap())
    }

    /// One request on a connection of its own.
    pub(crate) fn ask(&self, request: &str) -> Response {
        let mut client = self.connect();
        client.send(request);
        client.response()
    }

    /// Puts the next document in force.
    pub(crate) fn swap(&self, document: &PolicyDocument) {
        let next = self.shared.engine.load().succeed(document, self.shared.clock.now());
        self.shared.engine.store(Arc::new(next));
    }

    /// The value of a metric, by its name and labels as they are exposed.
    pub(crate) fn metric(&self, series: &str) -> u64 {
        let text = self.shared.render_metrics();
        let line = text.lines().find(|line| line.strip_prefix(series).is_some_and(|l| l.starts_with(' ')));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0)
    }

    /// Waits until nothing is in flight.
    pub(crate) fn settled(&self) {
        until("nothing is in flight", || self.shared.drain.in_flight() == 0);
    }
}

impl Drop for InProcess {
    fn drop(&mut self) {
        self.shared.drain.stop();
        let joined = self.worker.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            joined.unwrap().unwrap();
        }
    }
}

/// Waits for a condition.
pub(crate) fn until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < DEADLINE, "not reached: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// An inference engine: accepts connections and lets the test speak on each in a thread of its own.
pub(crate) struct Engine {
    pub(crate) address: SocketAddr,
}

impl Engine {
    /// `speak` gets every connection with its number, from 0.
    pub(crate) fn new(speak: impl Fn(usize, Peer) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let speak = Arc::new(speak);
        std::thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let speak = speak.clone();
                std::thread::spawn(move || speak(number, Peer::new(stream.unwrap())));
            }
        });
        Self { address }
    }

    /// Answers with twenty events, each of them once the one before was `seen`.
    pub(crate) fn of_events(seen: mpsc::Receiver<()>) -> Self {
        let seen = Mutex::new(seen);
        Self::new(move |_, mut peer| {
            peer.request();
            peer.send(
                "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
            );
            for number in 0..20 {
                let event = format!("data: {number}\n\n");
                peer.send(&format!("{:x}\r\n{event}\r\n", event.len()));
                seen.lock().unwrap().recv_timeout(DEADLINE).unwrap();
            }
            peer.send("0\r\n\r\n");
        })
    }

    /// Answers every request with what `answer` makes of it, as raw bytes.
    pub(crate) fn answering(answer: impl Fn(&Request) -> String + Send + Sync + 'static) -> Self {
        Self::new(move |_, mut peer| {
            while let Some(request) = peer.request() {
                peer.send(&answer(&request));
            }
        })
    }
}

/// A whole response as bytes, with a length.
pub(crate) fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// A request as the engine got it.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

/// A response as the client got it.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Response {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().skip(1).find_map(|line| {
        let (field, value) = line.split_once(':')?;
        field.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// One end of a connection.
pub(crate) struct Peer {
    pub(crate) stream: TcpStream,
    received: Vec<u8>,
}

impl Peer {
    pub(crate) fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        Self { stream, received: Vec::new() }
    }

    pub(crate) fn send(&mut self, bytes: &str) {
        self.send_bytes(bytes.as_bytes());
    }

    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Reads more. False at the end of the connection, however it came.
    fn more(&mut self) -> bool {
        let mut buffer = [0; 16 * 1024];
        match self.stream.read(&mut buffer) {
            // What a process finds that was stopped meanwhile.
            Err(e) if e.kind() == ErrorKind::Interrupted => true,
            Ok(0) => false,
            Ok(read) => {
                self.received.extend_from_slice(&buffer[..read]);
                true
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                panic!("nothing came; so far: {:?}", self.peeked())
            }
            Err(_) => false,
        }
    }

    fn peeked(&self) -> String {
        String::from_utf8_lossy(&self.received).into_owned()
    }

    /// Reads up to and with `end`.
    pub(crate) fn read_to(&mut self, end: &str) -> String {
        loop {
            if let Some(at) = find(&self.received, end.as_bytes()) {
                let taken: Vec<u8> = self.received.drain(..at + end.len()).collect();
                return String::from_utf8(taken).unwrap();
            }
            assert!(self.more(), "the connection ended before {end:?}: {:?}", self.peeked());
        }
    }

    pub(crate) fn read_exactly(&mut self, count: usize) -> Vec<u8> {
        while self.received.len() < count {
            assert!(self.more(), "the connection ended after {} of {count} bytes", self.received.len());
        }
        self.received.drain(..count).collect()
    }

    /// All that still comes, until the other side ends the connection.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        while self.more() {}
        std::mem::take(&mut self.received)
    }

    /// Nothing comes for `wait`.
    pub(crate) fn is_silent_for(&mut self, wait: Duration) -> bool {
        self.stream.set_read_timeout(Some(wait)).unwrap();
        let silent = self.received.is_empty()
            && matches!(self.stream.peek(&mut [0]), Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted));
        self.stream.set_read_timeout(Some(DEADLINE)).unwrap();
        silent
    }

    /// A whole request, none at the end of the connection.
    pub(crate) fn request(&mut self) -> Option<Request> {
        while find(&self.received, b"\r\n\r\n").is_none() {
            if !self.more() {
                return None;
            }
        }
        let head = self.read_to("\r\n\r\n");
        let body = self.body(&head, false);
        Some(Request { head, body })
    }

    /// A whole response with its body.
    pub(crate) fn response(&mut self) -> Response {
        let head = self.read_to("\r\n\r\n");
        let status: u16 = head.split(' ').nth(1).unwrap().parse().unwrap();
        let bodiless = status < 200 || status == 204 || status == 304;
        let body = if bodiless { Vec::new() } else { self.body(&head, true) };
        Response { status, head, body }
    }

    fn body(&mut self, head: &str, until_close: bool) -> Vec<u8> {
        if header(head, "transfer-encoding").is_some_and(|te| te == "chunked") {
            let mut body = Vec::new();
            loop {
                let chunk = self.chunk();
                if chunk.is_empty() {
                    return body;
                }
                body.extend_from_slice(&chunk);
            }
        }
        match header(head, "content-length") {
            Some(length) => self.read_exactly(length.parse().unwrap()),
            None if until_close => self.rest(),
            None => Vec::new(),
        }
    }

    /// The data of the next chunk; empty for the last one, with which the trailers are read.
    pub(crate) fn chunk(&mut self) -> Vec<u8> {
        let size = usize::from_str_radix(self.read_to("\r\n").trim(), 16).unwrap();
        if size == 0 {
            while self.read_to("\r\n") != "\r\n" {}
            return Vec::new();
        }
        let data = self.read_exactly(size);
        assert_eq!(self.read_exactly(2), b"\r\n");
        data
    }
}

pub(crate) fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}
