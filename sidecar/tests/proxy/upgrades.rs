//! Switched protocols and opaque ports.

use std::time::Duration;

use crate::support::{Engine, Proxy, ok, until};

const UPGRADE: &str =
    "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n";

#[test]
fn bytes_flow_both_ways_after_101_and_not_before() {
    let engine = Engine::new(|_, mut peer| {
        let request = peer.request().unwrap();
        assert_eq!(request.header("connection"), Some("upgrade"));
        assert_eq!(request.header("upgrade"), Some("websocket"));
        assert!(peer.is_silent_for(Duration::from_millis(300)), "early bytes came before 101");
        peer.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\nhello");
        assert_eq!(peer.read_exactly(5), b"early");
        let ping = peer.read_exactly(4);
        peer.send_bytes(&ping);
        assert!(peer.rest().is_empty());
    });
    let proxy = Proxy::new(engine.address);
    let mut client = proxy.connect();
    client.send(&format!("{UPGRADE}\r\nearly"));
    let response = client.response();
    assert_eq!(response.status, 101);
    assert_eq!(response.header("upgrade"), Some("websocket"));
    assert_eq!(response.header("connection"), Some("upgrade"));
    assert_eq!(response.header("sec-websocket-accept"), Some("x"));
    assert_eq!(client.read_exactly(5), b"hello");
    client.send("ping");
    assert_eq!(client.read_exactly(4), b"ping");
    until("a switched connection is in flight", || proxy.in_flight() == 1);
    drop(client);
    proxy.settled();
}

#[test]
fn a_declined_upgrade_leaves_an_ordinary_connection() {
    let engine = Engine::answering(|request| ok(request.head.lines().next().unwrap()));
    let proxy = Proxy::new(engine.address);
    let mut client = proxy.connect();
    client.send(&format!("{UPGRADE}\r\n"));
    assert_eq!(client.response().text(), "GET /ws HTTP/1.1");
    client.send("GET /next HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.response().text(), "GET /next HTTP/1.1");
}

#[test]
fn http_2_in_the_clear_is_not_upgraded_to() {
    let engine = Engine::answering(|request| ok(&request.head));
    let proxy = Proxy::new(engine.address);
    let response = proxy.ask(
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
    );
    assert_eq!(response.text(), "GET / HTTP/1.1\r\nhost: a\r\n\r\n");
}
