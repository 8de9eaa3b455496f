//! The state of the decision engine as gauges, taken from its snapshot at each scrape.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tidegate_policy::report::{BreakerState, BreakerStatus, LimitStatus, StageState, StageStatus, Status};

use super::engine_load::{Exported, Load};
use super::tiers::Tiers;

type Real = Gauge<f64, AtomicU64>;
type Label = (&'static str, &'static str);
/// From the policy.
type Owned = (&'static str, String);

#[derive(Debug, Default)]
pub(super) struct EngineState {
    /// Two scrapes at once would mix their readings. Never taken on the way of a request.
    scrape: Mutex<()>,
    tiers: Tiers,
    pressure: Real,
    load: Arc<Load>,
    breaker_state: Family<[Label; 1], Gauge>,
    breaker_transitions: Family<[Label; 2], Counter>,
    breaker_groups: Family<[Label; 1], Gauge>,
    breaker_stage_state: Family<[Owned; 2], Gauge>,
    breaker_stage_over: Family<[Owned; 1], Real>,
    breaker_stage_out_of_memory: Family<[Owned; 1], Gauge>,
    limit_size: Family<[Owned; 2], Gauge>,
    limit_remaining: Family<[Owned; 2], Gauge>,
    /// Without labels; none where nothing is configured.
    breaker_failure_ratio: Family<[Label; 0], Real>,
    concurrency_limit: Family<[Label; 0], Gauge>,
    concurrency_in_flight: Family<[Label; 0], Gauge>,
    queue_length: Family<[Label; 0], Gauge>,
}

impl EngineState {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let this = Self { tiers: Tiers::register(registry), ..Self::default() };
        registry.register_collector(Box::new(Exported(Arc::clone(&this.load))));
        registry.register("pressure_ratio", "The one pressure score, 0 to 1", this.pressure.clone());
        registry.register("breaker_state", "1 for the state the breaker is in", this.breaker_state.clone());
        registry.register(
            "breaker_transitions",
            "Transitions of the breaker",
            this.breaker_transitions.clone(),
        );
        registry.register(
            "breaker_failure_ratio",
            "Share of failures among the calls of the breaker's window",
            this.breaker_failure_ratio.clone(),
        );
        let help = "Values of a key that have a breaker of their own, by its state";
        registry.register("breaker_groups", help, this.breaker_groups.clone());
        let help = "1 for the state that the breaker of a stage is in";
        registry.register("breaker_stage_state", help, this.breaker_stage_state.clone());
        let help = "Share of a stage's times in its window that are over what its breaker allows";
        registry.register("breaker_stage_over_ratio", help, this.breaker_stage_over.clone());
        let help = "How often the engine ran out of memory in the window of a stage's breaker";
        registry.register("breaker_stage_out_of_memory", help, this.breaker_stage_out_of_memory.clone());
        let help = "What may count at once for one key of a limit";
        registry.register("limit_size", help, this.limit_size.clone());
        let help = "How much of that is left, where all requests of the pod count together";
        registry.register("limit_remaining", help, this.limit_remaining.clone());
        registry.register(
            "concurrency_limit",
            "Requests that may be in flight",
            this.concurrency_limit.clone(),
        );
        registry.register(
            "concurrency_in_flight",
            "Requests that hold a place in flight",
            this.concurrency_in_flight.clone(),
        );
        registry.register(
            "queue_length",
            "Requests that wait for a place in flight",
            this.queue_length.clone(),
        );
        this
    }

    pub(super) fn set(&self, status: &Status) {
        let _scrape = self.scrape.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        self.pressure.set(status.pressure);
        self.load.set(status.engine);
        self.tiers.set(&status.tiers);
        // Cleared first, so that a breaker that a policy took away disappears.
        self.breaker_state.clear();
        self.breaker_transitions.clear();
        self.breaker_failure_ratio.clear();
        self.breaker_groups.clear();
        self.breaker_stage_state.clear();
        self.breaker_stage_over.clear();
        self.breaker_stage_out_of_memory.clear();
        if let Some(breaker) = &status.breaker {
            self.set_breaker(breaker);
        }
        self.set_places(status);
        self.set_limits(&status.limits);
    }

    fn set_limits(&self, limits: &[LimitStatus]) {
        self.limit_size.clear();
        self.limit_remaining.clear();
        for limit in limits {
            let labels = [("policy", limit.policy.clone()), ("rule", limit.name.clone())];
            self.limit_size.get_or_create(&labels).set(number(limit.size));
            if let Some(remaining) = limit.remaining {
                self.limit_remaining.get_or_create(&labels).set(number(remaining));
            }
        }
    }

    fn set_places(&self, status: &Status) {
        self.concurrency_limit.clear();
        self.concurrency_in_flight.clear();
        self.queue_length.clear();
        if let Some(places) = &status.concurrency {
            self.concurrency_limit.get_or_create(&[]).set(number(places.limit));
            self.concurrency_in_flight.get_or_create(&[]).set(number(places.in_flight));
        }
        if let Some(queue) = &status.queue {
            self.queue_length.get_or_create(&[]).set(number(queue.length));
        }
    }

    fn set_breaker(&self, breaker: &BreakerStatus) {
        for state in BreakerState::ALL {
            self.breaker_state
                .get_or_create(&[("state", state.as_str())])
                .set(i64::from(state == breaker.state));
        }
        for transition in &breaker.transitions {
            self.breaker_transitions
                .get_or_create(&[("from", transition.from.as_str()), ("to", transition.to.as_str())])
                .inner()
                .store(transition.count, Ordering::Relaxed);
        }
        if let Some(ratio) = breaker.failure_ratio {
            self.breaker_failure_ratio.get_or_create(&[]).set(ratio);
        }
        if let Some(groups) = &breaker.groups {
            let closed = groups.tracked.saturating_sub(groups.open + groups.half_open);
            for (state, count) in [
                (BreakerState::Closed, closed),
                (BreakerState::Open, groups.open),
                (BreakerState::HalfOpen, groups.half_open),
            ] {
                self.breaker_groups.get_or_create(&[("state", state.as_str())]).set(number(count));
            }
        }
        breaker.stages.iter().for_each(|stage| self.set_stage(stage));
    }

    fn set_stage(&self, stage: &StageStatus) {
        let name = || ("stage", stage.stage.as_str().to_owned());
        for state in StageState::ALL {
            let labels = [name(), ("state", state.as_str().to_owned())];
            self.breaker_stage_state.get_or_create(&labels).set(i64::from(state == stage.state));
        }
        if let Some(over) = stage.over_ratio {
            self.breaker_stage_over.get_or_create(&[name()]).set(over);
        }
        if let Some(count) = stage.out_of_memory {
            self.breaker_stage_out_of_memory.get_or_create(&[name()]).set(number(count));
        }
    }
}

fn number(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
