//! Response heads of the engine.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};

use super::body::{BodyDecoder, Broken};
use super::headers::{Nominated, has_option};
use super::request::field;
use super::{MAX_HEAD, length_of, values};

/// What the head of a response says.
#[derive(Debug)]
pub(in crate::proxy) struct ResponseHead {
    /// Its status.
    pub(in crate::proxy) status: StatusCode,
    /// Its fields, without those that belong to the connection.
    pub(in crate::proxy) headers: HeaderMap,
    /// Where its body ends.
    pub(in crate::proxy) body: BodyDecoder,
    /// Whether the connection can be used again after it.
    pub(in crate::proxy) keep_alive: bool,
    /// The protocol that a 101 switches to.
    pub(in crate::proxy) upgrade: Option<HeaderValue>,
}

impl ResponseHead {
    /// Appends it as an interim response, which has no length (RFC 9110, 8.6).
    pub(in crate::proxy) fn encode_interim(&self, out: &mut BytesMut) {
        let reason = self.status.canonical_reason().unwrap_or_default();
        out.put_slice(format!("HTTP/1.1 {} {reason}\r\n", self.status.as_str()).as_bytes());
        for (name, value) in self.headers.iter().filter(|(name, _)| *name != header::CONTENT_LENGTH) {
            field(out, name.as_str(), value.as_bytes());
        }
        out.put_slice(b"\r\n");
    }
}

/// Most fields of a response head.
const MAX_FIELDS: usize = 128;

/// Cuts a response head from the front of `received`, or nothing when it is not whole yet. `method` is that of the
/// request.
pub(in crate::proxy) fn parse_response(
    received: &mut Bytes,
    method: &Method,
) -> Result<Option<ResponseHead>, Broken> {
    let mut slots = [const { std::mem::MaybeUninit::uninit() }; MAX_FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let length = match config.parse_response_with_uninit_headers(&mut parsed, received, &mut slots) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if received.len() > MAX_HEAD => {
            return Err(Broken("a response head over 64 KiB"));
        }
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => {
            return Err(Broken("more than 128 header fields"));
        }
        Err(_) => return Err(Broken("something other than HTTP/1")),
    };
    let head = interpret(received, &parsed, method)?;
    received.advance(length);
    Ok(Some(head))
}

fn interpret(
    raw: &Bytes,
    parsed: &httparse::Response<'_, '_>,
    method: &Method,
) -> Result<ResponseHead, Broken> {
    let status = parsed.code.and_then(|code| StatusCode::from_u16(code).ok());
    let status = status.ok_or(Broken("an impossible status code"))?;
    let http_11 = parsed.version == Some(1);
    let connection = || values(parsed.headers, "connection");
    let close = has_option(connection(), "close");
    let persistent = if http_11 { !close } else { !close && has_option(connection(), "keep-alive") };
    let (body, delimited) = framing(parsed.headers, status, method, http_11)?;
    let upgrade = values(parsed.headers, "upgrade").next();
    Ok(ResponseHead {
        status,
        headers: fields(raw, parsed.headers)?,
        body,
        keep_alive: persistent && delimited && status != StatusCode::SWITCHING_PROTOCOLS,
        upgrade: upgrade.and_then(|value| HeaderValue::from_bytes(value).ok()),
    })
}

