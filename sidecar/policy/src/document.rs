//! The document as a whole.

use serde::{Deserialize, Serialize};

use crate::errors::{DocumentError, DocumentErrors};
use crate::{Breaker, Identity, Limit, Priority, Tiers};

/// The version of the document's schema.
pub const API_VERSION: &str = "policy.tidegate.dev/v1";

/// All that one pod obeys. Two pods under the same policies get equal documents.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PolicyDocument {
    /// Always [`API_VERSION`].
    pub api_version: String,
    /// Names the content: equal revisions are equal documents.
    pub revision: String,
    /// The adaptive tiers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tiers: Option<Tiers>,
    /// Whose tokens are believed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Identity>,
    /// Priority classes.
    #[serde(default)]
    pub priority: Priority,
    /// Limits by key, at most 64.
    #[serde(default)]
    pub limits: Vec<Limit>,
    /// The circuit breaker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breaker: Option<Breaker>,
}

impl Default for PolicyDocument {
    /// The document of a pod that no policy selects: everything passes.
    fn default() -> Self {
        Self {
            api_version: API_VERSION.to_owned(),
            revision: "none".to_owned(),
            tiers: None,
            identity: None,
            priority: Priority::default(),
            limits: Vec::new(),
            breaker: None,
        }
    }
}

impl PolicyDocument {
    /// Largest document that is read, in bytes.
    pub const MAX_BYTES: usize = 1 << 20;
    /// Most rules that one pod can be asked to judge.
    pub const MAX_LIMITS: usize = 64;

    /// Parses and validates. Errors name the place and what to write there.
    pub fn from_json(json: &[u8]) -> Result<Self, DocumentErrors> {
        if json.len() > Self::MAX_BYTES {
            let message = format!("{} bytes are too many: write at most 1 MiB", json.len());
            return Err(DocumentError::at("document", message).into());
        }
        let reader = &mut serde_json::Deserializer::from_slice(json);
        let document: Self = serde_path_to_error::deserialize(&mut *reader)
            .map_err(|error| DocumentError::at(error.path().to_string(), error.inner().to_string()))?;
        reader.end().map_err(|error| DocumentError::at("document", error.to_string()))?;
        document.validate()?;
        Ok(document)
    }
}
