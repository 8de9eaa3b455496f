use http::HeaderValue;

use super::*;

struct Case<'a> {
    status: u16,
    method: &'a Method,
    version: Version,
    headers: &'a [(&'static str, &'static str)],
    length: Option<u64>,
    keep_alive: bool,
}

const PLAIN: Case<'_> = Case {
    status: 200,
    method: &Method::GET,
    version: Version::HTTP_11,
    headers: &[],
    length: Some(5),
    keep_alive: true,
};

/// Its text without the date, how its body ends, and whether the connection goes on.
fn encoded(case: &Case<'_>) -> (String, Delimited, bool) {
    let fields = case
        .headers
        .iter()
        .map(|(name, value)| (name.parse::<http::HeaderName>().unwrap(), HeaderValue::from_static(value)));
    let headers: HeaderMap = fields.collect();
    let mut out = BytesMut::new();
    let (delimited, keep_alive) = AnswerHead {
        status: StatusCode::from_u16(case.status).unwrap(),
        headers: &headers,
        length: case.length,
        method: case.method,
        version: case.version,
        keep_alive: case.keep_alive,
    }
    .encode(&mut out);
    let text = String::from_utf8(out.to_vec()).unwrap();
    let (date, rest): (Vec<_>, Vec<_>) = text.split_inclusive("\r\n").partition(|l| l.starts_with("date: "));
    assert_eq!(date.len(), 1, "{text}");
    (rest.concat(), delimited, keep_alive)
}

#[test]
fn a_body_ends_by_its_length_or_by_chunks_or_with_the_connection() {
    let (text, delimited, keep_alive) = encoded(&PLAIN);
    assert_eq!(text, "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n");
    assert_eq!((delimited, keep_alive), (Delimited::Length, true));
    let (text, delimited, keep_alive) = encoded(&Case { length: None, ..PLAIN });
    assert_eq!(text, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
    assert_eq!((delimited, keep_alive), (Delimited::Chunked, true));
    let old = Case { version: Version::HTTP_10, length: None, ..PLAIN };
    assert_eq!(encoded(&old), ("HTTP/1.0 200 OK\r\n\r\n".to_owned(), Delimited::Close, false));
}

#[test]
fn what_has_no_body_says_at_most_how_long_it_would_be() {
    for (status, method, expected) in [
        (200, Method::HEAD, "HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n"),
        (304, Method::GET, "HTTP/1.1 304 Not Modified\r\ncontent-length: 7\r\n\r\n"),
        (204, Method::GET, "HTTP/1.1 204 No Content\r\n\r\n"),
    ] {
        let headers = &[("content-length", "7")];
        let case = Case { status, method: &method, headers, length: Some(0), ..PLAIN };
        assert_eq!(encoded(&case), (expected.to_owned(), Delimited::Bodiless, true));
    }
    let own = Case { method: &Method::HEAD, ..PLAIN };
    assert_eq!(encoded(&own).0, "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", "of a body of our own");
}

#[test]
fn the_last_answer_of_a_connection_says_so() {
    let (text, _, keep_alive) = encoded(&Case { keep_alive: false, ..PLAIN });
    assert!(text.contains("\r\nconnection: close\r\n") && !keep_alive, "{text}");
    let (text, _, keep_alive) = encoded(&Case { headers: &[("connection", "close")], ..PLAIN });
    assert_eq!(text.matches("connection: close").count(), 1);
    assert!(!keep_alive);
    let (text, _, keep_alive) = encoded(&Case { version: Version::HTTP_10, ..PLAIN });
    assert!(text.contains("\r\nconnection: keep-alive\r\n") && keep_alive, "{text}");
}

#[test]
fn a_switch_of_protocols_keeps_its_fields() {
    let headers = &[("connection", "upgrade"), ("upgrade", "websocket")];
    let (text, delimited, _) = encoded(&Case { status: 101, headers, length: Some(0), ..PLAIN });
    assert!(text.ends_with("connection: upgrade\r\nupgrade: websocket\r\n\r\n"), "{text}");
    assert_eq!(delimited, Delimited::Bodiless);
}
