//! Request heads of clients. Whoever sends them is not trusted: what can be read in two ways is not read.

use bytes::{Buf, Bytes};
use http::header;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version};

use super::headers::has_option;
use super::{Framing, length_of, values};

/// Most fields of a request head.
const MAX_FIELDS: usize = 100;

/// Longest target of a request.
const MAX_TARGET: usize = u16::MAX as usize - 1;

/// What the head of a request says.
#[derive(Debug)]
pub(in crate::proxy) struct ReceivedHead {
    /// Its method, target, version and fields.
    pub(in crate::proxy) parts: Parts,
    /// How its body is delimited. None where that can be read in several ways, or in none that is understood: then
    /// nothing is known of what follows.
    pub(in crate::proxy) framing: Option<Framing>,
    /// The client may send another request behind it.
    pub(in crate::proxy) keep_alive: bool,
    /// The client waits for leave to send the body.
    pub(in crate::proxy) expects_continue: bool,
    /// The client wants to see trailers (RFC 9110, 6.5.1).
    pub(in crate::proxy) takes_trailers: bool,
}

/// Why there is no head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::proxy) enum BadHead {
    /// It breaks the grammar of HTTP/1.
    Malformed,
    /// It has too many bytes or fields.
    TooLarge,
    /// Its target is too long.
    TargetTooLong,
}

/// Cuts a request head of at most `largest` bytes from the front of `received`, or nothing when it is not whole yet.
pub(in crate::proxy) fn parse_request(
    received: &mut Bytes,
    largest: usize,
) -> Result<Option<ReceivedHead>, BadHead> {
    let mut slots = [const { std::mem::MaybeUninit::uninit() }; MAX_FIELDS];
    let mut parsed = httparse::Request::new(&mut []);
    let config = httparse::ParserConfig::default();
    let length = match config.parse_request_with_uninit_headers(&mut parsed, received, &mut slots) {
        Ok(httparse::Status::Complete(length)) if length <= largest => length,
        Ok(httparse::Status::Partial) if received.len() < largest => return Ok(None),
        Ok(_) if parsed.path.is_none_or(|target| target.len() > MAX_TARGET) => {
            return Err(BadHead::TargetTooLong);
        }
        Ok(_) | Err(httparse::Error::TooManyHeaders) => return Err(BadHead::TooLarge),
        Err(_) => return Err(BadHead::Malformed),
    };
    let head = interpret(received, &parsed)?;
    received.advance(length);
    Ok(Some(head))
}

fn interpret(raw: &Bytes, parsed: &httparse::Request<'_, '_>) -> Result<ReceivedHead, BadHead> {
    let (Some(method), Some(target)) = (parsed.method, parsed.path) else { return Err(BadHead::Malformed) };
    if target.len() > MAX_TARGET {
        return Err(BadHead::TargetTooLong);
    }
    let http_11 = parsed.version == Some(1);
    let framing = framing(parsed.headers, http_11);
    let connection = || values(parsed.headers, "connection");
    let close = has_option(connection(), "close");
    let has_body = !matches!(framing, Some(Framing::None | Framing::Length(0)));
    let expects = values(parsed.headers, "expect").any(|value| value.eq_ignore_ascii_case(b"100-continue"));
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(method.as_bytes()).map_err(|_| BadHead::Malformed)?;
    *request.uri_mut() =
        Uri::from_maybe_shared(raw.slice_ref(target.as_bytes())).map_err(|_| BadHead::Malformed)?;
    *request.version_mut() = if http_11 { Version::HTTP_11 } else { Version::HTTP_10 };
    *request.headers_mut() = fields(raw, parsed.headers)?;
    Ok(ReceivedHead {
        parts: request.into_parts().0,
        framing,
        keep_alive: !close && (http_11 || has_option(connection(), "keep-alive")),
        expects_continue: expects && http_11 && has_body,
        takes_trailers: has_option(values(parsed.headers, "te"), "trailers"),
    })
}

/// Where the body ends (RFC 9112, 6.3). `Content-Length` beside `Transfer-Encoding` may be read as the latter alone, and
/// is an attack or a mistake: it is not read at all.
fn framing(headers: &[httparse::Header<'_>], http_11: bool) -> Option<Framing> {
    let length = length_of(headers).ok()?;
    let mut codings = values(headers, "transfer-encoding");
    match (codings.next(), length) {
        (None, None) => Some(Framing::None),
        (None, Some(length)) => Some(Framing::Length(length)),
        (Some(coding), None) => {
            let clear = http_11 && codings.next().is_none() && coding.eq_ignore_ascii_case(b"chunked");
            clear.then_some(Framing::Chunked)
        }
        (Some(_), Some(_)) => None,
    }
}

/// All fields. Their values share the memory of `raw`, which they were parsed from.
fn fields(raw: &Bytes, parsed: &[httparse::Header<'_>]) -> Result<HeaderMap, BadHead> {
    let mut fields = HeaderMap::with_capacity(parsed.len());
    for field in parsed {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| BadHead::Malformed)?;
        let value =
            HeaderValue::from_maybe_shared(raw.slice_ref(field.value)).map_err(|_| BadHead::Malformed)?;
        // Several of these are equal, or nobody reads the body: the first stays.
        if name == header::CONTENT_LENGTH {
            fields.entry(name).or_insert(value);
        } else {
            fields.append(name, value);
        }
    }
    Ok(fields)
}

#[cfg(test)]
mod tests;
