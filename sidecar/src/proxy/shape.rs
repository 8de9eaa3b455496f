//! What a request has to look like, and what it asks of its connection.

use http::header::{self, HeaderValue};
use http::{Method, Version};

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
        origin && userless && path
    }

    pub(super) fn has_host(&self) -> bool {
        match self.parts.headers.get_all(header::HOST).iter().count() {
            0 => self.parts.version != Version::HTTP_11,
            hosts => hosts == 1,
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
