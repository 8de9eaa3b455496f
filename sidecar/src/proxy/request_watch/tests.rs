use super::*;

const BOTH: &[u8] = b"POST / HTTP/1.1\r\nContent-Length: 3\r\nTRANSFER-ENCODING: chunked\r\n\r\n";
const PLAIN: &[u8] = b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc";
const CHUNKED: &[u8] =
    b"POST / HTTP/1.1\r\ntransfer-encoding: Chunked\r\n\r\n5;x=\"y\"\r\nhello\r\nA \r\n0123456789\r\n0\r\nx-sum: 1\r\n\r\n";
const BODILESS: &[u8] = b"\r\nGET / HTTP/1.1\nHost: a\n\n";

/// What is known of each head of `wire`, given in pieces of `step` bytes.
fn verdicts(wire: &[u8], step: usize) -> Vec<Framed> {
    let mut watch = RequestWatch::default();
    wire.chunks(step).for_each(|piece| watch.feed(piece));
    std::iter::from_fn(|| watch.take()).collect()
}

#[test]
fn pipelined_requests_are_followed_however_they_are_cut() {
    let wire = [CHUNKED, PLAIN, BODILESS, CHUNKED, BODILESS, PLAIN, BOTH].concat();
    for step in 1..=wire.len() {
        let mut expected = vec![Framed::Clearly; 6];
        expected.push(Framed::Ambiguously);
        assert_eq!(verdicts(&wire, step), expected, "in pieces of {step}");
    }
}

#[test]
fn a_body_is_not_taken_for_a_head() {
    let body = "GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n";
    let wire = format!("POST / HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    assert_eq!(verdicts(wire.as_bytes(), 7), [Framed::Clearly]);
}

#[test]
fn framing_that_can_be_read_in_two_ways_is_ambiguous_and_nothing_behind_it_has_a_verdict() {
    for fields in [
        "Content-Length: 3\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 0",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: \"chunked\"",
        "Transfer-Encoding: \x0bchunked",
        "Content-Length: 3\r\nContent-Length: 4",
        "Content-Length: 3, 3",
        "Content-Length: +3",
        "Content-Length: 0x3",
        "Content-Length:",
        "Content-Length: 99999999999999999999",
    ] {
        let wire = format!("POST / HTTP/1.1\r\n{fields}\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n");
        assert_eq!(verdicts(wire.as_bytes(), 1000), [Framed::Ambiguously], "{fields}");
    }
    let twice = b"POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\n\r\n";
    assert_eq!(verdicts(twice, 1000), [Framed::Clearly; 2]);
}

#[test]
fn nothing_is_known_of_what_is_behind_a_malformed_chunk() {
    for body in [
        "+5\r\n",
        "g\r\n",
        "\r\n",
        "5 5\r\n",
        "11111111111111111\r\n",
        "5\nhello",
        "5\r\nhello0",
        "5;a\nb\r\n",
        "0\r\na\nb\r\n",
    ] {
        let wire = format!(
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{body}\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n"
        );
        assert_eq!(verdicts(wire.as_bytes(), 3), [Framed::Clearly], "{body:?}");
    }
}

#[test]
fn a_line_without_end_is_not_kept_for_ever() {
    let mut watch = RequestWatch::default();
    for _ in 0..100 {
        watch.feed(&[b'x'; 1000]);
    }
    watch.feed(b"\n\r\n");
    assert_eq!(watch.take(), None);
}

proptest::proptest! {
    #[test]
    fn no_bytes_of_a_client_are_read_differently_when_they_are_cut(wire: Vec<u8>, step in 1_usize..9) {
        proptest::prop_assert_eq!(verdicts(&wire, step), verdicts(&wire, usize::MAX));
    }
}
