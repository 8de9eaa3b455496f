//! What answers in place of an engine.

use serde::{Deserialize, Serialize};

use crate::{HttpUrl, Millis, RelativePath};

/// Another path of the same engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FallbackPath {
    /// In place of the request's own.
    pub path: RelativePath,
}

/// Who answers in place of the engine, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Fallbacks {
    /// When; only while the breaker is open when absent.
    #[serde(default = "FallbackOn::default_list")]
    pub on: Vec<FallbackOn>,
    /// Tried in this order until one answers, 1 to 8.
    pub to: Vec<Fallback>,
}

/// When a fallback answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FallbackOn {
    /// The breaker is open.
    Open,
    /// There is no connection to the engine, so that it never had the request.
    ConnectFailure,
    /// The engine was too late with the head of its answer.
    Timeout,
    /// The engine answered with one of the failure statuses, or broke off before the head of its answer.
    Failure,
}

impl FallbackOn {
    fn default_list() -> Vec<Self> {
        vec![Self::Open]
    }
}

/// What answers in place of the engine's own endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Fallback {
    /// The same request to another path of the same engine, once, outside the breaker.
    Path(RelativePath),
    /// The request elsewhere, or with another model's name, or both; outside the breaker.
    Send(Destination),
    /// Always the same answer.
    Static(StaticAnswer),
    /// The last answer to an equal request of the same tenant.
    Cache(AnswerCache),
}

/// Where a request goes in place of the engine. At least one field is set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Destination {
    /// The server; the same engine when absent. A path of it stands in place of the request's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<HttpUrl>,
    /// The server is a Service of the cluster: it gets the client's credentials, which a server outside does not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub in_cluster: bool,
    /// The path in place of the request's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<RelativePath>,
    /// What the body's `model` is set to, 1 to 256 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
}

/// An answer that is always the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StaticAnswer {
    /// 200 to 599.
    pub status: u16,
    /// Its media type.
    pub content_type: String,
    /// At most 16 KiB.
    pub body: String,
}

/// Which answers are kept to be given again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AnswerCache {
    /// How old an answer may be.
    pub ttl_millis: Millis,
    /// 1 to 100000.
    pub max_entries: u32,
    /// Of all together, 64 KiB to 1 GiB. One answer takes at most an eighth.
    pub max_bytes: u64,
}
