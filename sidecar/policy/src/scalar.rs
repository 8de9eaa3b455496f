//! The units of a policy document. A value outside of its type's range cannot be constructed.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Why a scalar was refused. The text says what to write instead.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct ScalarError(pub(crate) String);

/// Whether a policy is enforced or only decides, counts and logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Mode {
    /// Decisions are carried out.
    #[default]
    Enforce,
    /// Decisions are made, counted and logged, and every request passes.
    Shadow,
}

/// A length of time in whole milliseconds, at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct Millis(u64);

impl Millis {
    /// The longest duration a document may hold: 31 days.
    pub const MAX: u64 = 31 * 24 * 3600 * 1000;
    pub(crate) const HALF_A_MINUTE: Self = Self(30_000);

    /// Milliseconds, from 1 to [`Millis::MAX`].
    pub fn new(millis: u64) -> Result<Self, ScalarError> {
        if (1..=Self::MAX).contains(&millis) {
            Ok(Self(millis))
        } else {
            Err(ScalarError(format!("{millis} ms is out of range: write 1 to {} (31 days)", Self::MAX)))
        }
    }

    /// The same length as a [`Duration`].
    pub const fn duration(self) -> Duration {
        Duration::from_millis(self.0)
    }

    /// The number of milliseconds.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl TryFrom<u64> for Millis {
    type Error = ScalarError;
    fn try_from(millis: u64) -> Result<Self, Self::Error> {
        Self::new(millis)
    }
}

impl From<Millis> for u64 {
    fn from(millis: Millis) -> Self {
        millis.0
    }
}

