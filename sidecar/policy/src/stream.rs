//! The policy stream: HTTP/2 over TLS, watch semantics like the API server's own.
//!
//! ```text
//! GET /v1/policy?revision=R     authorization: Bearer <projected token, audience "tidegate">
//!                               accept-encoding: identity
//! 200, content-type: application/x-ndjson, one PolicyEvent per line
//!
//! POST /v1/report               the same authorization, body: Report, answered with 204
//! ```
//!
//! The server knows the pod from the token alone; neither request names one. `revision` is what the sidecar has
//! already: the server sends the document only when its own is another. A bookmark at least every
//! [`BOOKMARK_SECONDS`] shows that the stream lives; a client that hears nothing for three times as long connects
//! anew.

use serde::{Deserialize, Serialize};

use crate::PolicyDocument;

/// Path of the watch.
pub const WATCH_PATH: &str = "/v1/policy";
/// Path that takes reports.
pub const REPORT_PATH: &str = "/v1/report";
/// Audience of the token that a sidecar shows to the operator.
pub const OPERATOR_AUDIENCE: &str = "tidegate";
/// Audience of the token that a sidecar shows to its node's agent.
pub const AGENT_AUDIENCE: &str = "tidegate-agent";
/// Longest silence on a healthy stream.
pub const BOOKMARK_SECONDS: u64 = 10;

/// One line of the stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "SCREAMING_SNAKE_CASE")]
pub enum PolicyEvent {
    /// The document in force from now on. It travels as raw JSON so that one that does not validate can be
    /// refused by itself while the stream goes on.
    Modified {
        /// To be parsed with [`PolicyDocument::from_json`].
        document: serde_json::Value,
    },
    /// Nothing changed; the stream is alive.
    Bookmark {
        /// The revision that the server has for this pod.
        revision: String,
    },
    /// Whether Services still send traffic here. `withdrawn: true` lets a draining sidecar finish early.
    Endpoints {
        /// The pod is being deleted and no `EndpointSlice` lists it as ready any more.
        withdrawn: bool,
    },
}

impl PolicyEvent {
    /// The event that carries a document.
    pub fn modified(document: &PolicyDocument) -> Result<Self, serde_json::Error> {
        Ok(Self::Modified { document: serde_json::to_value(document)? })
    }
}
