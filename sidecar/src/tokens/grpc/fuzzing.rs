//! What is fuzzed of the readers of calls of gRPC.

// A broken promise ends the run: that is what a fuzzer looks for.
#![allow(clippy::panic, clippy::expect_used, clippy::unwrap_used)]

mod reference;

use http::{HeaderMap, HeaderValue};

use super::Method;
use super::answer::AnswerReader;
use super::frames::{FrameReader, Messages};
use super::request::RequestReader;
use super::wire::{Content, Reader, Visitor};
use crate::fuzzing::cut;

const METHODS: [Method; 4] = [Method::Infer, Method::StreamInfer, Method::Generate, Method::Embed];

/// Reads a call of gRPC: its frames, what is in them, and what that says about tokens.
pub fn calls(data: &[u8]) {
    let (step, body) = cut(data);
    framed(body, step);
    fields(body, step);
    for method in METHODS {
        requests(method, body, step);
        for encoding in ["gzip", "identity"] {
            answers(method, encoding, body, step);
        }
    }
}

/// Messages as they are, and the places where they end.
#[derive(Debug, Default, PartialEq)]
struct Whole {
    messages: Vec<(bool, u32, Vec<u8>)>,
    ended: usize,
}

impl Messages for Whole {
    fn begin(&mut self, is_packed: bool, length: u32) {
        self.messages.push((is_packed, length, Vec::new()));
    }

    fn data(&mut self, piece: &[u8]) {
        self.messages.last_mut().expect("data without a message").2.extend_from_slice(piece);
    }

    fn end(&mut self) {
        let (_, length, message) = self.messages.last().expect("an end without a message");
        assert_eq!(message.len(), *length as usize, "a message is as long as its head says");
        self.ended += 1;
    }
}

/// Frames are found where a second reader finds them, however the call is cut.
fn framed(body: &[u8], step: usize) {
    let (mut reader, mut whole, mut at, mut last) = (FrameReader::default(), Whole::default(), 0, 0);
    for piece in body.chunks(step) {
        let place = reader.feed(piece, &mut whole);
        assert!(place.is_none_or(|place| place <= piece.len()), "a message ends within its piece");
        last = place.map_or(last, |place| at + place);
        at += piece.len();
    }
    let (expected, end) = reference::frames(body);
    let ended: Vec<_> = whole.messages.iter().take(whole.ended).cloned().collect();
    assert_eq!(ended, expected);
    assert_eq!(last, end, "the last message ends where it does");
}

/// Collects all fields that it can look into, one level deep.
#[derive(Debug, Default, PartialEq)]
struct Fields {
    found: Vec<(u32, reference::Field)>,
    open: Vec<u8>,
}

impl Visitor for Fields {
    fn content(&self, _path: &[u32]) -> Content {
        Content::Bytes
    }

    fn begin(&mut self, path: &[u32]) {
        assert_eq!(path.len(), 1);
        self.open.clear();
    }

    fn number(&mut self, path: &[u32], number: u64) {
        self.found.push((path[0], reference::Field::Number(number)));
    }

    fn bytes(&mut self, _path: &[u32], piece: &[u8]) {
        self.open.extend_from_slice(piece);
    }

    fn end(&mut self, path: &[u32]) {
        // Numbers of a fixed length are passed over, and end too.
        if !self.open.is_empty() {
            self.found.push((path[0], reference::Field::Bytes(std::mem::take(&mut self.open))));
        }
    }
}

/// The fields of a message are those that prost finds.
fn fields(body: &[u8], step: usize) {
    let (mut reader, mut fields) = (Reader::default(), Fields::default());
    reader.begin(Some(body.len() as u64));
    for piece in body.chunks(step).chain([&b""[..]]) {
        reader.feed(piece, &mut fields);
    }
    assert_eq!(fields.found, reference::fields(body));
}

fn requests(method: Method, body: &[u8], step: usize) {
    let read = |step: usize| {
        let mut reader = RequestReader::new(method);
        body.chunks(step).for_each(|piece| reader.feed(piece));
        (reader.input(), reader.has_enough(), reader.finish())
    };
    let whole = read(body.len().max(1));
    assert_eq!(read(step), whole, "{method:?} in pieces of {step}");
}

fn answers(method: Method, encoding: &'static str, body: &[u8], step: usize) {
    let read = |step: usize| {
        let mut headers = HeaderMap::new();
        headers.insert("grpc-encoding", HeaderValue::from_static(encoding));
        let mut reader = AnswerReader::new(method, &headers);
        let mut at = 0;
        let mut ended = 0;
        for piece in body.chunks(step) {
            ended = reader.feed(piece).map_or(ended, |place| at + place);
            at += piece.len();
        }
        (ended, reader.tokens(7))
    };
    let whole = read(body.len().max(1));
    let cut = read(step);
    assert_eq!(cut.0, whole.0, "{method:?} ends where it does");
    // Of a packed message that is not whole, how much is seen is up to the unpacker.
    if whole.0 == body.len() || encoding != "gzip" {
        assert_eq!(cut, whole, "{method:?} in {encoding}, in pieces of {step}");
    }
}
