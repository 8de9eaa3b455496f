use flate2::Compression;
use flate2::write::GzEncoder;

use super::*;

const STREAM: &str =
    "data: {\"choices\":[{\"delta\":{\"content\":\"tide tide tide \"}}]}\n\ndata: [DONE]\n\n";
const ANSWER: &str = r#"{"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":7}}"#;

fn meter(kind: &'static str, coding: &'static str) -> Meter {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    if !coding.is_empty() {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding));
    }
    Meter::new(&headers)
}

fn packed(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn a_packed_answer_is_counted_as_the_plain_one() {
    for (kind, text, output) in
        [("text/event-stream; charset=utf-8", STREAM, 4), ("application/json", ANSWER, 7)]
    {
        let mut plain = meter(kind, "");
        plain.feed(text.as_bytes());
        let mut gzip = meter(kind, "gzip");
        packed(text.as_bytes()).chunks(3).for_each(|piece| assert_eq!(gzip.feed(piece), None));
        assert_eq!(plain.tokens(1).unwrap().output, output);
        assert_eq!(gzip.tokens(1), plain.tokens(1), "{kind}");
        assert!(gzip.is_packed() && !plain.is_packed());
    }
}

#[test]
fn what_cannot_be_read_is_not_counted_at_all() {
    let mut brotli = meter("application/json", "br");
    brotli.feed(b"\x0b\x02\x80");
    assert_eq!(brotli.tokens(1), None);
    let mut broken = meter("application/json", "gzip");
    broken.feed(b"no gzip at all, but long enough to tell");
    assert_eq!(broken.tokens(1), None);
    let mut bomb = meter("application/json", "gzip");
    bomb.feed(&packed(&vec![b' '; MOST_UNPACKED + 1]));
    assert_eq!(bomb.tokens(1), None, "no more is unpacked than an answer can have");
}
