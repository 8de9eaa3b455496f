//! Values of header fields: who a client is behind proxies, the caller's trace, and what a client accepts.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::quoted::split;
use crate::refusal::{Dialect, Form};
use crate::trace::Context;

/// Reads the bytes as values of `X-Forwarded-For`, `Forwarded`, `traceparent` and `Accept`, a line for each.
pub fn headers(data: &[u8]) {
    crate::identity::fuzzing::forwarded(data);
    traceparent(data);
    let accepted = fields("accept", data);
    // Whatever is accepted, there is a form to answer in; of an `Accept` of nothing it is that of OpenAI.
    let form = Form::of(Dialect::OpenAi, &accepted);
    assert!(form == Form::OpenAi || find(data, b"problem"), "nobody asked for problems");
    for separator in [b',', b';'] {
        let parts: Vec<&[u8]> = split(data, separator).collect();
        assert_eq!(parts.join(&separator), data, "nothing is lost by splitting");
    }
}

/// The lines that can be values of a field.
pub(crate) fn fields(name: &'static str, data: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for value in
        data.split(|byte| *byte == b'\n').take(8).filter_map(|line| HeaderValue::from_bytes(line).ok())
    {
        headers.append(HeaderName::from_static(name), value);
    }
    headers
}

fn find(data: &[u8], what: &[u8]) -> bool {
    data.to_ascii_lowercase().windows(what.len()).any(|window| window == what)
}

/// What is accepted is written as the specification says; everything that is written so is accepted.
fn traceparent(data: &[u8]) {
    let headers = fields("traceparent", data);
    let context = Context::of(&headers);
    let mut values = headers.values().map(HeaderValue::as_bytes);
    let expected = values.next().filter(|_| values.next().is_none()).and_then(reference);
    let read = context.map(|context| (context.trace.to_string(), context.span.to_string(), context.sampled));
    assert_eq!(read, expected);
    if let Some(context) = context {
        let again =
            HeaderMap::from_iter([(HeaderName::from_static("traceparent"), context.header().unwrap())]);
        assert_eq!(Context::of(&again), Some(context), "it is read back");
    }
}

/// The grammar of the specification, by its parts.
fn reference(value: &[u8]) -> Option<(String, String, bool)> {
    let text = String::from_utf8_lossy(value);
    let parts: Vec<&str> = text.split('-').collect();
    let is_hex = |part: &str, length| {
        part.len() == length && part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    let [version, trace, span, flags, ..] = parts[..] else { return None };
    let lengths = is_hex(version, 2) && is_hex(trace, 32) && is_hex(span, 16) && is_hex(flags, 2);
    let known = version != "ff" && (parts.len() == 4 || version != "00");
    let zero = |part: &str| part.bytes().all(|b| b == b'0');
    let sampled = u8::from_str_radix(flags, 16).ok()? & 1 == 1;
    (lengths && known && !zero(trace) && !zero(span)).then(|| (trace.to_owned(), span.to_owned(), sampled))
}
