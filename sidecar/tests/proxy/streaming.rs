//! Bodies: streamed both ways, whole, and cancelled when somebody leaves.

use std::sync::mpsc;
use std::time::Duration;

use crate::support::{DEADLINE, Engine, Proxy, ok};

/// Bytes that do not repeat at any power of two.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 31 % 251) as u8).collect()
}

#[test]
fn an_event_arrives_before_the_engine_has_made_the_next() {
    let (seen, wait_seen) = mpsc::sync_channel::<()>(1);
    let engine = Engine::of_events(wait_seen);
    let proxy = Proxy::new(engine.address);
    let mut client = proxy.connect();
    client.send("POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}");
    let head = client.read_to("\r\n\r\n");
    assert!(head.contains("content-type: text/event-stream"), "{head}");
    for number in 0..20 {
        assert_eq!(client.chunk(), format!("data: {number}\n\n").into_bytes());
        seen.send(()).unwrap();
    }
    assert!(client.chunk().is_empty());
    proxy.settled();
    assert_eq!(proxy.metric("tidegate_time_to_first_byte_seconds_count"), 1);
    assert_eq!(proxy.metric("tidegate_request_duration_seconds_count"), 1);
}

#[test]
fn large_bodies_are_byte_identical_in_every_framing() {
    let body = pattern(10 << 20);
    let engine = Engine::new(|_, mut peer| {
        while let Some(request) = peer.request() {
            let chunked = request.head.contains("/chunked");
            let framing = if chunked {
                "transfer-encoding: chunked".to_owned()
            } else {
                format!("content-length: {}", request.body.len())
            };
            peer.send(&format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n"));
            for piece in request.body.chunks(if chunked { 77_777 } else { usize::MAX }) {
                if chunked {
                    peer.send(&format!("{:x}\r\n", piece.len()));
                }
                peer.send_bytes(piece);
                if chunked {
                    peer.send("\r\n");
                }
            }
            if chunked {
                peer.send("0\r\n\r\n");
            }
        }
    });
    let proxy = Proxy::new(engine.address);
    let mut client = proxy.connect();
    client.send(&format!("POST /length HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len()));
    client.send_bytes(&body);
    assert!(client.response().body == body);
    client.send("POST /chunked HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    for piece in body.chunks(123_456) {
        client.send(&format!("{:x}\r\n", piece.len()));
        client.send_bytes(piece);
        client.send("\r\n");
    }
    client.send("0\r\n\r\n");
    assert!(client.response().body == body);
}

#[test]
fn a_body_that_comes_in_small_pieces_stays_whole() {
    let engine = Engine::answering(|request| ok(std::str::from_utf8(&request.body).unwrap()));
    let proxy = Proxy::new(engine.address);
    let mut client = proxy.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    for piece in ["1\r\na", "\r\n", "2\r", "\nbc\r\n5000\r\n", &"d".repeat(0x5000), "\r\n0\r\nx-t: 1\r\n\r\n"]
    {
        client.send(piece);
    }
    assert_eq!(client.response().text(), format!("abc{}", "d".repeat(0x5000)));
}

#[test]
fn a_response_without_length_ends_with_the_engine_s_connection() {
    let engine = Engine::new(|_, mut peer| {
        peer.request();
        peer.send("HTTP/1.1 200 OK\r\n\r\nall of it");
    });
    let proxy = Proxy::new(engine.address);
    let mut client = proxy.connect();
    for _ in 0..2 {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.response().text(), "all of it");
    }
}

#[test]
fn trailers_of_the_engine_reach_a_client_that_wants_them() {
    let engine = Engine::answering(|_| {
        "HTTP/1.1 200 OK\r\nTrailer: x-sum\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx-sum: 9\r\n\r\n"
            .to_owned()
    });
    let proxy = Proxy::new(engine.address);
    let mut client = proxy.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: TE\r\nTE: trailers\r\n\r\n");
    client.read_to("\r\n\r\n");
    assert_eq!(client.read_to("\r\n\r\n"), "3\r\nabc\r\n0\r\nx-sum: 9\r\n\r\n");
}

#[test]
fn trailers_of_a_client_reach_the_engine_without_those_that_frame_or_route() {
    let engine = Engine::new(|_, mut peer| {
        let head = peer.read_to("\r\n\r\n");
        assert!(head.contains("\r\ntransfer-encoding: chunked\r\n"), "{head}");
        let body = peer.read_to("\r\n\r\n");
        peer.send(&ok(&body));
    });
    let proxy = Proxy::new(engine.address);
    let answer = proxy.ask(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 11\r\nContent-Length: 7\r\nHost: b\r\n\r\n",
    );
    assert_eq!(answer.text(), "5\r\nhello\r\n0\r\nx-sum: 11\r\n\r\n");
}

#[test]
fn a_client_that_leaves_cancels_its_request_at_the_engine() {
    let (arrived, wait_arrived) = mpsc::channel();
    let (gone, wait_gone) = mpsc::channel();
    let engine = Engine::new(move |_, mut peer| {
        let request = peer.request().unwrap();
        arrived.send(()).unwrap();
        if request.head.contains("/streaming") {
            peer.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n");
        }
        // Returns only when the proxy closes.
        peer.rest();
        gone.send(()).unwrap();
    });
    let proxy = Proxy::new(engine.address);
    let mut waiting = proxy.connect();
    waiting.send("POST /silent HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}");
    wait_arrived.recv_timeout(DEADLINE).unwrap();
    drop(waiting);
    wait_gone.recv_timeout(DEADLINE).unwrap();
    let mut streaming = proxy.connect();
    streaming.send("GET /streaming HTTP/1.1\r\nHost: a\r\n\r\n");
    streaming.read_to("abc");
    drop(streaming);
    wait_gone.recv_timeout(DEADLINE).unwrap();
    proxy.settled();
}

#[test]
fn a_client_that_leaves_during_its_upload_cancels_it() {
    let engine = Engine::new(move |_, mut peer| {
        peer.rest();
    });
    let proxy = Proxy::new(engine.address);
    let mut client = proxy.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nabc");
    crate::support::until("the request is in flight", || proxy.in_flight() == 1);
    drop(client);
    proxy.settled();
}

#[test]
fn an_engine_that_dies_in_the_middle_of_a_response_ends_the_client_s_connection() {
    for framing in ["content-length: 100", "transfer-encoding: chunked"] {
        let engine = Engine::new(move |_, mut peer| {
            peer.request();
            peer.send(&format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n5\r\nhello\r\n"));
        });
        let proxy = Proxy::new(engine.address);
        let mut client = proxy.connect();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let all = String::from_utf8(client.rest()).unwrap();
        assert!(all.contains("hello"), "{framing}: what had arrived is passed on: {all}");
        assert!(!all.ends_with("0\r\n\r\n"), "{framing}: the answer must not look whole");
        proxy.settled();
    }
}

#[test]
fn an_answer_that_comes_before_the_request_is_whole_is_passed_on() {
    let engine = Engine::new(|_, mut peer| {
        peer.read_to("\r\n\r\n");
        peer.send("HTTP/1.1 413 Content Too Large\r\ncontent-length: 3\r\nconnection: close\r\n\r\nbig");
    });
    let proxy = Proxy::new(engine.address);
    let mut client = proxy.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nabc");
    let response = client.response();
    assert_eq!((response.status, response.text()), (413, "big"));
}

#[test]
fn both_ways_at_once_flow_when_the_engine_answers_while_it_reads() {
    let engine = Engine::new(|_, mut peer| {
        peer.read_to("\r\n\r\n");
        peer.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
        loop {
            let chunk = peer.chunk();
            peer.send(&format!("{:x}\r\n", chunk.len()));
            peer.send_bytes(&chunk);
            peer.send("\r\n");
            if chunk.is_empty() {
                return;
            }
        }
    });
    let proxy = Proxy::new(engine.address);
    let mut client = proxy.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.read_to("\r\n\r\n");
    for word in ["one", "two", "three"] {
        client.send(&format!("{:x}\r\n{word}\r\n", word.len()));
        assert_eq!(client.chunk(), word.as_bytes());
    }
    client.send("0\r\n\r\n");
    assert!(client.chunk().is_empty());
}

#[test]
fn a_client_that_expects_100_gets_it_after_admission_and_only_once() {
    let engine = Engine::answering(|request| {
        assert_eq!(request.header("expect"), None);
        ok(std::str::from_utf8(&request.body).unwrap())
    });
    let proxy = Proxy::new(engine.address);
    let mut client = proxy.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    assert_eq!(client.read_to("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
    client.send("hello");
    let response = client.response();
    assert_eq!((response.status, response.text()), (200, "hello"));
}

#[test]
fn a_client_that_reads_nothing_holds_back_the_engine() {
    let (sent, sent_bytes) = mpsc::channel();
    let engine = Engine::new(move |_, mut peer| {
        peer.request();
        peer.send("HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n");
        peer.stream.set_write_timeout(Some(Duration::from_secs(2))).unwrap();
        let piece = vec![0; 1 << 20];
        let mut count = 0_usize;
        while std::io::Write::write_all(&mut peer.stream, &piece).is_ok() {
            count += piece.len();
        }
        sent.send(count).unwrap();
    });
    let proxy = Proxy::new(engine.address);
    let mut client = proxy.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let sent = sent_bytes.recv_timeout(DEADLINE).unwrap();
    assert!(sent < 100 << 20, "{sent} bytes were taken for a client that reads none");
}
