//! Refusals as gRPC clients know them: a status in an answer that consists of its head alone ("trailers-only").

use std::fmt::Write as _;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, Response, StatusCode};

const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// How messages of an answer may be packed.
pub const ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");

/// How long a client should wait before it tries again, in milliseconds (gRPC proposal A6).
pub(super) const PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");

/// The wait; a negative one tells the client not to try again.
pub(super) fn pushback(millis: Option<u64>) -> HeaderValue {
    HeaderValue::from(millis.map_or(-1, |millis| i32::try_from(millis).unwrap_or(i32::MAX)))
}

const INVALID_ARGUMENT: u16 = 3;
const DEADLINE_EXCEEDED: u16 = 4;
const RESOURCE_EXHAUSTED: u16 = 8;
const UNIMPLEMENTED: u16 = 12;
const UNAVAILABLE: u16 = 14;
const UNAUTHENTICATED: u16 = 16;

/// Whether a request of HTTP/2 is a call of gRPC: `application/grpc`, alone or with the name of a codec.
pub fn is_call(headers: &HeaderMap) -> bool {
    let value = headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    match value.split_at_checked("application/grpc".len()) {
        Some((kind, rest)) => {
            kind.eq_ignore_ascii_case(b"application/grpc") && matches!(rest.first(), None | Some(b'+' | b';'))
        }
        None => false,
    }
}

/// What HTTP would say for the `grpc-status` of a head or of trailers. It is how the decision engine is told.
pub fn status(headers: &HeaderMap) -> Option<u16> {
    let code = headers.get(STATUS)?.to_str().ok().and_then(|code| code.parse().ok());
    Some(match code {
        Some(0) => 200,
        Some(1) => 499,
        Some(INVALID_ARGUMENT | 9 | 11) => 400,
        Some(DEADLINE_EXCEEDED) => 504,
        // A method that is not there is a mistake of the caller.
        Some(5 | UNIMPLEMENTED) => 404,
        Some(6 | 10) => 409,
        Some(7) => 403,
        Some(RESOURCE_EXHAUSTED) => 429,
        Some(UNAVAILABLE) => 503,
        Some(UNAUTHENTICATED) => 401,
        _ => 500,
    })
}

/// The trailers of an answer that the engine did not end.
pub fn broken_off() -> HeaderMap {
    trailers(UNAVAILABLE, "the inference engine broke off")
}

/// The trailers of an answer that took the engine too long.
pub fn too_late() -> HeaderMap {
    trailers(DEADLINE_EXCEEDED, "the inference engine did not go on in time")
}

/// The trailers of an answer whose tokens have run out: what is told, and which limit it was.
pub fn exhausted(message: &str, reason: HeaderValue) -> HeaderMap {
    let mut trailers = trailers(RESOURCE_EXHAUSTED, message);
    trailers.insert(super::REASON, reason);
    trailers
}

fn trailers(status: u16, message: &str) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert(STATUS, HeaderValue::from(status));
    if let Ok(message) = HeaderValue::try_from(encoded(message)) {
        trailers.insert(MESSAGE, message);
    }
    trailers
}

pub(super) fn render(status: StatusCode, message: &str) -> Response<Bytes> {
    let code = match status {
        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => RESOURCE_EXHAUSTED,
        StatusCode::GATEWAY_TIMEOUT => DEADLINE_EXCEEDED,
        StatusCode::METHOD_NOT_ALLOWED => UNIMPLEMENTED,
        StatusCode::UNAUTHORIZED => UNAUTHENTICATED,
        status if status.is_client_error() => INVALID_ARGUMENT,
        _ => UNAVAILABLE,
    };
    let mut response = Response::new(Bytes::new());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(STATUS, HeaderValue::from(code));
    if let Ok(message) = HeaderValue::try_from(encoded(message)) {
        headers.insert(MESSAGE, message);
    }
    response
}

/// Percent-encoded, but for printable ASCII.
fn encoded(message: &str) -> String {
    let mut encoded = String::with_capacity(message.len());
    for byte in message.bytes() {
        if (b' '..=b'~').contains(&byte) && byte != b'%' {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(kind: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, kind.parse().unwrap());
        is_call(&headers)
    }

    #[test]
    fn a_call_is_known_by_its_content_type() {
        for kind in ["application/grpc", "application/grpc+proto", "Application/GRPC;charset=x"] {
            assert!(call(kind), "{kind}");
        }
        for kind in ["application/grpc-web", "application/grpc-web+proto", "application/json", ""] {
            assert!(!call(kind), "{kind}");
        }
        assert!(!is_call(&HeaderMap::new()));
    }

    #[test]
    fn messages_are_percent_encoded_as_the_protocol_wants() {
        assert_eq!(encoded("100 % of \u{e9}\n"), "100 %25 of %C3%A9%0A");
    }

    #[test]
    fn what_is_the_caller_s_mistake_is_no_failure_of_the_engine() {
        for code in [0, 1, 3, 5, 6, 7, 8, 9, 10, 11, 12, 16] {
            let mut headers = HeaderMap::new();
            headers.insert(STATUS, HeaderValue::from(code));
            assert!(status(&headers).unwrap() < 500, "{code}");
        }
        for code in ["2", "4", "13", "14", "15", "17", "x", ""] {
            let mut headers = HeaderMap::new();
            headers.insert(STATUS, HeaderValue::from_static(code));
            assert!(status(&headers).unwrap() >= 500, "{code}");
        }
    }
}
