//! What is fuzzed of the readers of prompts, answers and streams.

// A broken promise ends the run: that is what a fuzzer looks for.
#![allow(clippy::panic, clippy::expect_used, clippy::unwrap_used)]

mod json;
mod reference;

use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue};

use super::events::EventReader;
use super::prompt::{Prompt, PromptReader};
use super::usage::UsageReader;
use super::{Asked, Meter};
use crate::fallback::model::rename;
use crate::fuzzing::cut;

/// Reads a body as a prompt.
pub fn prompts(data: &[u8]) {
    let (step, body) = cut(data);
    let whole = prompt(body, body.len().max(1));
    assert_eq!(prompt(body, step), whole, "in pieces of {step}");
    assert!(u64::from(whole.input) <= 800 * (body.len() as u64 + 1), "{} tokens", whole.input);
    if let (Some(model), Some((from, to))) = (&whole.model, whole.model_at) {
        let name = &body[usize::try_from(from).unwrap()..usize::try_from(to).unwrap()];
        if let Ok(read) = serde_json::from_slice::<String>(name) {
            assert_eq!(&*read, &**model, "the name stands where it is said to");
        }
    }
    json::agrees(body, step);
    if let Ok(value) = serde_json::from_slice::<serde_json::Value>(body) {
        reference::prompt(&value, body, &whole);
        renamed(body, value);
    }
    // Nothing that a client writes makes its reservation overflow.
    let asked = Asked::new("/v1/chat/completions", Some(whole));
    let _ = asked.tokens(u32::MAX);
}

/// As the proxy reads it: no further than tells something.
fn prompt(body: &[u8], step: usize) -> Prompt {
    let mut reader = PromptReader::default();
    for piece in body.chunks(step) {
        reader.feed(piece);
    }
    reader.finish(Some(body.len() as u64))
}

/// Another name of the model changes the name and nothing else.
fn renamed(body: &[u8], mut value: serde_json::Value) {
    let Some(renamed) = rename(body, "a \"b\"") else { return };
    let again: serde_json::Value = serde_json::from_slice(&renamed).expect("it is JSON still");
    if let Some(model) = value.get_mut("model").filter(|model| model.is_string()) {
        *model = "a \"b\"".into();
        assert_eq!(again, value);
    }
}

/// Reads an answer that is no stream, as it is and unpacked.
pub fn usage(data: &[u8]) {
    let (step, body) = cut(data);
    json::agrees(body, step);
    let read = |step: usize| {
        let mut reader = UsageReader::default();
        body.chunks(step).for_each(|piece| reader.feed(piece));
        (reader.tokens(7), reader.is_exact())
    };
    assert_eq!(read(step), read(body.len().max(1)), "in pieces of {step}");
    for (kind, coding) in
        [("application/json", "gzip"), ("text/event-stream", "gzip"), ("application/json", "identity")]
    {
        let metered = |step: usize| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding));
            let mut meter = Meter::new(&headers);
            let places: Vec<usize> = body.chunks(step).filter_map(|piece| meter.feed(piece)).collect();
            assert!(places.iter().all(|place| *place <= step), "an event ends within its piece");
            meter.tokens(7)
        };
        assert_eq!(metered(step), metered(body.len().max(1)), "{kind} in {coding}, in pieces of {step}");
    }
}

/// Reads a stream of events.
pub fn stream(data: &[u8]) {
    let (step, body) = cut(data);
    let read = |step: usize| {
        let (mut events, mut usage) = (EventReader::default(), UsageReader::of_events());
        let (mut at, mut ended) = (0, None);
        for piece in body.chunks(step) {
            let place = events.feed(piece, &mut usage);
            assert!(place.is_none_or(|place| place <= piece.len()), "an event ends within its piece");
            ended = place.map(|place| at + place).or(ended);
            at += piece.len();
        }
        // A line feed that comes in a piece of its own ends the same line as the carriage return before it.
        let ended = ended.map(|end| match (body[end - 1], body.get(end)) {
            (b'\r', Some(b'\n')) => end + 1,
            _ => end,
        });
        (usage.tokens(7), usage.is_exact(), ended)
    };
    let whole = read(body.len().max(1));
    assert_eq!(read(step), whole, "in pieces of {step}");
    assert_eq!(reference::stream(body), whole, "as the HTML standard reads it");
}
