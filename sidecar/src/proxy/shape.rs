//! What a request has to look like, and what it asks of its connection.

use http::header::{self, HeaderValue};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Method, Uri, Version};

use super::handler::Arrived;

impl Arrived {
    /// A path, an absolute URL or, for `OPTIONS`, a star (RFC 9112, 3.2). A bare authority is for `CONNECT`, and a user
    /// in one is a trick to hide the host.
    pub(super) fn has_target(&self) -> bool {
        let uri = &self.parts.uri;
        let origin = uri.scheme().is_some() || uri.authority().is_none();
        let userless = uri.authority().is_none_or(|authority| !authority.as_str().contains('@'));
        let path = match uri.path() {
            "*" => self.parts.method == Method::OPTIONS,
            "" => uri.scheme().is_some(),
            path => path.starts_with('/'),
        };
        origin && userless && path && !is_only_query(uri)
    }

    /// Exactly one, that is a name or an address with or without a port (RFC 9112, 3.2); older versions may have none.
    pub(super) fn has_host(&self) -> bool {
        let mut hosts = self.parts.headers.get_all(header::HOST).iter();
        match (hosts.next(), hosts.next()) {
            (None, _) => self.parts.version != Version::HTTP_11,
            (Some(host), None) => is_host(host.as_bytes()),
            (Some(_), Some(_)) => false,
        }
    }

    /// HTTP/2 in the clear would carry any number of requests past the decision: that upgrade is not passed on, and
    /// the request is answered in HTTP/1.1.
    pub(super) fn wants_upgrade(&self) -> bool {
        let asks = |name, token: &str| {
            self.parts.headers.get_all(name).iter().any(|value: &HeaderValue| {
                value
                    .as_bytes()
                    .split(|b| *b == b',')
                    .any(|t| t.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
            })
        };
        self.parts.version == Version::HTTP_11
            && self.parts.headers.contains_key(header::UPGRADE)
            && asks(header::CONNECTION, "upgrade")
            && !asks(header::UPGRADE, "h2c")
    }
}

/// Gives an absolute URL of HTTP/1.1 the path that it leaves out before its query (RFC 9112, 3.2.1): whatever reads it here,
/// and the engine, reads the same. The URL of a fallback, a key of an answer and a rule's path are all made of it.
pub(super) fn complete_target(parts: &mut Parts) {
    let is_url = parts.version != Version::HTTP_2 && parts.uri.scheme().is_some();
    if !is_url || !is_only_query(&parts.uri) {
        return;
    }
    let mut uri = parts.uri.clone().into_parts();
    // It is written with the slash that it lacks.
    let query = uri.path_and_query.take();
    uri.path_and_query = query.and_then(|query| PathAndQuery::try_from(query.to_string()).ok());
    if let Ok(complete) = Uri::from_parts(uri) {
        parts.uri = complete;
    }
}

fn is_only_query(uri: &Uri) -> bool {
    uri.path_and_query().is_some_and(|path| path.as_str().starts_with('?'))
}

/// `uri-host [ ":" port ]` (RFC 9110, 7.2), which may be empty.
fn is_host(value: &[u8]) -> bool {
    let behind_brackets = value.iter().rposition(|byte| *byte == b']').map_or(0, |at| at + 1);
    let colon = value[behind_brackets..].iter().position(|byte| *byte == b':');
    let (name, port) = value.split_at(colon.map_or(value.len(), |at| behind_brackets + at));
    let is_port = port.iter().skip(1).all(u8::is_ascii_digit);
    let is_unreserved = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(byte);
    let is_name = match name {
        [b'[', address @ .., b']'] => address.iter().all(|byte| is_unreserved(byte) || *byte == b':'),
        name => name.iter().all(|byte| is_unreserved(byte) || *byte == b'%'),
    };
    is_port && is_name
}

#[cfg(test)]
mod tests {
    use super::is_host;

    #[test]
    fn a_host_is_a_name_or_an_address_with_or_without_a_port() {
        for host in ["", "a", "llama-0.svc_x", "10.0.0.1:8000", "a:", "[::1]", "[fe80::1]:80", "%41", "a,b"] {
            assert!(is_host(host.as_bytes()), "{host}");
        }
        for other in [
            "a b", "a@b", "a/b", "a?b", "a:bc", "a:1:2", "::1", "[::1", "[a]b", "a\"", "a, b", "\u{e9}",
            "a#b",
        ] {
            assert!(!is_host(other.as_bytes()), "{other}");
        }
    }
}
