//! Time limits of answers.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::breaker::breaker;
use crate::decisions::{code, document};
use crate::support::{Engine, Peer, Proxy};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const EVENTS: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
const DONE: &str = "data: [DONE]\n\n";

/// An engine that sends the head of an event stream at once, then speaks.
fn streaming(speak: impl Fn(&mut Peer) + Send + Sync + 'static) -> Engine {
    Engine::new(move |_, mut peer| {
        while peer.request().is_some() {
            peer.send(EVENTS);
            speak(&mut peer);
        }
    })
}

fn proxy(engine: &Engine, limits: &serde_json::Value) -> Proxy {
    Proxy::with_document(engine.address, &document("1", &breaker(limits)))
}

fn event(peer: &mut Peer, text: &str) {
    peer.send(&format!("{:x}\r\n{text}\r\n", text.len()));
}

/// A time limit, in milliseconds, that an engine keeps that answers at once, on a busy machine too.
const ENOUGH: u64 = 8000;

fn failures(proxy: &Proxy) -> u64 {
    proxy.settled();
    proxy.status()["breaker"]["consecutiveFailures"].as_u64().unwrap()
}

/// The end of a stream that was cut, and which error it names.
fn cut(text: &str) -> String {
    let error = text.strip_suffix(DONE).unwrap().trim_end().rsplit_once("data: ").unwrap().1;
    let error: serde_json::Value = serde_json::from_str(error).unwrap();
    error["error"]["code"].as_str().unwrap().to_owned()
}

#[test]
fn timeout_ms_is_the_first_byte_of_a_stream_and_not_its_length() {
    let engine = streaming(|peer| {
        event(peer, "data: 1\n\n");
        std::thread::sleep(Duration::from_millis(ENOUGH + 500));
        event(peer, "data: 2\n\n");
        peer.send("0\r\n\r\n");
    });
    let proxy = proxy(&engine, &json!({"timeoutMillis": ENOUGH}));
    assert_eq!(proxy.ask(GET).text(), "data: 1\n\ndata: 2\n\n");
    assert_eq!(failures(&proxy), 0);
}

#[test]
fn a_stream_whose_first_byte_does_not_come_ends_with_an_error_event_and_is_a_failure() {
    let engine = streaming(|peer| drop(peer.rest()));
    let proxy = proxy(&engine, &json!({"timeoutMillis": ENOUGH}));
    let answer = proxy.ask(GET);
    assert_eq!((answer.status, cut(answer.text()).as_str()), (200, "engine-timeout"));
    assert_eq!(failures(&proxy), 1);
    assert_eq!(cut(proxy.ask(GET).text()), "engine-timeout");
    assert_eq!(proxy.ask(GET).status, 503, "two failures in a row open it");
}

#[test]
fn the_head_of_a_stream_is_no_success_before_its_first_byte() {
    let engine = streaming(|peer| {
        // A client that leaves says nothing about the engine.
        drop(peer.rest());
    });
    let proxy = proxy(&engine, &json!({"timeoutMillis": 20_000}));
    let mut client = proxy.connect();
    client.send(GET);
    client.read_to("\r\n\r\n");
    drop(client);
    assert_eq!(failures(&proxy), 0);
}

