//! What is sent: at the edges of every rule about where a request ends.

/// What is expected of the sidecar.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Expect {
    /// Refused with 400 (or 405, 414, 431), and the connection closed.
    Refused,
    /// Passed on, as hyper reads it.
    Passed,
}
use Expect::{Passed, Refused};

/// Its name, which tells the advisory where there is one, and its bytes.
pub(crate) type Payload = (&'static str, Vec<u8>, Expect);

const SMUGGLED: &str = "0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: s\r\n\r\n";

fn post(head: &str, body: &str) -> Vec<u8> {
    format!("POST /first HTTP/1.1\r\nHost: a\r\n{head}\r\n\r\n{body}").into_bytes()
}

pub(crate) fn all() -> Vec<Payload> {
    [codings(), lengths(), chunks(), heads(), passed()].concat()
}

fn both(before: &str, behind: &str) -> Vec<u8> {
    post(&format!("{before}{}{behind}", SMUGGLED.len()), SMUGGLED)
}

/// Transfer-Encoding, alone and beside Content-Length.
fn codings() -> Vec<Payload> {
    vec![
        ("CL.TE", both("Content-Length: ", "\r\nTransfer-Encoding: chunked"), Refused),
        ("TE.CL", both("Transfer-Encoding: chunked\r\nContent-Length: ", ""), Refused),
        ("CL.TE, length 0", post("Content-Length: 0\r\nTransfer-Encoding: chunked", SMUGGLED), Refused),
        ("CL.TE, mixed case", post("cOnTeNt-LeNgTh: 4\r\ntRaNsFeR-eNcOdInG: ChUnKeD", SMUGGLED), Refused),
        ("CL.TE behind a pipelined request", {
            let first = b"GET /first HTTP/1.1\r\nHost: a\r\n\r\n";
            [&first[..], &both("Content-Length: ", "\r\nTransfer-Encoding: chunked")].concat()
        }, Refused),
        ("RUSTSEC-2021-0020: several Transfer-Encoding", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: cow", SMUGGLED), Refused),
        ("RUSTSEC-2021-0020: chunked last of several", post("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked", SMUGGLED), Refused),
        ("several Transfer-Encoding, both chunked", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", SMUGGLED), Refused),
        ("CVE-2026-2835: HTTP/1.0 with chunks", b"POST /first HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_vec(), Refused),
        ("CVE-2026-2835: HTTP/1.0 with both", b"POST /first HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_vec(), Refused),
        ("CVE-2026-2835: ambiguous coding", post("Transfer-Encoding: chunked, identity", SMUGGLED), Refused),
        ("unknown coding before chunked", post("Transfer-Encoding: gzip, chunked", SMUGGLED), Refused),
        ("unknown coding", post("Transfer-Encoding: xchunked", SMUGGLED), Refused),
        ("quoted coding", post("Transfer-Encoding: \"chunked\"", SMUGGLED), Refused),
        ("coding with a parameter", post("Transfer-Encoding: chunked;q=1", SMUGGLED), Refused),
        ("coding behind a vertical tab", post("Transfer-Encoding: \u{b}chunked", SMUGGLED), Refused),
        ("coding behind a form feed", post("Transfer-Encoding:\u{c}chunked", SMUGGLED), Refused),
        ("empty coding", post("Transfer-Encoding:", SMUGGLED), Refused),
        ("coding with a comma", post("Transfer-Encoding: ,chunked", SMUGGLED), Refused),
        ("folded coding", post("Transfer-Encoding:\r\n chunked", SMUGGLED), Refused),
    ]
}

/// Content-Length.
fn lengths() -> Vec<Payload> {
    vec![
        ("RUSTSEC-2021-0078: Content-Length +5", post("Content-Length: +5", "hello"), Refused),
        ("space before the colon of the length", post("Content-Length : 5", "hello"), Refused),
        ("two lengths", post("Content-Length: 5\r\nContent-Length: 6", "hello!"), Refused),
        ("two lengths in one", post("Content-Length: 5, 6", "hello!"), Refused),
        ("the same length twice in one", post("Content-Length: 5, 5", "hello"), Refused),
        ("negative length", post("Content-Length: -1", ""), Refused),
        ("hexadecimal length", post("Content-Length: 0x5", "hello"), Refused),
        ("length with a point", post("Content-Length: 5.0", "hello"), Refused),
        ("empty length", post("Content-Length:", ""), Refused),
        ("length beyond 64 bits", post("Content-Length: 18446744073709551621", "hello"), Refused),
        ("length with a space inside", post("Content-Length: 1 0", "hello"), Refused),
    ]
}

/// Chunks.
fn chunks() -> Vec<Payload> {
    vec![
        (
            "RUSTSEC-2021-0079: chunk size overflow",
            post("Transfer-Encoding: chunked", "f0000000000000003\r\nabc\r\n0\r\n\r\n"),
            Refused,
        ),
        (
            "CVE-2023-39326: more extensions than body",
            post("Transfer-Encoding: chunked", &format!("5;{}\r\nhello\r\n0\r\n\r\n", "e".repeat(17 * 1024))),
            Refused,
        ),
        ("negative chunk size", post("Transfer-Encoding: chunked", "-1\r\nabc\r\n0\r\n\r\n"), Refused),
        ("signed chunk size", post("Transfer-Encoding: chunked", "+3\r\nabc\r\n0\r\n\r\n"), Refused),
        ("chunk size with a prefix", post("Transfer-Encoding: chunked", "0x3\r\nabc\r\n0\r\n\r\n"), Refused),
        ("chunk size behind a space", post("Transfer-Encoding: chunked", " 3\r\nabc\r\n0\r\n\r\n"), Refused),
        ("chunk without an end", post("Transfer-Encoding: chunked", "3\r\nabcX0\r\n\r\n"), Refused),
        (
            "chunk that ends with a line feed",
            post("Transfer-Encoding: chunked", "3\r\nabc\n0\r\n\r\n"),
            Refused,
        ),
        (
            "chunk size that ends with a line feed",
            post("Transfer-Encoding: chunked", "3\nabc\r\n0\r\n\r\n"),
            Refused,
        ),
        (
            "a line feed in a chunk's extension",
            post("Transfer-Encoding: chunked", "3;a\nb\r\nabc\r\n0\r\n\r\n"),
            Refused,
        ),
        (
            "a carriage return in a chunk's extension",
            post("Transfer-Encoding: chunked", "3;a\rb\r\nabc\r\n0\r\n\r\n"),
            Refused,
        ),
        (
            "a chunked body's trailer that ends with a line feed, and swallows the next request",
            post("Transfer-Encoding: chunked", "3\r\nabc\r\n0\r\nX: 1\n\r\n"),
            Refused,
        ),
        (
            "a chunked body's trailer with a carriage return",
            post("Transfer-Encoding: chunked", "3\r\nabc\r\n0\r\nX: 1\rY: 2\r\n\r\n"),
            Refused,
        ),
        (
            "a chunked body's trailer that is folded",
            post("Transfer-Encoding: chunked", "3\r\nabc\r\n0\r\nX: 1\r\n 2\r\n\r\n"),
            Refused,
        ),
    ]
}

/// Request lines, hosts and the grammar of fields.
fn heads() -> Vec<Payload> {
    vec![
        ("CVE-2023-25725: a field without a name", post(": x\r\nContent-Length: 5", "hello"), Refused),
        ("space before the colon", post("Transfer-Encoding : chunked", SMUGGLED), Refused),
        ("folded first field", post("X: a\r\n Transfer-Encoding: chunked", SMUGGLED), Refused),
        ("name with a space", post("Transfer Encoding: chunked", SMUGGLED), Refused),
        ("name with a NUL", post("Transfer-Encoding\0: chunked", SMUGGLED), Refused),
        ("value with a NUL", post("X: a\0\r\nContent-Length: 5", "hello"), Refused),
        ("a bare carriage return in a value", post("X: a\rTransfer-Encoding: chunked", SMUGGLED), Refused),
        ("a bare carriage return as a line end", post("X: a\r\rContent-Length: 5", "hello"), Refused),
        ("no host", b"GET /first HTTP/1.1\r\n\r\n".to_vec(), Refused),
        ("two hosts", b"GET /first HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".to_vec(), Refused),
        ("a user in the host", b"GET http://a@b/first HTTP/1.1\r\nHost: b\r\n\r\n".to_vec(), Refused),
        ("an authority for a target", b"GET first:80 HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), Refused),
        ("a target without a slash", b"GET first HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), Refused),
        ("a star for a target", b"GET * HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), Refused),
        ("CONNECT", b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n".to_vec(), Refused),
        ("HTTP/1.2", b"GET /first HTTP/1.2\r\nHost: a\r\n\r\n".to_vec(), Refused),
        ("HTTP/0.9", b"GET /first\r\n\r\n".to_vec(), Refused),
        ("HTTP/2.0 in the line", b"GET /first HTTP/2.0\r\nHost: a\r\n\r\n".to_vec(), Refused),
        ("two spaces in the line", b"GET  /first HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), Refused),
        ("a tab in the line", b"GET\t/first HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), Refused),
        ("a space before the first field", b"GET /first HTTP/1.1\r\n Host: a\r\n\r\n".to_vec(), Refused),
        ("a line feed in the target", b"GET /first\nX: a HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), Refused),
    ]
}

/// Unusual, and yet clear.
fn passed() -> Vec<Payload> {
    let body = "GET /smuggled HTTP/1.1\r\nHost: s\r\nTransfer-Encoding: chunked\r\n\r\n";
    vec![
        ("an upgrade to h2c", b"GET /first HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n".to_vec(), Passed),
        ("CVE-2026-2833: bytes behind an upgrade", b"GET /first HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n".to_vec(), Passed),
        ("CVE-2026-105299: a nominated length", post("Connection: Content-Length\r\nContent-Length: 5", "hello"), Passed),
        ("CVE-2026-105299: a nominated coding", post("Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked", "5\r\nhello\r\n0\r\n\r\n"), Passed),
        ("GET with a body", b"GET /first HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello".to_vec(), Passed),
        ("HEAD with chunks", b"HEAD /first HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n".to_vec(), Passed),
        ("the same length twice", post("Content-Length: 5\r\nContent-Length: 5", "hello"), Passed),
        ("length with zeros", post("Content-Length: 0005", "hello"), Passed),
        ("bare line feeds", b"POST /first HTTP/1.1\nHost: a\nContent-Length: 5\n\nhello".to_vec(), Passed),
        ("empty lines before the request", b"\r\n\n\r\nGET /first HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), Passed),
        ("a tab around the coding", post("Transfer-Encoding:\tchunked\t", "5\r\nhello\r\n0\r\n\r\n"), Passed),
        ("chunk extensions", post("Transfer-Encoding: chunked", "5;a=\"0\"\r\nhello\r\n0\r\n\r\n"), Passed),
        ("upper-case chunk size with zeros", post("Transfer-Encoding: chunked", "000A\r\n0123456789\r\n0\r\n\r\n"), Passed),
        ("trailers that name framing", post("Transfer-Encoding: chunked", "5\r\nhello\r\n0\r\nContent-Length: 50\r\nTransfer-Encoding: chunked\r\nHost: b\r\n\r\n"), Passed),
        ("a length in another field", post("X-Content-Length: 50\r\nContent-Length: 5", "hello"), Passed),
        ("a name with an underscore", post("Content_Length: 50\r\nContent-Length: 5", "hello"), Passed),
        ("a request in a body", post(&format!("Content-Length: {}", body.len()), body), Passed),
    ]
}
