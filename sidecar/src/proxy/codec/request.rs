//! Request heads and chunk heads as bytes.

use std::fmt::Write as _;
use std::net::SocketAddr;

use bytes::{BufMut, BytesMut};
use http::header::{self, HeaderMap};
use http::{Method, Uri};

use super::headers::Nominated;

/// How the body of a request is delimited towards the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::proxy) enum Framing {
    /// There is none.
    None,
    /// `Content-Length`.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
}

/// What goes into a request head.
#[derive(Debug)]
pub(in crate::proxy) struct RequestHead<'a> {
    /// Its method.
    pub(in crate::proxy) method: &'a Method,
    /// Where it was sent to; its path and query go into the request line.
    pub(in crate::proxy) uri: &'a Uri,
    /// Replaces path and query.
    pub(in crate::proxy) target: Option<&'a str>,
    /// Its fields as they were received.
    pub(in crate::proxy) headers: &'a HeaderMap,
    /// How its body is delimited.
    pub(in crate::proxy) framing: Framing,
    /// Asks the engine for an upgrade.
    pub(in crate::proxy) upgrade: bool,
    /// The host of a request without `Host`, as HTTP/1.0 clients send it.
    pub(in crate::proxy) default_host: SocketAddr,
}

impl RequestHead<'_> {
    /// Appends the head, with its empty line.
    pub(in crate::proxy) fn encode(&self, out: &mut BytesMut) {
        out.put_slice(self.method.as_str().as_bytes());
        out.put_u8(b' ');
        out.put_slice(self.request_target().as_bytes());
        out.put_slice(b" HTTP/1.1\r\n");
        self.encode_host(out);
        let nominated = Nominated::of(self.headers);
        // Most requests have none of these: looking for each would take more than to see them pass by.
        let (mut has_cookies, mut te) = (false, None);
        for (name, value) in self.headers {
            let replaced = *name == header::HOST
                || *name == header::CONTENT_LENGTH
                || *name == header::EXPECT
                || *name == header::COOKIE;
            if !replaced && !nominated.keeps(name) {
                field(out, name.as_str(), value.as_bytes());
            }
            has_cookies |= *name == header::COOKIE;
            if *name == header::TE {
                te.get_or_insert(value.as_bytes());
            }
        }
        if has_cookies {
            self.encode_cookies(out);
        }
        self.encode_connection(te, out);
        match self.framing {
            Framing::None => {}
            Framing::Length(length) => {
                let _ = write!(out, "content-length: {length}\r\n");
            }
            Framing::Chunked => out.put_slice(b"transfer-encoding: chunked\r\n"),
        }
        out.put_slice(b"\r\n");
    }

    fn request_target(&self) -> &str {
        let own = self.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        // `OPTIONS *` arrives as a path of `*`, and goes on as such.
        self.target.unwrap_or(if own.is_empty() { "/" } else { own })
    }

    /// The authority of an absolute target replaces the field (RFC 9112, 3.2.2).
    fn encode_host(&self, out: &mut BytesMut) {
        match (self.uri.authority(), self.headers.get(header::HOST)) {
            (Some(authority), _) => field(out, "host", authority.as_str().as_bytes()),
            (None, Some(host)) => field(out, "host", host.as_bytes()),
            (None, None) => field(out, "host", self.default_host.to_string().as_bytes()),
        }
    }

    /// HTTP/2 may send cookies in several fields; for HTTP/1.1 they are one (RFC 9113, 8.2.3).
    fn encode_cookies(&self, out: &mut BytesMut) {
        let mut cookies = self.headers.get_all(header::COOKIE).iter();
        let Some(first) = cookies.next() else { return };
        out.put_slice(b"cookie: ");
        out.put_slice(first.as_bytes());
        for cookie in cookies {
            out.put_slice(b"; ");
            out.put_slice(cookie.as_bytes());
        }
        out.put_slice(b"\r\n");
    }

    fn encode_connection(&self, te: Option<&[u8]>, out: &mut BytesMut) {
        if self.upgrade
            && let Some(protocol) = self.headers.get(header::UPGRADE)
        {
            field(out, "connection", b"upgrade");
            field(out, "upgrade", protocol.as_bytes());
        }
        if te == Some(b"trailers") {
            field(out, "te", b"trailers");
        }
    }
}