#[test]
fn a_stream_that_stalls_is_cut_after_its_last_piece_and_the_client_can_go_on() {
    let engine = streaming(|peer| {
        for n in 0..3 {
            event(peer, &format!("data: {n}\n\n"));
            std::thread::sleep(Duration::from_millis(100));
        }
        drop(peer.rest());
    });
    let proxy = proxy(&engine, &json!({"timeouts": {"betweenChunksMillis": ENOUGH}}));
    let mut client = proxy.connect();
    for _ in 0..2 {
        let began = Instant::now();
        client.send(GET);
        let answer = client.response();
        assert!(answer.text().starts_with("data: 0\n\ndata: 1\n\ndata: 2\n\n"), "{}", answer.text());
        assert_eq!(cut(answer.text()), "engine-timeout");
        assert!(began.elapsed() >= Duration::from_millis(ENOUGH + 200), "{:?}", began.elapsed());
    }
    assert_eq!(proxy.metric(r#"tidegate_breaker_state{state="open"}"#), 0, "each began with a success");
}

#[test]
fn streams_that_stall_together_open_the_breaker() {
    let engine = streaming(|peer| {
        event(peer, "data: 0\n\n");
        drop(peer.rest());
    });
    let proxy = proxy(&engine, &json!({"timeouts": {"betweenChunksMillis": ENOUGH}}));
    let mut clients = [proxy.connect(), proxy.connect()];
    for client in &mut clients {
        client.send(GET);
        client.read_to("data: 0\n\n");
    }
    for client in &mut clients {
        client.read_to(DONE);
    }
    proxy.settled();
    assert_eq!(proxy.ask(GET).status, 503);
}

#[test]
fn anthropic_s_streams_end_with_anthropic_s_event() {
    let engine = streaming(|peer| drop(peer.rest()));
    let proxy = proxy(&engine, &json!({"timeoutMillis": ENOUGH}));
    let answer = proxy.ask("POST /v1/messages HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}");
    let text = answer.text().trim_start();
    assert!(text.starts_with("event: error\ndata: {") && !text.contains("[DONE]"), "{text}");
}

#[test]
fn the_total_of_a_stream_ends_it_and_is_no_failure() {
    let engine = streaming(|peer| {
        for n in 0..1000 {
            event(peer, &format!("data: {n}\n\n"));
            std::thread::sleep(Duration::from_millis(20));
            if !peer.is_silent_for(Duration::from_millis(1)) {
                return;
            }
        }
    });
    let proxy = proxy(&engine, &json!({"timeouts": {"totalMillis": ENOUGH}}));
    assert_eq!(cut(proxy.ask(GET).text()), "engine-timeout");
    assert_eq!(failures(&proxy), 0);
}

#[test]
fn timeout_ms_is_the_total_of_a_plain_answer_which_then_breaks_off() {
    let engine = Engine::new(|_, mut peer| {
        peer.request();
        peer.send("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nabc");
        peer.rest();
    });
    let proxy = proxy(&engine, &json!({"timeoutMillis": ENOUGH}));
    let mut client = proxy.connect();
    client.send(GET);
    assert!(client.read_to("abc").contains("200 OK"));
    assert!(client.rest().is_empty(), "no byte is made up");
    assert_eq!(failures(&proxy), 1);
}

#[test]
fn a_compressed_stream_is_broken_off_and_not_spoilt() {
    let engine = Engine::new(|_, mut peer| {
        peer.request();
        let coded = EVENTS.replace("transfer", "content-encoding: gzip\r\ntransfer");
        peer.send(&coded);
        event(&mut peer, "abc");
        peer.rest();
    });
    let proxy = proxy(&engine, &json!({"timeouts": {"betweenChunksMillis": ENOUGH}}));
    let mut client = proxy.connect();
    client.send(GET);
    client.read_to("3\r\nabc\r\n");
    assert!(client.rest().is_empty());
}

#[test]
fn an_engine_that_breaks_off_in_the_middle_of_an_answer_has_failed() {
    let engine = streaming(|peer| {
        event(peer, "data: 0\n\n");
        peer.stream.shutdown(std::net::Shutdown::Both).unwrap();
    });
    let proxy = proxy(&engine, &json!({}));
    let mut client = proxy.connect();
    client.send(GET);
    client.read_to("data: 0\n\n");
    client.rest();
    assert_eq!(failures(&proxy), 1);
}

#[test]
fn a_connection_that_does_not_stand_in_time_is_502() {
    // Its queue of connections is full: whoever comes next waits.
    let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    full.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    full.listen(0).unwrap();
    let address = full.local_addr().unwrap().as_socket().unwrap();
    let _waiting: Vec<_> =
        (0..4).map(|_| std::net::TcpStream::connect_timeout(&address, Duration::from_millis(200))).collect();
    let parts = breaker(&json!({"timeouts": {"connectMillis": 200}}));
    let proxy = Proxy::with_document(address, &document("1", &parts));
    let answer = proxy.ask(GET);
    assert_eq!((answer.status, code(&answer).as_str()), (502, "engine-failed"));
}
