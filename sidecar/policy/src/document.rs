//! The document as a whole.

use serde::{Deserialize, Serialize};

use crate::errors::{DocumentError, DocumentErrors};
use crate::{Breaker, Concurrency, Identity, KeyPart, Limit, Priority, Queue, Tiers, lenient};

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
    /// Who is told what is left of the limits. `OnRefusal` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit_headers: Option<RateLimitHeaders>,
    /// What the keys may take of those limits that are exact logs or say how many keys they have.
    /// [`PolicyDocument::LIMIT_MEMORY_BYTES`] when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_memory_bytes: Option<u64>,
    /// The circuit breaker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breaker: Option<Breaker>,
    /// The limit of requests in flight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<Concurrency>,
    /// Where requests wait that find no place in flight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<Queue>,
}

/// Which answers tell what is left of the limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum RateLimitHeaders {
    /// Every answer to a request that was judged.
    Always,
    /// Refusals.
    #[default]
    OnRefusal,
    /// None.
    Never,
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
            rate_limit_headers: None,
            limit_memory_bytes: None,
            breaker: None,
            concurrency: None,
            queue: None,
        }
    }
}

impl PolicyDocument {
    /// Largest document that is read, in bytes.
    pub const MAX_BYTES: usize = 1 << 20;
    /// Most rules that one pod can be asked to judge.
    pub const MAX_LIMITS: usize = 64;
    /// What the keys of limits may take together, where it has to be asked for: 64 MiB.
    pub const LIMIT_MEMORY_BYTES: u64 = 64 << 20;

    /// What the keys of its limits take, and of these, as far as they have to ask for it: exact logs, and rules that
    /// say how many keys they have.
    pub fn limit_memory_with(&self, limits: &[Limit]) -> u64 {
        self.limits.iter().chain(limits).map(Limit::asked_bytes).fold(0, u64::saturating_add)
    }

    /// Whether some limit counts tokens, so that somebody has to say how many a request uses.
    pub fn counts_tokens(&self) -> bool {
        self.limits.iter().any(|limit| !limit.cost.is_requests())
    }

    /// Whether some rule needs what only the begin of a request's body tells: its model, or its tokens.
    pub fn reads_prompts(&self) -> bool {
        let limits = self.limits.iter().map(|limit| &limit.key);
        let queue = self.queue.iter().map(|queue| &queue.tenant);
        let breaker = self.breaker.iter().filter_map(|breaker| breaker.per.as_ref()).map(|per| &per.key);
        let tiers = self.priority.from.iter().any(|source| source.service_tier);
        self.counts_tokens()
            || tiers
            || limits.chain(queue).chain(breaker).any(|key| key.contains(&KeyPart::Model))
    }

    /// Parses and validates. Errors name the place and what to write there.
    pub fn from_json(json: &[u8]) -> Result<Self, DocumentErrors> {
        if json.len() > Self::MAX_BYTES {
            let message = format!("{} bytes are too many: write at most 1 MiB", json.len());
            return Err(DocumentError::at("document", message).into());
        }
        let reader = &mut serde_json::Deserializer::from_slice(json);
        let parsed: Result<Self, _> = serde_path_to_error::deserialize(&mut *reader);
        let document = parsed.map_err(|error| {
            let first = DocumentError::at(error.path().to_string(), error.inner().to_string());
            all_mistakes(json, first)
        })?;
        reader.end().map_err(|error| DocumentError::at("document", error.to_string()))?;
        document.validate()?;
        Ok(document)
    }
}

/// All mistakes of a document of which the first is known. That one alone, where the text is not JSON, or has a
/// mistake that only the text shows, such as a field that is written twice; and where it is so large that to look for
/// others would take long.
fn all_mistakes(json: &[u8], first: DocumentError) -> DocumentErrors {
    const LARGE: usize = 128 * 1024;
    let value = serde_json::from_slice(json).ok().filter(|_| json.len() <= LARGE);
    let mistakes = value.map(lenient::mistakes).unwrap_or_default();
    DocumentErrors::unless_empty(mistakes).err().unwrap_or_else(|| first.into())
}
