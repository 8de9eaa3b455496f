//! What became of the events for hooks.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use tidegate_policy::{Hook, HookMode};

/// Counts of hooks. Their names come from policies, which have at most eight.
#[derive(Debug, Default)]
pub struct Hooks {
    asked: Family<[(&'static str, String); 3], Counter>,
}

/// What has become of one event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HookOutcome {
    /// It was taken.
    Delivered,
    /// The hook could not be reached, or refused it.
    Failed,
    /// The hook did not answer in time.
    TimedOut,
    /// It was too late before the hook was asked, or too many waited.
    Dropped,
}

impl Hooks {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let this = Self::default();
        registry.register("hooks", "Events for hooks, by what became of them", this.asked.clone());
        this
    }

    /// An event for this hook has come to its end.
    pub fn asked(&self, hook: &Hook, outcome: HookOutcome) {
        let mode = match hook.mode {
            HookMode::Sync => "sync",
            HookMode::Async => "async",
        };
        let outcome = match outcome {
            HookOutcome::Delivered => "delivered",
            HookOutcome::Failed => "failed",
            HookOutcome::TimedOut => "timed_out",
            HookOutcome::Dropped => "dropped",
        };
        let labels =
            [("hook", hook.name.clone()), ("mode", mode.to_owned()), ("outcome", outcome.to_owned())];
        self.asked.get_or_create(&labels).inc();
    }
}
