//! What answered in place of the inference engine.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// Counts of fallbacks.
#[derive(Debug, Default)]
pub struct Fallbacks {
    tried: Family<[(&'static str, &'static str); 2], Counter>,
}

/// What has become of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FallbackOutcome {
    /// Its answer went to the client.
    Answered,
    /// It was asked, and failed too.
    Failed,
    /// It was not for this request.
    Skipped,
}

impl Fallbacks {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let this = Self::default();
        let help = "Fallbacks that were tried, by kind and what became of them";
        registry.register("fallbacks", help, this.tried.clone());
        this
    }

    /// A fallback of this kind was tried.
    pub fn tried(&self, kind: &'static str, outcome: FallbackOutcome) {
        let outcome = match outcome {
            FallbackOutcome::Answered => "answered",
            FallbackOutcome::Failed => "failed",
            FallbackOutcome::Skipped => "skipped",
        };
        self.tried.get_or_create(&[("kind", kind), ("outcome", outcome)]).inc();
    }
}
