//! Heads and framing: what reaches the engine, what reaches the client, and what is refused.

use crate::support::{Engine, InProcess, Proxy, ok, until};

fn echo_head() -> Engine {
    Engine::answering(|request| ok(&request.head))
}

fn metric_of(proxy: &Proxy, reason: &str) -> u64 {
    proxy.metric(&format!("tidegate_protocol_refused_total{{reason=\"{reason}\"}}"))
}

#[test]
fn content_length_with_transfer_encoding_is_400_in_either_order() {
    let engine = echo_head();
    let proxy = Proxy::new(engine.address);
    for fields in
        ["Content-Length: 4\r\nTransfer-Encoding: chunked", "Transfer-Encoding: chunked\r\nContent-Length: 4"]
    {
        let mut client = proxy.connect();
        client.send(&format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n0\r\n\r\n"));
        let response = client.response();
        assert_eq!(response.status, 400, "{fields}");
        assert_eq!(response.header("x-tidegate-reason"), Some("ambiguous-framing"));
        assert!(client.rest().is_empty(), "the connection is closed");
    }
    until("both are counted", || metric_of(&proxy, "ambiguous_framing") == 2);
}

#[test]
fn a_pipelined_ambiguous_request_is_400_too_and_ends_the_connection() {
    let engine = echo_head();
    let proxy = Proxy::new(engine.address);
    let mut client = proxy.connect();
    client.send(
        "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    assert!(client.response().text().starts_with("GET /1 "));
    let second = client.response();
    assert_eq!((second.status, second.header("x-tidegate-reason")), (400, Some("ambiguous-framing")));
    assert!(client.rest().is_empty(), "what follows an ambiguous request is not answered");
}

#[test]
fn framing_that_cannot_be_trusted_is_refused() {
    let engine = echo_head();
    let proxy = Proxy::new(engine.address);
    let requests = [
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcde",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4, 5\r\n\r\nabcde",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +4\r\n\r\nabcd",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
        "GET / HTTP/1.1\r\n Host: a\r\n\r\n",
    ];
    for request in requests {
        let mut client = proxy.connect();
        client.send(request);
        assert_eq!(client.response().status, 400, "{request:?}");
        assert!(client.rest().is_empty(), "{request:?}");
    }
    let counted = || metric_of(&proxy, "malformed") + metric_of(&proxy, "ambiguous_framing");
    until("all are counted", || counted() == requests.len() as u64);
}

#[test]
fn a_request_has_exactly_one_host_that_is_one() {
    let engine = echo_head();
    let proxy = Proxy::new(engine.address);
    assert_eq!(proxy.ask("GET / HTTP/1.1\r\n\r\n").status, 400);
    assert_eq!(proxy.ask("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n").status, 400);
    let absolute = proxy.ask("GET http://one.example/p?q HTTP/1.1\r\nHost: two.example\r\n\r\n");
    assert!(absolute.text().starts_with("GET /p?q HTTP/1.1\r\nhost: one.example\r\n"), "{}", absolute.text());
    let pathless = proxy.ask("GET http://one.example?q HTTP/1.1\r\nHost: two.example\r\n\r\n");
    assert!(pathless.text().starts_with("GET /?q HTTP/1.1\r\nhost: one.example\r\n"), "{}", pathless.text());
    assert_eq!(proxy.ask("GET ?q HTTP/1.1\r\nHost: a\r\n\r\n").status, 400);
    for host in ["a b", "u@a", "a/b", "a?b", "a:b", "a, b", "[::1", "\u{e9}"] {
        let refused = proxy.ask(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!((refused.status, refused.header("x-tidegate-reason")), (400, Some("bad-host")), "{host}");
    }
    for host in ["", "[::1]:8000", "llama-0.svc:80", "a_b"] {
        let passed = proxy.ask(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert!(passed.text().contains(&format!("\r\nhost: {host}\r\n")), "{host}: {}", passed.text());
    }
    assert_eq!(proxy.ask("CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n").status, 405);
}

#[test]
fn a_chunk_size_that_overflows_ends_the_request() {
    let engine = Engine::answering(|_| ok("never"));
    let proxy = Proxy::new(engine.address);
    let mut client = proxy.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nabc");
    let rest = String::from_utf8(client.rest()).unwrap();
    assert!(!rest.contains("never"), "{rest}");
    proxy.settled();
}

#[test]
fn fields_that_belong_to_a_connection_are_not_passed_on() {
    let engine = Engine::answering(|request| {
        format!(
            "HTTP/1.1 200 OK\r\nConnection: X-Engine, keep-alive\r\nX-Engine: 1\r\nKeep-Alive: timeout=5\r\nX-Kept: 1\r\nContent-Length: {}\r\n\r\n{}",
            request.head.len(),
            request.head
        )
    });
    let proxy = Proxy::new(engine.address);
    let response = proxy.ask(
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: X-Internal, TE, keep-alive, Host\r\nX-Internal: 1\r\nTE: gzip\r\nKeep-Alive: 5\r\nProxy-Connection: x\r\nX-Mine: 1\r\n\r\n",
    );
    assert_eq!(response.text(), "GET / HTTP/1.1\r\nhost: a\r\nx-mine: 1\r\n\r\n");
    assert_eq!(response.header("x-kept"), Some("1"));
    assert_eq!(response.header("x-engine"), None);
    assert_eq!(response.header("keep-alive"), None);
}

#[test]
fn other_protocols_are_refused_and_counted() {
    let engine = echo_head();
    let proxy = Proxy::new(engine.address);
    let first_bytes: [(&[u8], &str); 3] = [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "tls"),
        (b"\x00\x01garbage", "malformed"),
        (b"SSH-2.0-OpenSSH\r\n", "malformed"),
    ];
    for (bytes, reason) in first_bytes {
        let before = metric_of(&proxy, reason);
        let mut client = proxy.connect();
        client.send_bytes(bytes);
        client.rest();
        until(reason, || metric_of(&proxy, reason) == before + 1);
    }
    let mut large = proxy.connect();
    large.send(&format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(70_000)));
    assert_eq!(large.response().status, 414, "the path alone is too long");
    let mut large = proxy.connect();
    large.send(&format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(200_000)));
    assert_eq!(large.response().status, 431);
}

#[test]
fn a_connection_that_was_not_redirected_is_refused_and_counted() {
    let config = tidegate_sidecar::proxy::Config { guarded: vec![8000], ..Default::default() };
    let proxy = InProcess::with_config(config, &tidegate_policy::PolicyDocument::default());
    let mut client = proxy.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(client.rest().is_empty());
    let counted = r#"tidegate_protocol_refused_total{reason="not_redirected"}"#;
    until("it is counted", || proxy.metric(counted) == 1);
}

#[test]
fn clients_of_http_1_0_get_what_they_understand() {
    let engine = Engine::answering(|request| {
        if request.head.starts_with("GET /chunked") {
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n"
                .to_owned()
        } else {
            ok(&request.head)
        }
    });
    let proxy = Proxy::new(engine.address);
    let plain = proxy.ask("GET /plain HTTP/1.0\r\n\r\n");
    assert!(plain.head.starts_with("HTTP/1.0 200"), "{}", plain.head);
    assert!(plain.text().contains(&format!("host: {}", engine.address)), "{}", plain.text());
    let chunked = proxy.ask("GET /chunked HTTP/1.0\r\n\r\n");
    assert_eq!(chunked.header("transfer-encoding"), None);
    assert_eq!(chunked.text(), "abcdef");
    let mut kept = proxy.connect();
    kept.send("GET /1 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert_eq!(kept.response().header("connection"), Some("keep-alive"));
    kept.send("GET /2 HTTP/1.0\r\n\r\n");
    assert!(kept.response().text().starts_with("GET /2 "));
}

#[test]
fn answers_without_a_body_keep_their_fields_and_the_connection() {
    let engine = Engine::answering(|request| {
        let status = if request.head.contains("/204") { "204 No Content" } else { "304 Not Modified" };
        if request.head.starts_with("HEAD") {
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\netag: x\r\n\r\n".to_owned()
        } else {
            format!("HTTP/1.1 {status}\r\netag: x\r\n\r\n")
        }
    });
    let proxy = Proxy::new(engine.address);
    let mut client = proxy.connect();
    client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    let head = client.read_to("\r\n\r\n");
    assert!(head.contains("content-length: 5\r\n") && head.contains("etag: x\r\n"), "{head}");
    for status in [204, 304] {
        client.send(&format!("GET /{status} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let response = client.response();
        assert_eq!((response.status, response.header("etag")), (status, Some("x")));
    }
}

#[test]
fn interim_responses_are_passed_on_and_not_taken_for_the_answer() {
    let engine = Engine::answering(|_| {
        format!(
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\nConnection: x\r\nX: 1\r\nContent-Length: 5\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n{}",
            ok("final")
        )
    });
    let proxy = Proxy::new(engine.address);
    let mut client = proxy.connect();
    for _ in 0..3 {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.read_to("\r\n\r\n"), "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n");
        assert_eq!(client.read_to("\r\n\r\n"), "HTTP/1.1 102 Processing\r\n\r\n");
        let response = client.response();
        assert_eq!((response.status, response.text()), (200, "final"));
    }
    let old = proxy.ask("GET / HTTP/1.0\r\nHost: a\r\n\r\n");
    assert_eq!((old.status, old.text()), (200, "final"), "HTTP/1.0 knows no interim responses");
}

#[test]
fn an_interim_response_arrives_before_the_engine_has_an_answer() {
    let (seen, wait_seen) = std::sync::mpsc::channel::<()>();
    let wait_seen = std::sync::Mutex::new(wait_seen);
    let engine = Engine::new(move |_, mut peer| {
        peer.request();
        peer.send("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n");
        wait_seen.lock().unwrap().recv_timeout(crate::support::DEADLINE).unwrap();
        peer.send(&ok("final"));
    });
    let proxy = Proxy::new(engine.address);
    let mut client = proxy.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.read_to("\r\n\r\n"), "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n");
    seen.send(()).unwrap();
    assert_eq!(client.response().text(), "final");
}

#[test]
fn an_engine_that_does_not_speak_http_is_502() {
    for answer in [
        "SSH-2.0-OpenSSH\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-le",
        "",
    ] {
        let engine = Engine::new(move |_, mut peer| {
            peer.request();
            peer.send(answer);
        });
        let proxy = Proxy::new(engine.address);
        let response = proxy.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(response.status, 502, "{answer:?}");
        assert_eq!(response.header("x-tidegate-reason"), Some("engine-failed"));
        proxy.settled();
    }
}
