//! What can answer in place of the inference engine.

pub mod answers;
pub mod model;
pub mod remote;

use http::HeaderMap;
use http::header::HeaderName;
use tidegate_policy::Fallback;

/// On a request: it comes from the fallback of another sidecar, and is not sent on to a third. On an answer: which kind of
/// fallback gave it.
pub const MARK: HeaderName = HeaderName::from_static("x-tidegate-fallback");

/// The fields by which clients show who they are.
pub const CREDENTIALS: [&str; 5] = ["authorization", "proxy-authorization", "cookie", "x-api-key", "api-key"];

/// As in headers, metrics and logs.
pub fn kind(fallback: &Fallback) -> &'static str {
    match fallback {
        Fallback::Path(_) => "path",
        Fallback::Send(to) => match (&to.url, to.in_cluster) {
            (Some(_), true) => "service",
            (Some(_), false) => "url",
            (None, _) => "model",
        },
        Fallback::Static(_) => "static",
        Fallback::Cache(_) => "cache",
    }
}

/// Whether a request comes from the fallback of another sidecar.
pub fn is_marked(headers: &HeaderMap) -> bool {
    headers.contains_key(MARK)
}
