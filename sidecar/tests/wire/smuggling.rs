//! Requests that two parsers could read differently. Every payload goes to hyper directly and through the sidecar: what
//! the engine gets through the sidecar has to be a beginning of what hyper reads by itself, and framed so that nobody
//! can read it in another way.

use std::convert::Infallible;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::{Request, Response};

use crate::payloads::Expect::{Passed, Refused};
use crate::payloads::all as payloads;
use crate::sidecar::eventually;
use crate::start;
use crate::support::{DEADLINE, Peer, find};

/// Behind every payload: a request that is its own only if the payload ended where it should. It ends the connection.
const MARKER: &[u8] = b"GET /marker HTTP/1.1\r\nHost: marker\r\nConnection: close\r\n\r\n";

type Seen = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

/// An engine on hyper, which notes method, target and body of each request.
fn hyper_engine() -> (SocketAddr, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    let seen = Seen::default();
    let notes = Arc::clone(&seen);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let notes = Arc::clone(&notes);
                let service = hyper::service::service_fn(move |request| note(request, Arc::clone(&notes)));
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .half_close(true)
                        .serve_connection(hyper_util::rt::TokioIo::new(stream), service),
                );
            }
        });
    });
    (address, seen)
}

async fn note(request: Request<Incoming>, seen: Seen) -> Result<Response<Full<Bytes>>, Infallible> {
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
    let line = format!("{} {target}", request.method());
    // A body that breaks off is no request.
    if let Ok(body) = request.into_body().collect().await {
        seen.lock().unwrap().push((line, body.to_bytes().to_vec()));
    }
    Ok(Response::new(Full::new(Bytes::from_static(b"ok"))))
}

/// An engine that keeps the bytes of each connection, and answers every head it finds at the end of what came.
fn recording_engine() -> (SocketAddr, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let bytes = Arc::new(Mutex::new(Vec::new()));
    let record = Arc::clone(&bytes);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let record = Arc::clone(&record);
            std::thread::spawn(move || {
                let mut peer = Peer::new(stream);
                while let Some(request) = peer.request() {
                    record.lock().unwrap().extend_from_slice(request.head.as_bytes());
                    peer.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
                }
            });
        }
    });
    (address, bytes)
}

/// Sends everything and reads until the connection ends: every payload is refused, or its marker ends it.
fn exchange(address: SocketAddr, payload: &[u8]) -> String {
    answered(send(address, payload))
}

fn send(address: SocketAddr, payload: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    // A server that refuses early may have closed already.
    let _ = stream.write_all(payload);
    stream
}

fn answered(mut stream: TcpStream) -> String {
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn take(seen: &Seen) -> Vec<(String, Vec<u8>)> {
    std::mem::take(&mut seen.lock().unwrap())
}

#[test]
fn every_request_that_could_be_smuggled_is_refused_or_framed_as_hyper_frames_it() {
    let (direct, seen_directly) = hyper_engine();
    let (behind, seen_behind) = hyper_engine();
    let sidecar = start(behind, &[]);
    let payloads = payloads();
    assert!(payloads.len() >= 60, "{} payloads", payloads.len());
    let mut wrong = Vec::new();
    for (name, payload, expect) in payloads {
        let wire = [&payload, MARKER].concat();
        // A body that swallows the marker would be waited on for ever.
        let whole = send(direct, &wire);
        let _ = whole.shutdown(Shutdown::Write);
        answered(whole);
        let read_directly = take(&seen_directly);
        let answer = exchange(sidecar.data, &wire);
        eventually(name, || (sidecar.metric("tidegate_in_flight") == Some(0.0)).then_some(()));
        let read_behind = take(&seen_behind);
        let targets: Vec<_> = read_behind.iter().map(|(line, _)| line.as_str()).collect();
        let as_expected = match expect {
            Refused => is_refusal(&answer) && !targets.contains(&"GET /marker"),
            Passed => targets.last() == Some(&"GET /marker"),
        };
        let smuggled = targets.iter().any(|target| target.contains("smuggled"));
        if !as_expected || smuggled || !read_directly.starts_with(&read_behind) {
            wrong.push(format!(
                "{name}\n  engine: {read_behind:?}\n  hyper:  {read_directly:?}\n  {answer:?}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The last answer is a refusal.
fn is_refusal(answer: &str) -> bool {
    let statuses = answer.split("HTTP/1.").skip(1).filter_map(|rest| rest.get(2..5));
    statuses.last().is_some_and(|last| ["400", "405", "414", "431"].contains(&last))
}

#[test]
fn an_engine_gets_one_framing_field_at_most_and_no_field_of_a_connection() {
    let (engine, bytes) = recording_engine();
    let sidecar = start(engine, &[]);
    for (name, payload, expect) in payloads() {
        exchange(sidecar.data, &[&payload, MARKER].concat());
        eventually(name, || (sidecar.metric("tidegate_in_flight") == Some(0.0)).then_some(()));
        let heads = String::from_utf8(std::mem::take(&mut *bytes.lock().unwrap())).unwrap();
        if expect == Passed {
            assert_ne!(heads, "", "{name}");
        }
        for head in heads.split_terminator("\r\n\r\n") {
            let framing = head.matches("\r\ncontent-length: ").count()
                + head.matches("\r\ntransfer-encoding: chunked").count();
            assert!(framing <= 1, "{name}: {head}");
            assert!(!head.replace("\r\n", "").contains(['\r', '\n', '\0']), "{name}: {head:?}");
            assert!(find(head.as_bytes(), b"http2-settings").is_none(), "{name}: {head}");
        }
    }
}

#[test]
fn bytes_behind_an_upgrade_wait_for_the_engine_s_101() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let sidecar = start(listener.local_addr().unwrap(), &[]);
    let mut client = Peer::new(TcpStream::connect(sidecar.data).unwrap());
    client.send("GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    client.send("GET /smuggled HTTP/1.1\r\nHost: s\r\n\r\n");
    let mut engine = Peer::new(listener.accept().unwrap().0);
    engine.read_to("\r\n\r\n");
    assert!(engine.is_silent_for(Duration::from_millis(300)), "bytes came before the engine agreed");
    engine.send("HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n");
    assert_eq!(client.response().status, 403);
    let next = engine.read_to("\r\n\r\n");
    assert!(
        next.starts_with("GET /smuggled HTTP/1.1\r\n"),
        "it is a request of its own, and was judged: {next}"
    );
}
