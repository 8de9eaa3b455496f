//! HTTP/2 on the client's side, in front of an engine that speaks HTTP/1.1.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::Request;
use serde_json::Value;

use crate::document;
use crate::rpc::{Frames, client, collected, data, trailers, whole};
use crate::start;
use crate::support::{DEADLINE, Engine, ok};

fn get(path: &str) -> Request<Frames> {
    Request::get(format!("http://engine{path}")).body(whole([])).unwrap()
}

#[tokio::test]
async fn http_2_requests_reach_an_http_1_1_engine_as_such() {
    let engine = Engine::answering(|request| ok(&format!("{}{:?}", request.head, request.body)));
    let sidecar = start(engine.address, &[]);
    let mut client = client(sidecar.data).await;
    let request = Request::post("http://llama:8000/v1/completions?x=1")
        .header("cookie", "a=1")
        .header("cookie", "b=2")
        .header("te", "trailers")
        .header("content-length", "3")
        .body(whole([data("abc")]))
        .unwrap();
    let response = client.send_request(request).await.unwrap();
    assert_eq!((response.status(), response.version()), (http::StatusCode::OK, http::Version::HTTP_2));
    let (_, body) = collected(response).await;
    assert_eq!(
        body,
        "POST /v1/completions?x=1 HTTP/1.1\r\nhost: llama:8000\r\ncookie: a=1; b=2\r\nte: trailers\r\ncontent-length: 3\r\n\r\n[97, 98, 99]"
    );
}

#[tokio::test]
async fn streams_of_one_connection_run_side_by_side_and_reuse_their_engine_connections() {
    let connections = Arc::new(AtomicUsize::new(0));
    let count = connections.clone();
    let engine = Engine::new(move |number, mut peer| {
        count.fetch_max(number + 1, Ordering::SeqCst);
        while let Some(request) = peer.request() {
            peer.send(&ok(request.head.lines().next().unwrap()));
        }
    });
    let sidecar = start(engine.address, &[]);
    let client = client(sidecar.data).await;
    for _ in 0..5 {
        let mut asked = tokio::task::JoinSet::new();
        for number in 0..20 {
            let mut client = client.clone();
            asked.spawn(async move {
                let response = client.send_request(get(&format!("/{number}"))).await.unwrap();
                (number, collected(response).await.1)
            });
        }
        while let Some(answered) = asked.join_next().await {
            let (number, body) = answered.unwrap();
            assert_eq!(body, format!("GET /{number} HTTP/1.1"));
        }
    }
    // An answer that its client has may be a moment away from leaving its connection to the next, and a machine that does
    // something else for seconds lets connections grow too old for that: fewer than the requests is what is certain.
    assert!(connections.load(Ordering::SeqCst) < 100, "{}", connections.load(Ordering::SeqCst));
}

#[tokio::test]
async fn bodies_and_trailers_are_byte_identical_over_http_2() {
    let engine = Engine::new(|_, mut peer| {
        while let Some(request) = peer.request() {
            peer.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
            for piece in request.body.chunks(77_777) {
                peer.send(&format!("{:x}\r\n", piece.len()));
                peer.send_bytes(piece);
                peer.send("\r\n");
            }
            peer.send("0\r\nx-sum: 9\r\n\r\n");
        }
    });
    let sidecar = start(engine.address, &[]);
    let sent: Vec<u8> = (0..5 << 20).map(|i: u32| (i.wrapping_mul(31) % 251) as u8).collect();
    let pieces = sent.chunks(123_456).map(|piece| data(piece.to_vec()));
    let body = whole(pieces.chain([trailers(&[("x-mine", "1")])]));
    let request = Request::post("http://engine/").body(body).unwrap();
    let response = client(sidecar.data).await.send_request(request).await.unwrap();
    let (trailers, received) = collected(response).await;
    assert!(received == sent);
    assert_eq!(trailers["x-sum"], "9");
}

#[tokio::test]
async fn an_event_passes_over_http_2_before_the_engine_has_made_the_next() {
    let (seen, wait_seen) = mpsc::sync_channel::<()>(1);
    let engine = Engine::of_events(wait_seen);
    let sidecar = start(engine.address, &[]);
    let mut response = client(sidecar.data).await.send_request(get("/")).await.unwrap();
    for number in 0..20 {
        let event = response.body_mut().frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(event, format!("data: {number}\n\n"));
        seen.send(()).unwrap();
    }
    assert!(collected(response).await.1.is_empty());
}

#[tokio::test]
async fn limits_hold_over_http_2_and_refuse_as_over_http_1() {
    let engine = Engine::answering(|_| ok("fine"));
    let (_file, path) = document::limit_of(2);
    let sidecar = start(engine.address, &["--policy-file", &path]);
    let mut client = client(sidecar.data).await;
    for expected in [200, 200, 429] {
        let request = Request::post("http://engine/").body(whole([data("x".repeat(100_000))])).unwrap();
        let response = client.send_request(request).await.unwrap();
        assert_eq!(response.status(), expected);
        assert!(response.headers().get("connection").is_none());
        if expected == 429 {
            assert!(response.headers().contains_key("retry-after-ms"));
            let body: Value = serde_json::from_slice(&collected(response).await.1).unwrap();
            assert_eq!(body["error"]["code"], "limit");
        }
    }
    let metrics = client.send_request(get("/metrics")).await.unwrap();
    assert_eq!(
        metrics.status(),
        200,
        "a refused upload does not spoil the connection, and scrapes are not limited"
    );
}

#[tokio::test]
async fn a_client_that_reads_nothing_over_http_2_holds_back_the_engine_and_no_other_stream() {
    let (sent, sent_bytes) = mpsc::channel();
    let engine = Engine::new(move |_, mut peer| {
        if peer.request().unwrap().head.starts_with("GET /small") {
            peer.send(&ok("small"));
            return;
        }
        peer.send("HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n");
        peer.stream.set_write_timeout(Some(Duration::from_secs(2))).unwrap();
        let (piece, mut count) = (vec![0; 1 << 20], 0_usize);
        while std::io::Write::write_all(&mut peer.stream, &piece).is_ok() {
            count += piece.len();
        }
        sent.send(count).unwrap();
    });
    let sidecar = start(engine.address, &[]);
    let mut slow = client(sidecar.data).await;
    let unread = slow.send_request(get("/large")).await.unwrap();
    let count =
        tokio::task::spawn_blocking(move || sent_bytes.recv_timeout(DEADLINE).unwrap()).await.unwrap();
    assert!(count < 30 << 20, "{count} bytes were taken for a client that reads none");
    let mut other = client(sidecar.data).await;
    assert_eq!(collected(other.send_request(get("/small")).await.unwrap()).await.1, "small");
    drop(unread);
}

#[tokio::test]
async fn a_stream_that_is_reset_cancels_its_request_at_the_engine() {
    let (gone, wait_gone) = mpsc::channel();
    let engine = Engine::new(move |_, mut peer| {
        peer.request().unwrap();
        peer.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n");
        // Returns only when the sidecar closes.
        peer.rest();
        gone.send(()).unwrap();
    });
    let sidecar = start(engine.address, &[]);
    let mut client = client(sidecar.data).await;
    let mut response = client.send_request(get("/")).await.unwrap();
    assert_eq!(response.body_mut().frame().await.unwrap().unwrap().into_data().unwrap(), "abc");
    drop(response);
    tokio::task::spawn_blocking(move || wait_gone.recv_timeout(DEADLINE).unwrap()).await.unwrap();
    let again = client.send_request(get("/")).await.unwrap();
    assert_eq!(again.status(), 200, "the connection stays");
}
