//! Header fields that belong to one connection and are never passed on (RFC 9110, 7.6.1).

use http::header::{self, HeaderMap, HeaderName};

/// Names that the sender's `Connection` field nominates, beside the usual ones.
#[derive(Debug, Default)]
pub(super) struct Nominated(Vec<Vec<u8>>);

impl Nominated {
    /// From the values of all `Connection` fields.
    pub(super) fn from_values<'a>(values: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut names = Vec::new();
        for token in values.flat_map(|value| value.split(|byte| *byte == b',')).map(<[u8]>::trim_ascii) {
            if !is_connection_option(token) {
                names.push(token.to_ascii_lowercase());
            }
        }
        Self(names)
    }

    pub(super) fn of(headers: &HeaderMap) -> Self {
        if headers.contains_key(header::CONNECTION) {
            Self::from_values(headers.get_all(header::CONNECTION).iter().map(http::HeaderValue::as_bytes))
        } else {
            Self::default()
        }
    }

    fn contains(&self, name: &HeaderName) -> bool {
        self.0.iter().any(|nominated| nominated == name.as_str().as_bytes())
    }

    /// Whether the field stays on its connection. `Host` and `Content-Length` are part of the message itself: a
    /// sender cannot nominate them away.
    pub(super) fn keeps(&self, name: &HeaderName) -> bool {
        if *name == header::HOST || *name == header::CONTENT_LENGTH {
            return false;
        }
        is_hop_by_hop(name) || self.contains(name)
    }
}

/// Takes out every field that stays on its connection.
pub(in crate::proxy) fn strip(headers: &mut HeaderMap) {
    let nominated = Nominated::of(headers);
    let staying: Vec<HeaderName> = headers.keys().filter(|name| nominated.keeps(name)).cloned().collect();
    for name in staying {
        headers.remove(name);
    }
}

/// Whether one of the comma-separated tokens of the `Connection` fields is `token`.
pub(super) fn has_option<'a>(mut values: impl Iterator<Item = &'a [u8]>, token: &str) -> bool {
    values.any(|value| {
        value.split(|byte| *byte == b',').any(|t| t.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
    })
}

fn is_connection_option(token: &[u8]) -> bool {
    token.is_empty()
        || [&b"close"[..], b"keep-alive", b"upgrade", b"te"].iter().any(|o| token.eq_ignore_ascii_case(o))
}

fn is_hop_by_hop(name: &HeaderName) -> bool {
    *name == header::CONNECTION
        || *name == header::TRANSFER_ENCODING
        || *name == header::UPGRADE
        || *name == header::TE
        || matches!(name.as_str(), "keep-alive" | "proxy-connection" | "http2-settings")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keeps(connection: &str, name: &str) -> bool {
        let nominated = Nominated::from_values(std::iter::once(connection.as_bytes()));
        nominated.keeps(&HeaderName::from_bytes(name.as_bytes()).unwrap())
    }

    #[test]
    fn nominated_fields_stay_whatever_their_case_and_spacing() {
        assert!(keeps("close,  X-Internal ,keep-alive", "x-internal"));
        assert!(!keeps("close", "x-internal"));
    }

    #[test]
    fn hop_by_hop_fields_stay_without_being_nominated() {
        for name in ["connection", "Keep-Alive", "transfer-encoding", "TE", "upgrade", "proxy-connection"] {
            assert!(keeps("", name), "{name}");
        }
    }

    #[test]
    fn host_and_content_length_cannot_be_nominated_away() {
        assert!(!keeps("host, content-length", "host"));
        assert!(!keeps("host, content-length", "content-length"));
    }
}
