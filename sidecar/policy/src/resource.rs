//! Limits of any resource, in one common unit.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Algorithm, Factor, Millis};

/// How much of all resources together may be used, by everybody, by each tenant and by one request. Resources are
/// made comparable by what one of each counts: with `{"a100": 20}` two of them are 40 units.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ResourceLimits {
    /// Units of one of each resource: of a request, a token, a GiB of GPU memory, a CPU core, a GPU of some model.
    pub units: BTreeMap<String, Factor>,
    /// What everybody may use together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub global: Option<Quota>,
    /// What each tenant may use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<Quota>,
    /// Units that one request may ask for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<Factor>,
}

/// A limit in units.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Quota {
    /// `Concurrency` for what is occupied and given back, such as memory; any other but an exact log for what flows,
    /// such as tokens. A `burst` is in units too.
    pub algorithm: Algorithm,
    /// Units, at least one.
    pub limit: u64,
    /// The window. `Concurrency` has none; every other algorithm needs one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window_millis: Option<Millis>,
}
