//! Connections: used again, closed by the engine, drained.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::nobody::nobody;
use crate::support::{DEADLINE, Engine, InProcess, Proxy, ok, until};

#[test]
fn one_client_connection_uses_one_engine_connection() {
    let engine = Engine::new(|connection, mut peer| {
        while let Some(request) = peer.request() {
            peer.send(&ok(&format!("{connection}: {}", request.head.lines().next().unwrap())));
        }
    });
    let proxy = Proxy::new(engine.address);
    let mut client = proxy.connect();
    let (mut began, mut connection, mut used_again) = (Instant::now(), 0, 0);
    for number in 0..50 {
        let before = std::mem::replace(&mut began, Instant::now());
        client.send(&format!("POST /{number} HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"));
        let answer = client.response();
        let (used, line) = answer.text().split_once(": ").unwrap();
        assert_eq!(line, format!("POST /{number} HTTP/1.1"));
        let used: usize = used.parse().unwrap();
        // What is not to be sent twice is not entrusted to a connection that was idle for a second: no longer than it took
        // since the request before.
        if before.elapsed() < Duration::from_secs(1) {
            assert_eq!(used, connection, "request {number}");
            used_again += 1;
        }
        connection = used;
    }
    assert!(used_again > 1, "every request was seconds apart from the next");
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let engine = Engine::answering(|request| ok(request.head.lines().next().unwrap()));
    let proxy = Proxy::new(engine.address);
    let mut client = proxy.connect();
    let requests: Vec<_> =
        (0..20).map(|number| format!("GET /{number} HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
    client.send(&requests.concat());
    for number in 0..20 {
        assert_eq!(client.response().text(), format!("GET /{number} HTTP/1.1"));
    }
}

#[test]
fn a_connection_goes_on_after_a_silence_with_what_it_sent_before() {
    let engine = Engine::answering(|request| ok(request.head.lines().next().unwrap()));
    let proxy = Proxy::new(engine.address);
    let mut client = proxy.connect();
    // Its buffers are given back in each silence; what lies in them is not.
    client.send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /2 HTTP/1.1\r\nHo");
    assert_eq!(client.response().text(), "GET /1 HTTP/1.1");
    std::thread::sleep(Duration::from_millis(1500));
    client.send("st: a\r\nContent-Length: 4\r\n\r\nab");
    std::thread::sleep(Duration::from_millis(1500));
    client.send("cdGET /3 HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.response().text(), "POST /2 HTTP/1.1");
    assert_eq!(client.response().text(), "GET /3 HTTP/1.1");
    std::thread::sleep(Duration::from_millis(1500));
    client.send("GET /4 HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.response().text(), "GET /4 HTTP/1.1");
}

#[test]
fn an_engine_that_closed_its_idle_connection_costs_no_request() {
    let (closed, has_closed) = std::sync::mpsc::channel();
    let engine = Engine::new(move |_, mut peer| {
        peer.request();
        peer.send(&ok("once"));
        drop(peer);
        closed.send(()).unwrap();
    });
    let proxy = Proxy::new(engine.address);
    let mut client = proxy.connect();
    for request in
        ["GET / HTTP/1.1\r\nHost: a\r\n\r\n", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}"]
    {
        for wait in [0, 20, 200] {
            std::thread::sleep(Duration::from_millis(wait));
            client.send(request);
            assert_eq!(client.response().text(), "once");
            // It has to have arrived: a request that crosses the close on the way cannot be saved.
            has_closed.recv_timeout(DEADLINE).unwrap();
        }
    }
}

#[test]
fn a_request_that_may_have_been_processed_is_not_sent_again() {
    let requests = Arc::new(AtomicUsize::new(0));
    let seen = requests.clone();
    let engine = Engine::new(move |_, mut peer| {
        peer.request();
        peer.send(&ok("first"));
        // The second request is read, and the connection closed without an answer to it.
        if peer.request().is_some() {
            seen.fetch_add(1, Ordering::SeqCst);
        }
    });
    let proxy = Proxy::new(engine.address);
    let mut client = proxy.connect();
    let mut ask = || {
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}");
        client.response().status
    };
    assert_eq!(ask(), 200);
    // The second, or a later one where its connection was idle for so long that it is not used again.
    let failed = (0..30).map(|_| ask()).find(|status| *status != 200);
    assert_eq!(failed, Some(502));
    assert_eq!(requests.load(Ordering::SeqCst), 1);
    let mut idempotent = proxy.connect();
    for _ in 0..4 {
        idempotent.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(idempotent.response().text(), "first", "an idempotent request is sent again");
    }
}

#[test]
fn an_idle_engine_connection_is_closed_by_the_proxy_and_the_client_s_stays() {
    let (closed, wait_closed) = std::sync::mpsc::channel();
    let engine = Engine::new(move |_, mut peer| {
        peer.request();
        peer.send(&ok("once"));
        assert!(peer.rest().is_empty(), "it is not used again, and closed by the other side");
        closed.send(()).unwrap();
    });
    let proxy = Proxy::new(engine.address);
    let mut client = proxy.connect();
    for _ in 0..2 {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.response().text(), "once");
        wait_closed.recv_timeout(DEADLINE).unwrap();
    }
}

#[test]
fn an_engine_that_is_not_there_is_502() {
    let nobody = nobody();
    let proxy = Proxy::new(nobody);
    let response = proxy.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(response.status, 502);
    assert!(response.text().contains("\"code\":\"engine-failed\""), "{}", response.text());
    until("it is counted", || proxy.metric("tidegate_responses_total{code_class=\"5xx\"}") == 1);
}

#[test]
fn while_draining_answers_close_their_connections_and_new_ones_are_served() {
    let engine = Engine::answering(|request| ok(request.head.lines().next().unwrap()));
    let proxy = InProcess::new(engine.address);
    let mut before = proxy.connect();
    before.send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(before.response().header("connection"), None);
    proxy.shared.drain.start();
    before.send("GET /2 HTTP/1.1\r\nHost: a\r\n\r\n");
    let response = before.response();
    assert_eq!((response.header("connection"), response.text()), (Some("close"), "GET /2 HTTP/1.1"));
    assert!(before.rest().is_empty());
    let after = proxy.ask("GET /3 HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!((after.header("connection"), after.text()), (Some("close"), "GET /3 HTTP/1.1"));
}

#[test]
fn a_drain_waits_for_a_stream_to_its_end() {
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let engine = Engine::new(move |_, mut peer| {
        peer.request();
        peer.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n");
        wait.lock().unwrap().recv().unwrap();
        peer.send("0\r\n\r\n");
    });
    let proxy = InProcess::new(engine.address);
    let mut client = proxy.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    client.read_to("abc\r\n");
    proxy.shared.drain.start();
    assert_eq!(proxy.shared.drain.in_flight(), 1);
    go.send(()).unwrap();
    assert!(client.chunk().is_empty());
    until("the stream has ended", || proxy.shared.drain.in_flight() == 0);
}

#[test]
fn a_drain_that_starts_while_the_engine_works_still_closes_the_connection() {
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let engine = Engine::new(move |_, mut peer| {
        peer.request();
        wait.lock().unwrap().recv().unwrap();
        peer.send(&ok("late"));
    });
    let proxy = InProcess::new(engine.address);
    let mut client = proxy.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    until("the request is in flight", || proxy.shared.drain.in_flight() == 1);
    proxy.shared.drain.start();
    go.send(()).unwrap();
    let response = client.response();
    assert_eq!((response.text(), response.header("connection")), ("late", Some("close")));
}

#[test]
fn stopping_ends_the_workers() {
    let engine = Engine::answering(|_| ok(""));
    let proxy = InProcess::new(engine.address);
    proxy.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let address = proxy.address;
    drop(proxy);
    assert!(std::net::TcpStream::connect(address).is_err());
}

#[test]
fn a_head_that_does_not_arrive_is_given_up_and_counted() {
    let engine = Engine::answering(|_| ok(""));
    let proxy = Proxy::new(engine.address);
    let mut slow = proxy.connect();
    slow.send("GET / HTTP/1.1\r\nHo");
    assert!(slow.rest().is_empty());
    until("it is counted", || proxy.metric(r#"tidegate_protocol_refused_total{reason="head_timeout"}"#) == 1);
}