macro_rules! float_scalar {
    ($(#[$doc:meta])* $name:ident, $valid:expr, $range:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize)]
        #[serde(try_from = "f64", into = "f64")]
        pub struct $name(f64);

        impl $name {
            /// Checks the range that the type's description gives.
            pub fn new(value: f64) -> Result<Self, ScalarError> {
                let valid: fn(f64) -> bool = $valid;
                if value.is_finite() && valid(value) {
                    Ok(Self(value))
                } else {
                    Err(ScalarError(format!(concat!("{} is out of range: write ", $range), value)))
                }
            }

            /// The number itself.
            pub const fn get(self) -> f64 {
                self.0
            }
        }

        impl TryFrom<f64> for $name {
            type Error = ScalarError;
            fn try_from(value: f64) -> Result<Self, Self::Error> {
                Self::new(value)
            }
        }

        impl From<$name> for f64 {
            fn from(value: $name) -> Self {
                value.0
            }
        }
    };
}

float_scalar!(
    /// A share of a whole: more than 0, at most 1.
    Ratio, |v| v > 0.0 && v <= 1.0, "a number over 0 and up to 1, such as 0.75 for 75 %"
);
float_scalar!(
    /// A multiplier: more than 0, at most 1000.
    Factor, |v| v > 0.0 && v <= 1000.0, "a number over 0 and up to 1000, such as 1.5"
);
float_scalar!(
    /// What one token counts: 0 to 1000, to the millionth.
    Weight, |v| (0.0..=1000.0).contains(&v), "a number from 0 to 1000, such as 0.25"
);
float_scalar!(
    /// Requests per second: more than 0, at most a thousand million.
    Rate, |v| v > 0.0 && v <= 1e9, "a number of requests per second over 0 and up to 1000000000"
);

impl Ratio {
    pub(crate) const P99: Self = Self(0.99);
}

/// The name of an HTTP header field, in lower case (RFC 9110 §5.1).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HeaderName(String);

impl HeaderName {
    /// Takes any letter case; refuses what is not a token of RFC 9110 §5.6.2 or is longer than 128 bytes.
    pub fn new(name: &str) -> Result<Self, ScalarError> {
        let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        if !name.is_empty() && name.len() <= 128 && name.bytes().all(token) {
            Ok(Self(name.to_ascii_lowercase()))
        } else {
            Err(ScalarError(format!(
                "{name:?} is not a header name: write letters, digits and '-', such as \"x-api-key\""
            )))
        }
    }

    /// The name in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for HeaderName {
    type Error = ScalarError;
    fn try_from(name: String) -> Result<Self, Self::Error> {
        Self::new(&name)
    }
}

impl From<HeaderName> for String {
    fn from(name: HeaderName) -> Self {
        name.0
    }
}

/// The path of a request to the same engine, such as `/fallback/payment`: begins with one `/`, without spaces,
/// control characters, a fragment or a host.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RelativePath(String);

impl RelativePath {
    /// Refuses what could leave the engine's own host or break a request line.
    pub fn new(path: &str) -> Result<Self, ScalarError> {
        let plain = path.bytes().all(|b| b.is_ascii_graphic() && b != b'#');
        if path.starts_with('/') && !path.starts_with("//") && plain && path.len() <= 1024 {
            Ok(Self(path.to_owned()))
        } else {
            Err(ScalarError(format!(
                "{path:?} is not a path on the same engine: write one that begins with a single '/', such as \"/fallback/payment\""
            )))
        }
    }

    /// The path as it goes into the request line.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for RelativePath {
    type Error = ScalarError;
    fn try_from(path: String) -> Result<Self, Self::Error> {
        Self::new(&path)
    }
}

impl From<RelativePath> for String {
    fn from(path: RelativePath) -> Self {
        path.0
    }
}

/// The address of an HTTP server, such as `http://llama-small.inference.svc:8000`, with or without a path.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HttpUrl(String);

impl HttpUrl {
    /// Takes `http` and `https`, a name or an address, a port and a path. Refuses users, fragments, and whatever could
    /// break a request line.
    pub fn new(url: &str) -> Result<Self, ScalarError> {
        if url.len() <= 1024 && Self::is_valid(url) {
            return Ok(Self(url.to_owned()));
        }
        Err(ScalarError(format!(
            "{url:?} is not the address of a server: write one such as \"http://llama-small.inference.svc:8000\""
        )))
    }

    fn is_valid(url: &str) -> bool {
        let Some(rest) = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://")) else {
            return false;
        };
        let (authority, path) = rest.find(['/', '?', '#']).map_or((rest, ""), |at| rest.split_at(at));
        let path_fits = path.is_empty() || RelativePath::new(path).is_ok();
        let bracketed = authority.strip_prefix('[').and_then(|rest| rest.split_once(']'));
        let named = || authority.find(':').map_or((authority, ""), |at| authority.split_at(at));
        let (host, port) = bracketed.map_or_else(
            || (is_host(named().0), named().1),
            |(address, port)| (address.parse::<std::net::Ipv6Addr>().is_ok(), port),
        );
        let port_fits = port.is_empty()
            || port.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
        path_fits && host && port_fits
    }

    /// The text as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Labels of letters, digits and '-', divided by dots.
fn is_host(name: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

impl TryFrom<String> for HttpUrl {
    type Error = ScalarError;
    fn try_from(url: String) -> Result<Self, Self::Error> {
        Self::new(&url)
    }
}

impl From<HttpUrl> for String {
    fn from(url: HttpUrl) -> Self {
        url.0
    }
}

/// One status of a response, such as `429`, or a class of them, such as `5xx`: 400 to 599.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum StatusMatch {
    /// All statuses of 400 to 499, or of 500 to 599, by their first digit.
    Class(u8),
    /// This one.
    Exactly(u16),
}

impl StatusMatch {
    /// Failures, where a policy does not say which: 5xx.
    pub const FAILURES: [Self; 1] = [Self::Class(5)];
    /// Backpressure, where a policy does not say which: 429 and 503.
    pub const BACKPRESSURE: [Self; 2] = [Self::Exactly(429), Self::Exactly(503)];

    /// `4xx`, `5xx` or a number from 400 to 599.
    pub fn new(text: &str) -> Result<Self, ScalarError> {
        let exact = || text.parse().ok().filter(|status| (400..600).contains(status)).map(Self::Exactly);
        match text {
            "4xx" => Ok(Self::Class(4)),
            "5xx" => Ok(Self::Class(5)),
            _ => exact().filter(|_| text.len() == 3).ok_or_else(|| {
                ScalarError(format!(
                    "{text:?} is neither a status nor a class of them: write \"4xx\", \"5xx\" or one such as \"500\""
                ))
            }),
        }
    }
}

impl TryFrom<String> for StatusMatch {
    type Error = ScalarError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::new(&text)
    }
}

impl From<StatusMatch> for String {
    fn from(status: StatusMatch) -> Self {
        match status {
            StatusMatch::Class(class) => format!("{class}xx"),
            StatusMatch::Exactly(status) => status.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_read_back_to_the_last_bit() {
        for share in [1e-30, 0.1 + 0.2, f64::MIN_POSITIVE, 1.0 / 3.0] {
            let written = serde_json::to_string(&Ratio::new(share).unwrap()).unwrap();
            assert_eq!(
                serde_json::from_str::<Ratio>(&written).unwrap(),
                Ratio::new(share).unwrap(),
                "{written}"
            );
        }
    }
}
