//! What is fuzzed of the codec: answers of engines beside a second reader of our own, requests of clients beside hyper.

// A broken promise ends the run: that is what a fuzzer looks for.
#![allow(clippy::panic, clippy::expect_used, clippy::unwrap_used)]

mod reference;
mod requests;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};

use super::codec::{BodyDecoder, Decoded, MAX_HEAD, ResponseHead, parse_response};
use super::sse::EventCounter;
use crate::fuzzing::cut;

/// More interim responses are not looked at.
const MOST_INTERIM: usize = 64;

/// One answer of an engine, as it is passed on.
#[derive(Debug, Default, PartialEq)]
struct Answer {
    interim: Vec<StatusCode>,
    status: StatusCode,
    headers: HeaderMap,
    keep_alive: bool,
    body: Vec<u8>,
    trailers: HeaderMap,
    /// Bytes behind it.
    left: usize,
    is_whole: bool,
}

/// Reads what an engine sends as the answer to a request.
pub fn answers(data: &[u8]) {
    let (step, wire) = cut(data);
    let method = if data.first().is_some_and(|first| first & 0x80 != 0) { Method::HEAD } else { Method::GET };
    let whole = answer(wire, wire.len().max(1), &method);
    assert_eq!(answer(wire, step, &method), whole, "in pieces of {step}");
    let Some(answer) = whole else { return };
    assert!(answer.body.len() + answer.left <= wire.len(), "no more comes out than went in");
    for (name, value) in answer.headers.iter().chain(&answer.trailers) {
        assert!(!value.as_bytes().iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)), "{name}: {value:?}");
        let stays = ["connection", "transfer-encoding", "keep-alive", "te", "upgrade", "proxy-connection"];
        assert!(!stays.contains(&name.as_str()), "{name} stays on its connection");
    }
    if answer.is_whole && answer.keep_alive {
        reference::check(wire, &answer, method == Method::HEAD);
    }
    events(wire, step);
}

fn answer(wire: &[u8], step: usize, method: &Method) -> Option<Answer> {
    let mut pieces = wire.chunks(step);
    let (mut received, mut answer) = (Bytes::new(), Answer::default());
    let more = |received: &mut Bytes| {
        let piece = pieces.next()?;
        *received = [&received[..], piece].concat().into();
        Some(())
    };
    let mut more = more;
    let mut decoder = loop {
        match parse_response(&mut received, method).ok()? {
            Some(head) if head.status.is_informational() && answer.interim.len() < MOST_INTERIM => {
                answer.interim.push(head.status);
            }
            Some(head) => break take_head(head, &mut answer),
            None => more(&mut received)?,
        }
        assert!(received.len() <= MAX_HEAD + wire.len(), "no head is waited for without end");
    };
    loop {
        match decoder.decode(&mut received).ok()? {
            Decoded::Data(data) => answer.body.extend_from_slice(&data),
            Decoded::Trailers(trailers) => answer.trailers = trailers,
            Decoded::End => {}
            Decoded::NeedMore if more(&mut received).is_some() => {}
            Decoded::NeedMore => {
                answer.is_whole = decoder.closed().is_ok();
                break;
            }
        }
        if decoder.is_done() {
            answer.is_whole = true;
            break;
        }
    }
    answer.left = received.len() + pieces.map(<[u8]>::len).sum::<usize>();
    Some(answer)
}

fn take_head(head: ResponseHead, answer: &mut Answer) -> BodyDecoder {
    let ResponseHead { status, headers, body, keep_alive, upgrade: _ } = head;
    (answer.status, answer.headers, answer.keep_alive) = (status, headers, keep_alive);
    body
}

fn events(wire: &[u8], step: usize) {
    let count = |step: usize| {
        let mut counter = EventCounter::default();
        wire.chunks(step).for_each(|piece| counter.feed(piece));
        counter.count()
    };
    assert_eq!(count(step), count(wire.len().max(1)), "events, in pieces of {step}");
}

/// Reads what a client sends as requests, beside hyper.
pub fn requests(data: &[u8]) {
    let (step, wire) = cut(data);
    requests::check(wire, step);
}