/// Appends one field.
pub(super) fn field(out: &mut BytesMut, name: &str, value: &[u8]) {
    out.put_slice(name.as_bytes());
    out.put_slice(b": ");
    out.put_slice(value);
    out.put_slice(b"\r\n");
}

/// Appends the head of a chunk of `length` bytes.
pub(in crate::proxy) fn encode_chunk_size(out: &mut BytesMut, length: usize) {
    let _ = write!(out, "{length:x}\r\n");
}

/// Appends the last chunk and the trailer section. Fields that would change the framing or the routing of the
/// message are left out (RFC 9110, 6.5.1).
pub(in crate::proxy) fn encode_trailers(out: &mut BytesMut, trailers: &HeaderMap) {
    out.put_slice(b"0\r\n");
    let nominated = Nominated::default();
    for (name, value) in trailers {
        let forbidden = *name == header::HOST || *name == header::CONTENT_LENGTH || *name == header::TRAILER;
        if !forbidden && !nominated.keeps(name) {
            field(out, name.as_str(), value.as_bytes());
        }
    }
    out.put_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(request: &http::Request<()>, framing: Framing, upgrade: bool) -> String {
        let mut out = BytesMut::new();
        RequestHead {
            method: request.method(),
            uri: request.uri(),
            target: None,
            headers: request.headers(),
            framing,
            upgrade,
            default_host: ([127, 0, 0, 1], 8000).into(),
        }
        .encode(&mut out);
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn framing_is_ours_and_hop_by_hop_fields_are_gone() {
        let request = http::Request::post("/v1/completions?x=1")
            .header("host", "llama")
            .header("connection", "x-secret, keep-alive")
            .header("x-secret", "1")
            .header("keep-alive", "timeout=5")
            .header("transfer-encoding", "chunked")
            .header("expect", "100-continue")
            .header("x-kept", "yes")
            .body(())
            .unwrap();
        assert_eq!(
            encoded(&request, Framing::Chunked, false),
            "POST /v1/completions?x=1 HTTP/1.1\r\nhost: llama\r\nx-kept: yes\r\ntransfer-encoding: chunked\r\n\r\n"
        );
    }

    #[test]
    fn a_request_without_host_gets_one_and_an_absolute_target_overrides_it() {
        let plain = http::Request::get("/").body(()).unwrap();
        assert!(encoded(&plain, Framing::None, false).contains("host: 127.0.0.1:8000\r\n"));
        let absolute = http::Request::get("http://a.example/p").header("host", "b.example").body(()).unwrap();
        let head = encoded(&absolute, Framing::None, false);
        assert!(head.starts_with("GET /p HTTP/1.1\r\nhost: a.example\r\n"), "{head}");
        assert!(!head.contains("b.example"));
    }

    #[test]
    fn cookies_are_one_field() {
        let request =
            http::Request::get("/").header("host", "a").header("cookie", "a=1").header("cookie", "b=2");
        assert_eq!(
            encoded(&request.body(()).unwrap(), Framing::None, false),
            "GET / HTTP/1.1\r\nhost: a\r\ncookie: a=1; b=2\r\n\r\n"
        );
    }

    #[test]
    fn upgrade_is_asked_for_only_when_told() {
        let request = http::Request::get("/ws")
            .header("host", "a")
            .header("connection", "Upgrade")
            .header("upgrade", "websocket")
            .body(())
            .unwrap();
        assert!(
            encoded(&request, Framing::None, true).contains("connection: upgrade\r\nupgrade: websocket\r\n")
        );
        assert_eq!(encoded(&request, Framing::None, false), "GET /ws HTTP/1.1\r\nhost: a\r\n\r\n");
    }
}
