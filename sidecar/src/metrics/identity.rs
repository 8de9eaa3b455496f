//! What became of callers' tokens and API keys.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Counts of tokens and keys.
#[derive(Debug, Default)]
pub struct Identity {
    tokens: Family<[(&'static str, &'static str); 1], Counter>,
    key_set_errors: Counter,
    keys: Family<[(&'static str, &'static str); 1], Counter>,
    known_keys: Gauge,
}

impl Identity {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let this = Self::default();
        registry.register("jwt", "Tokens of callers, by what became of them", this.tokens.clone());
        let errors = "Readings of an issuer's key set that failed";
        registry.register("jwt_key_set_errors", errors, this.key_set_errors.clone());
        registry.register(
            "api_key",
            "Requests that an API key is looked for in, by what was found",
            this.keys.clone(),
        );
        for outcome in ["known", "unknown", "absent"] {
            drop(this.keys.get_or_create(&[("outcome", outcome)]));
        }
        registry.register("api_keys", "API keys that are known", this.known_keys.clone());
        this
    }

    /// A token was looked at; `outcome` is `verified`, `cached` or the word for a rejection.
    pub fn judged(&self, outcome: &'static str) {
        self.tokens.get_or_create(&[("outcome", outcome)]).inc();
    }

    /// A request was looked at; `outcome` is `known`, `unknown` or `absent`.
    pub fn key(&self, outcome: &'static str) {
        self.keys.get_or_create(&[("outcome", outcome)]).inc();
    }

    /// So many API keys are known.
    pub fn keys(&self, known: usize) {
        self.known_keys.set(i64::try_from(known).unwrap_or(i64::MAX));
    }

    /// A key set could not be read.
    pub fn key_set_error(&self) {
        self.key_set_errors.inc();
    }
}
