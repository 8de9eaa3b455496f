use super::*;

const LARGEST: usize = 64 * 1024;

fn parse(text: &str) -> Result<Option<ReceivedHead>, BadHead> {
    parse_request(&mut Bytes::copy_from_slice(text.as_bytes()), LARGEST)
}

fn head(text: &str) -> ReceivedHead {
    parse(text).unwrap().unwrap()
}

fn framing_of(fields: &str) -> Option<Framing> {
    head(&format!("POST / HTTP/1.1\r\n{fields}\r\n\r\n")).framing
}

#[test]
fn a_head_is_cut_from_what_follows_it() {
    let mut received = Bytes::from_static(b"\r\nGET /a?b HTTP/1.1\r\nHost: a\r\nX-Y: 1\r\nx-y: 2\r\n\r\nGET");
    let head = parse_request(&mut received, LARGEST).unwrap().unwrap();
    assert_eq!((head.parts.method.as_str(), head.parts.uri.path()), ("GET", "/a"));
    assert_eq!(head.parts.headers.get_all("x-y").iter().collect::<Vec<_>>(), ["1", "2"]);
    assert_eq!(received, "GET");
}

#[test]
fn the_body_is_framed_in_one_way_or_in_none() {
    assert_eq!(framing_of("Host: a"), Some(Framing::None));
    assert_eq!(framing_of("Content-Length: 3"), Some(Framing::Length(3)));
    assert_eq!(framing_of("Content-Length: 3\r\nContent-Length: 3"), Some(Framing::Length(3)));
    assert_eq!(framing_of("Transfer-Encoding: Chunked"), Some(Framing::Chunked));
    for ambiguous in [
        "Content-Length: 3\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 0",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: \"chunked\"",
        "Transfer-Encoding:",
        "Content-Length: 3\r\nContent-Length: 4",
        "Content-Length: 3, 3",
        "Content-Length: +3",
        "Content-Length: 0x3",
        "Content-Length:",
        "Content-Length: 99999999999999999999",
    ] {
        assert_eq!(framing_of(ambiguous), None, "{ambiguous}");
    }
    let old = head("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert_eq!(old.framing, None, "HTTP/1.0 knows no chunks");
}

#[test]
fn another_request_may_follow_where_both_sides_say_so() {
    let keeps = |text: &str| head(text).keep_alive;
    assert!(keeps("GET / HTTP/1.1\r\n\r\n"));
    assert!(!keeps("GET / HTTP/1.1\r\nConnection: x, Close\r\n\r\n"));
    assert!(!keeps("GET / HTTP/1.0\r\n\r\n"));
    assert!(keeps("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n"));
}

#[test]
fn leave_to_send_is_asked_for_by_those_who_have_something_to_send_and_know_the_answer() {
    let expects = |text: &str| head(text).expects_continue;
    assert!(expects("POST / HTTP/1.1\r\nContent-Length: 1\r\nExpect: 100-Continue\r\n\r\n"));
    assert!(!expects("POST / HTTP/1.1\r\nContent-Length: 0\r\nExpect: 100-continue\r\n\r\n"));
    assert!(!expects("POST / HTTP/1.0\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n"));
}

#[test]
fn what_is_no_request_says_what_is_wrong_with_it() {
    for malformed in ["GET / HTTP/1.2\r\n\r\n", "G\0T / HTTP/1.1\r\n\r\n", "GET / HTTP/1.1\r\na : b\r\n\r\n"]
    {
        assert_eq!(parse(malformed).unwrap_err(), BadHead::Malformed, "{malformed:?}");
    }
    let many = "a: b\r\n".repeat(MAX_FIELDS + 1);
    assert_eq!(parse(&format!("GET / HTTP/1.1\r\n{many}\r\n")).unwrap_err(), BadHead::TooLarge);
    let large = format!("GET / HTTP/1.1\r\na: {}", "b".repeat(LARGEST));
    assert_eq!(parse(&large).unwrap_err(), BadHead::TooLarge, "nobody waits for its end");
    assert_eq!(parse(&format!("{large}\r\n\r\n")).unwrap_err(), BadHead::TooLarge);
    let far = format!("GET /{}", "b".repeat(LARGEST));
    assert_eq!(parse(&far).unwrap_err(), BadHead::TargetTooLong);
    assert!(parse("GET / HTTP/1.1\r\nhost: a\r\n").unwrap().is_none(), "it is not whole yet");
}
