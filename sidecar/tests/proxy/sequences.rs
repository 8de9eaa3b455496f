//! Any sequence of requests on one connection, in any framing both ways, sent in any pieces.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::support::{Engine, Proxy};

#[derive(Debug, Clone)]
struct Ask {
    body: Vec<u8>,
    chunked: bool,
    answer: &'static str,
}

fn ask() -> impl Strategy<Value = Ask> {
    let length =
        prop_oneof![Just(0_usize), 1..50_usize, 4000..5000_usize, 60_000..70_000_usize, Just(300_000)];
    let answer = prop::sample::select(&["length", "chunked", "close", "empty"][..]);
    (length, any::<u8>(), any::<bool>(), answer).prop_map(|(length, seed, chunked, answer)| Ask {
        body: (0..length).map(|i| (i % 251) as u8 ^ seed).collect(),
        chunked,
        answer,
    })
}

impl Ask {
    fn bytes(&self, number: usize) -> Vec<u8> {
        let framing = if self.chunked {
            "Transfer-Encoding: chunked".to_owned()
        } else {
            format!("Content-Length: {}", self.body.len())
        };
        let mut bytes =
            format!("POST /{number} HTTP/1.1\r\nHost: a\r\nX-Answer: {}\r\n{framing}\r\n\r\n", self.answer)
                .into_bytes();
        if self.chunked {
            for chunk in self.body.chunks(7777) {
                bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                bytes.extend_from_slice(chunk);
                bytes.extend_from_slice(b"\r\n");
            }
            bytes.extend_from_slice(b"0\r\n\r\n");
        } else {
            bytes.extend_from_slice(&self.body);
        }
        bytes
    }
}

/// Answers with the request's body in the framing it asks for.
fn echo() -> Engine {
    Engine::new(|_, mut peer| {
        while let Some(request) = peer.request() {
            let body = request.body;
            match request.head.split("x-answer: ").nth(1).and_then(|rest| rest.lines().next()) {
                Some("length") => {
                    peer.send(&format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len()));
                    peer.send_bytes(&body);
                }
                Some("chunked") => {
                    peer.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
                    for chunk in body.chunks(9999) {
                        peer.send(&format!("{:x}\r\n", chunk.len()));
                        peer.send_bytes(chunk);
                        peer.send("\r\n");
                    }
                    peer.send("0\r\n\r\n");
                }
                Some("close") => {
                    peer.send("HTTP/1.1 200 OK\r\n\r\n");
                    peer.send_bytes(&body);
                    return;
                }
                _ => peer.send("HTTP/1.1 204 No Content\r\n\r\n"),
            }
        }
    })
}

#[test]
fn every_sequence_of_requests_is_answered_in_order_and_byte_identical() {
    let engine = echo();
    let proxy = Proxy::new(engine.address);
    let config = Config { cases: 40, failure_persistence: None, ..Config::default() };
    let sequences = (prop::collection::vec(ask(), 1..6), 1_usize..100_000);
    TestRunner::new(config)
        .run(&sequences, |(asks, piece)| {
            let mut client = proxy.connect();
            let mut sender = client.stream.try_clone().unwrap();
            let all: Vec<u8> = asks.iter().enumerate().flat_map(|(number, ask)| ask.bytes(number)).collect();
            let sending = std::thread::spawn(move || {
                // A request behind an answer that closes the connection may find it closed.
                all.chunks(piece).try_for_each(|piece| std::io::Write::write_all(&mut sender, piece))
            });
            for ask in &asks {
                let response = client.response();
                let expected = if ask.answer == "empty" { &[][..] } else { &ask.body };
                prop_assert!(response.body == expected, "{} bytes", response.body.len());
                if response.header("connection") == Some("close") {
                    break;
                }
            }
            drop(client);
            let _ = sending.join().unwrap();
            Ok(())
        })
        .unwrap();
}
