//! Who is told when a breaker changes its state.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{FallbackService, FallbackTarget, defaults};

/// Somebody who is sent a `CloudEvent` when the breaker changes its state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "has(self.url) != has(self.service) && !(has(self.url) && has(self.path))"
).message(Hook::ONE))]
pub struct Hook {
    /// Its name in metrics and logs.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')").message(Hook::NAME))]
    pub name: String,
    /// A server, with the path that takes the event.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 8, max = 1024))]
    #[x_kube(validation = Rule::new(FallbackTarget::IS_URL).message(FallbackTarget::URL))]
    pub url: Option<String>,
    /// A Service of the cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<FallbackService>,
    /// The path of `service` that takes the event; `/` when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    #[x_kube(validation = Rule::new(crate::CircuitBreakerPolicySpec::IS_PATH)
        .message(crate::CircuitBreakerPolicySpec::FALLBACK))]
    pub path: Option<String>,
    /// `Sync`: the operator and async hooks are told when it has answered, or after 200 ms. Requests never wait.
    #[serde(default)]
    pub mode: HookMode,
    /// Of which changes.
    #[serde(default = "defaults::hook_events")]
    #[schemars(length(min = 1, max = 3), extend("x-kubernetes-list-type" = "set"))]
    pub on: Vec<HookEvent>,
}

impl Hook {
    /// What is said about a hook that is nowhere, or in two places.
    pub const ONE: &str = "a hook is at one place: write url, or service with or without path";
    /// What is said about a text that is no name.
    pub const NAME: &str = "not a name: write lower-case letters, digits and '-', such as audit";
}

/// Whether others wait until a hook knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum HookMode {
    /// Others are told after it.
    Sync,
    /// Nobody waits for it.
    #[default]
    Async,
}

/// A change of a breaker's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum HookEvent {
    /// To open.
    Opened,
    /// From open to half-open.
    HalfOpened,
    /// To closed.
    Closed,
}