/// Where the body ends (RFC 9112, 6.3), and whether that is certain enough to use the connection again.
fn framing(
    headers: &[httparse::Header<'_>],
    status: StatusCode,
    method: &Method,
    http_11: bool,
) -> Result<(BodyDecoder, bool), Broken> {
    let bodiless = status.is_informational()
        || status == StatusCode::NO_CONTENT
        || status == StatusCode::NOT_MODIFIED
        || method == Method::HEAD;
    let length = length_of(headers)?;
    let mut codings = values(headers, "transfer-encoding");
    let coding = codings.next();
    if codings.next().is_some() {
        return Err(Broken("several Transfer-Encoding fields"));
    }
    match coding {
        _ if bodiless => Ok((BodyDecoder::Done, coding.is_none() || length.is_none())),
        Some(coding) if http_11 && coding.trim_ascii().eq_ignore_ascii_case(b"chunked") => {
            Ok((BodyDecoder::chunked(), length.is_none()))
        }
        Some(_) => Err(Broken("a Transfer-Encoding other than chunked")),
        None => match length {
            Some(length) => Ok((BodyDecoder::length(length), true)),
            None => Ok((BodyDecoder::UntilClose, false)),
        },
    }
}

/// The fields that may be passed on. Their values share the memory of `raw`, which they were parsed from. Of several
/// `Content-Length` fields, equal as they are, one is left.
pub(super) fn fields(raw: &Bytes, parsed: &[httparse::Header<'_>]) -> Result<HeaderMap, Broken> {
    let nominated = Nominated::from_values(values(parsed, "connection"));
    let chunked = values(parsed, "transfer-encoding").next().is_some();
    let mut fields = HeaderMap::with_capacity(parsed.len());
    for field in parsed {
        let name =
            HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| Broken("a malformed header name"))?;
        let value = HeaderValue::from_maybe_shared(raw.slice_ref(field.value))
            .map_err(|_| Broken("a malformed header value"))?;
        if name == header::CONTENT_LENGTH {
            if !chunked {
                fields.insert(name, value);
            }
        } else if !nominated.keeps(&name) {
            fields.append(name, value);
        }
    }
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, method: &Method) -> Result<Option<ResponseHead>, Broken> {
        parse_response(&mut Bytes::copy_from_slice(text.as_bytes()), method)
    }

    fn head(text: &str) -> ResponseHead {
        parse(text, &Method::GET).unwrap().unwrap()
    }

    #[test]
    fn the_body_follows_the_framing_fields() {
        assert_eq!(head("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n").body, BodyDecoder::Length(5));
        assert_eq!(
            head("HTTP/1.1 200 OK\r\nContent-Length: 5\r\ncontent-length: 5\r\n\r\n").headers.len(),
            1
        );
        assert_eq!(
            head("HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n").body,
            BodyDecoder::chunked()
        );
        assert_eq!(head("HTTP/1.1 200 OK\r\n\r\n").body, BodyDecoder::UntilClose);
        assert_eq!(head("HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\n").body, BodyDecoder::Done);
        assert_eq!(head("HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n").body, BodyDecoder::Done);
        let to_head = parse("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", &Method::HEAD).unwrap().unwrap();
        assert_eq!(to_head.body, BodyDecoder::Done);
        assert_eq!(to_head.headers["content-length"], "5");
    }

    #[test]
    fn ambiguous_framing_is_not_guessed_at() {
        for fields in [
            "content-length: 5\r\ncontent-length: 6",
            "content-length: +5",
            "content-length: 5, 5",
            "content-length: ",
            "transfer-encoding: gzip, chunked",
            "transfer-encoding: chunked\r\ntransfer-encoding: chunked",
            "transfer-encoding: identity",
            "transfer-encoding:\r\n chunked",
        ] {
            assert!(
                parse(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n"), &Method::GET).is_err(),
                "{fields}"
            );
        }
        assert!(parse("HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", &Method::GET).is_err());
    }

    #[test]
    fn a_connection_is_used_again_only_when_both_sides_know_where_they_are() {
        assert!(head("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n").keep_alive);
        assert!(head("HTTP/1.0 200 OK\r\ncontent-length: 5\r\nconnection: keep-alive\r\n\r\n").keep_alive);
        assert!(!head("HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\n").keep_alive);
        assert!(!head("HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: x, Close\r\n\r\n").keep_alive);
        assert!(!head("HTTP/1.1 200 OK\r\n\r\n").keep_alive);
        let both = head("HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n");
        assert!(!both.keep_alive);
        assert!(both.headers.is_empty(), "neither field is passed on");
    }

    #[test]
    fn fields_of_the_connection_are_not_passed_on() {
        let head = head(
            "HTTP/1.1 200 OK\r\nConnection: X-Hop, keep-alive\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\r\n",
        );
        assert_eq!(head.headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["set-cookie"]);
        assert_eq!(head.headers.get_all("set-cookie").iter().count(), 2);
    }

    #[test]
    fn an_incomplete_head_is_waited_for_and_an_endless_one_refused() {
        assert!(parse("HTTP/1.1 200 OK\r\ncontent-le", &Method::GET).unwrap().is_none());
        let endless = format!("HTTP/1.1 200 OK\r\nx: {}", "x".repeat(2 * MAX_HEAD));
        assert!(parse(&endless, &Method::GET).is_err());
    }
}
