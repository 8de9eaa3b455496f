//! What answers in place of an engine.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Bytes, Duration, defaults};

/// Who answers in place of the engine, and when.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Fallback {
    /// When. Behind the head of the engine's answer nothing is replaced.
    #[serde(default = "defaults::fallback_on")]
    #[schemars(length(min = 1, max = 4), extend("x-kubernetes-list-type" = "set"))]
    pub on: Vec<FallbackOn>,
    /// Tried in this order until one answers.
    #[schemars(length(min = 1, max = 8), extend("x-kubernetes-list-type" = "atomic"))]
    pub to: Vec<FallbackTarget>,
}

/// When a fallback answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum FallbackOn {
    /// The breaker is open.
    Open,
    /// There is no connection to the engine, so that it never had the request.
    ConnectFailure,
    /// The head of its answer did not come in time.
    Timeout,
    /// It answered with one of `failureStatuses`, or broke off before the head of its answer.
    Failure,
}

/// One of those who may answer: one of `path`, `url`, `service`, `static` and `cache`, or `model`, which goes with the
/// first three too; `path` goes with `service`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "[has(self.url), has(self.service), has(self.static), has(self.cache), (has(self.path) || has(self.model)) && !has(self.url) && !has(self.service)].filter(named, named).size() == 1 && !(has(self.url) && has(self.path))"
).message(FallbackTarget::ONE))]
pub struct FallbackTarget {
    /// A path in place of the request's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    #[x_kube(validation = Rule::new(crate::CircuitBreakerPolicySpec::IS_PATH)
        .message(crate::CircuitBreakerPolicySpec::FALLBACK))]
    pub path: Option<String>,
    /// Another server, inside of the cluster or not. It is not sent the client's credentials.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 8, max = 1024))]
    #[x_kube(validation = Rule::new(FallbackTarget::IS_URL).message(FallbackTarget::URL))]
    pub url: Option<String>,
    /// A Service of the cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<FallbackService>,
    /// Another name in the body's `model`. Bodies of more than 64 KiB are not rewritten.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub model: Option<String>,
    /// Always the same answer.
    #[serde(rename = "static", skip_serializing_if = "Option::is_none")]
    pub static_answer: Option<StaticAnswer>,
    /// The last answer to an equal request of the same tenant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<AnswerCache>,
}

impl FallbackTarget {
    /// What is said about a target that is none, or several.
    pub const ONE: &str = "not one fallback: write path, url, service, static or cache, or model, which goes with path, url and service; path goes with service too";
    /// The rule of a text that is a server.
    pub const IS_URL: &str =
        "self.matches('^https?://([A-Za-z0-9.-]+|\\\\[[0-9a-fA-F:.]+\\\\])(:[0-9]{1,5})?([/?][!-\"$-~]*)?$')";
    /// What is said about a text that is no server.
    pub const URL: &str =
        "not the address of a server: write one such as http://llama-small.inference.svc:8000";
}

/// A port of a Service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct FallbackService {
    /// Its name.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')").message(crate::CircuitBreakerPolicySpec::SERVICE))]
    pub name: String,
    /// Its namespace; that of the policy when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')").message(FallbackService::NAMESPACE))]
    pub namespace: Option<String>,
    /// Its port, which speaks HTTP.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
}

impl FallbackService {
    /// What is said about a text that no namespace can be named.
    pub const NAMESPACE: &str =
        "not the name of a namespace: write lower-case letters, digits and '-', such as inference";
}

/// An answer that is always the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct StaticAnswer {
    /// Its status.
    #[serde(default = "defaults::static_status")]
    #[schemars(range(min = 200, max = 599))]
    pub status: i32,
    /// The media type of `body`.
    #[serde(default = "defaults::content_type")]
    #[schemars(length(min = 3, max = 128))]
    #[x_kube(validation = Rule::new("self.matches('^[ -~]+$') && self.contains('/')").message(StaticAnswer::TYPE))]
    pub content_type: String,
    /// Its body, as it stands.
    #[serde(default)]
    #[schemars(length(max = 16384))]
    pub body: String,
}

impl StaticAnswer {
    /// What is said about a text that is no media type.
    pub const TYPE: &str = "not a media type: write one such as application/json";
}

/// Answers that are kept to be given again. `{}` takes all defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AnswerCache {
    /// How old an answer may be.
    #[serde(default = "defaults::cache_ttl")]
    pub ttl: Duration,
    /// The oldest make room for more.
    #[serde(default = "defaults::cache_entries")]
    #[schemars(range(min = 1, max = 100_000))]
    pub max_entries: i32,
    /// Of all together in each pod, `64Ki` to `1Gi`; one answer takes at most an eighth.
    #[serde(default = "defaults::cache_bytes")]
    pub max_bytes: Bytes,
}
