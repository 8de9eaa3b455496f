//! What became of callers' tokens.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// Counts of tokens.
#[derive(Debug, Default)]
pub struct Identity {
    tokens: Family<[(&'static str, &'static str); 1], Counter>,
    key_set_errors: Counter,
}

impl Identity {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let this = Self::default();
        registry.register("jwt", "Tokens of callers, by what became of them", this.tokens.clone());
        let errors = "Readings of an issuer's key set that failed";
        registry.register("jwt_key_set_errors", errors, this.key_set_errors.clone());
        this
    }

    /// A token was looked at; `outcome` is `verified`, `cached` or the word for a rejection.
    pub fn judged(&self, outcome: &'static str) {
        self.tokens.get_or_create(&[("outcome", outcome)]).inc();
    }

    /// A key set could not be read.
    pub fn key_set_error(&self) {
        self.key_set_errors.inc();
    }
}
