//! Who is told of a breaker's changes.

use serde::{Deserialize, Serialize};

use crate::HttpUrl;

/// Somebody who is told when the breaker changes its state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Hook {
    /// Its name in metrics and logs, 1 to 63 characters.
    pub name: String,
    /// Where the event is posted to.
    pub url: HttpUrl,
    /// Whether others wait until it knows.
    pub mode: HookMode,
    /// Of which changes.
    pub on: Vec<HookEvent>,
}

/// Whether others wait until a hook knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum HookMode {
    /// The operator and other hooks are told after it, or after 200 ms. Requests never wait.
    Sync,
    /// Nobody does.
    Async,
}

/// A change of a breaker's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum HookEvent {
    /// To open.
    Opened,
    /// From open to half-open.
    HalfOpened,
    /// To closed.
    Closed,
}
