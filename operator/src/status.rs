//! The status of policies, written by the leader. A change of a condition is written at once, anything else at most
//! every 5 s for each policy, and nothing while nothing changed.
//!
//! A replica knows the sidecars whose streams it holds; the other replicas send the leader what theirs report, so that
//! its counts cover all.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::stream::{self, StreamExt as _};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use tidegate_crds::{CircuitBreakerPolicy, PodCounts, PolicyAncestorStatus, RateLimitPolicy};
use tidegate_operator_core::key::{PolicyKey, PolicyKind};
use tidegate_operator_core::status::{Notice, NoticeType, PolicyStatus, after_status};
use tokio::sync::watch;

use crate::brief::brief;
use crate::events::Events;
use crate::metrics::{Metrics, Outcome};
use crate::world::World;

/// Between two writes of one policy's status.
const INTERVAL: Duration = Duration::from_secs(5);
/// Between two looks at what is due: what a thousand sidecars report within a moment is looked at once.
const PACE: Duration = Duration::from_millis(100);
/// Writes at the same time.
const AT_ONCE: usize = 8;
/// Before a write that failed is tried again.
const RETRY: Duration = Duration::from_secs(2);
/// After a start sidecars connect and report anew, after a change of leader the other replicas do. Until they have, a status that an earlier leader wrote for the
/// same generation stays as it is: counting the silent ones as out of date would show an outage that is none.
const WARM_UP: Duration = Duration::from_secs(12);
/// As in `managedFields`.
const MANAGER: &str = "tidegate-operator";

/// Writes what the world says.
pub(crate) struct StatusWriter {
    client: Client,
    world: Arc<World>,
    events: Events,
    metrics: Metrics,
    warm_at: Instant,
    pending: BTreeSet<PolicyKey>,
    /// When each policy was written last, and when a failed one may be tried again.
    written: HashMap<PolicyKey, Instant>,
    blocked: HashMap<PolicyKey, Instant>,
    /// Policies whose status this writer has written.
    own: BTreeSet<PolicyKey>,
}

impl StatusWriter {
    pub(crate) fn new(
        client: Client,
        world: Arc<World>,
        events: Events,
        metrics: Metrics,
        now: Instant,
    ) -> Self {
        let warm_at = now + WARM_UP;
        let (pending, own) = (BTreeSet::new(), BTreeSet::new());
        let (written, blocked) = (HashMap::new(), HashMap::new());
        Self { client, world, events, metrics, warm_at, pending, written, blocked, own }
    }

    /// Runs until nobody could make it leader any more.
    pub(crate) async fn run(mut self, mut leads: watch::Receiver<bool>) {
        loop {
            if leads.wait_for(|leads| *leads).await.is_err() {
                return;
            }
            self.pending = self.world.policies();
            self.own.clear();
            self.warm_at = self.warm_at.max(Instant::now() + WARM_UP);
            while *leads.borrow() {
                let now = Instant::now();
                self.world.expire_reports(now);
                self.pass(now).await;
                tokio::time::sleep(PACE).await;
                let wake = self.next_wake(Instant::now());
                tokio::select! {
                    () = self.world.status_due.notified() => {}
                    changed = leads.changed() => if changed.is_err() { return },
                    () = tokio::time::sleep(wake) => {}
                }
            }
        }
    }

    /// Writes what is due.
    async fn pass(&mut self, now: Instant) {
        self.pending.extend(self.world.take_dirty());
        if !self.world.is_synced() {
            return;
        }
        let mut due = Vec::new();
        for policy in self.pending.clone() {
            let time = Time(Timestamp::now());
            match self.judge(&policy, &time, now) {
                Due::Nothing => {
                    self.pending.remove(&policy);
                    self.blocked.remove(&policy);
                }
                Due::Gone => {
                    self.pending.remove(&policy);
                    self.blocked.remove(&policy);
                    self.own.remove(&policy);
                }
                Due::Later => {}
                Due::Now(change) => due.push((policy, change)),
            }
        }
        let client = &self.client.clone();
        let write = async |(policy, change): (PolicyKey, Box<Change>)| {
            let outcome = write(client, &policy, &change.after).await;
            (policy, change, outcome)
        };
        let mut writes = stream::iter(due).map(write).buffer_unordered(AT_ONCE);
        while let Some((policy, change, outcome)) = writes.next().await {
            self.note(&policy, *change, outcome, now);
        }
        self.written.retain(|_, at| now.saturating_duration_since(*at) < INTERVAL);
    }

    fn judge(&self, policy: &PolicyKey, time: &Time, now: Instant) -> Due {
        let (Some(after), Some(object)) = (self.world.status(policy, time), self.world.policy_object(policy))
        else {
            return Due::Gone;
        };
        let before = object.status;
        let after = keep_times(after, before.as_ref());
        if before.as_ref() == Some(&after) {
            return Due::Nothing;
        }
        let blocked = self.blocked.get(policy).is_some_and(|until| now < *until);
        let same_generation = before.as_ref().is_some_and(|before| generation(before) == generation(&after));
        let inherited = same_generation && !self.own.contains(policy);
        let silent =
            before.as_ref().is_some_and(|before| pods(before).out_of_date < pods(&after).out_of_date);
        if blocked || (inherited && silent && now < self.warm_at) {
            return Due::Later;
        }
        let recent = self.written.get(policy).is_some_and(|at| now.saturating_duration_since(*at) < INTERVAL);
        if recent && !after.is_urgent_after(before.as_ref()) {
            return Due::Later;
        }
        Due::Now(Box::new(Change { before, after }))
    }

    fn note(&mut self, policy: &PolicyKey, change: Change, outcome: kube::Result<()>, now: Instant) {
        let Change { before, after } = change;
        let outcome = match outcome {
            Ok(()) => {
                self.written.insert(policy.clone(), now);
                self.own.insert(policy.clone());
                self.announce(policy, before.as_ref(), &after);
                self.world.status_written(policy, after);
                "ok"
            }
            // It was deleted meanwhile, and the watch will say so.
            Err(kube::Error::Api(status)) if status.code == 404 => "gone",
            Err(error) => {
                tracing::warn!(policy = %policy, kind = policy.kind.as_str(), error = brief(&error), "a status could not be written");
                "failed"
            }
        };
        if outcome == "ok" {
            self.blocked.remove(policy);
        } else {
            self.blocked.insert(policy.clone(), now + RETRY);
        }
        self.metrics.status_writes.get_or_create(&Outcome { outcome }).inc();
    }

    fn announce(&self, policy: &PolicyKey, before: Option<&PolicyStatus>, after: &PolicyStatus) {
        if let Some(notice) = after_status(policy, before, after) {
            self.events.publish(notice);
        }
        let uninjected = |status: &PolicyStatus| pods(status).uninjected;
        let missing = uninjected(after);
        if missing > 0 && before.is_none_or(|before| uninjected(before) == 0) {
            let advice = rotate(after).map(|command| format!("; run: {command}")).unwrap_or_default();
            self.events.publish(Notice {
                policy: policy.clone(),
                pod: None,
                type_: NoticeType::Warning,
                reason: "PodsWithoutSidecar",
                action: "Report",
                note: format!("{missing} pods that the policy selects have no sidecar{advice}"),
            });
        }
    }

    /// How long to sleep when nothing happens.
    fn next_wake(&self, now: Instant) -> Duration {
        let due = |policy: &PolicyKey| {
            let interval = self.written.get(policy).map_or(now, |at| *at + INTERVAL);
            let blocked = self.blocked.get(policy).copied().unwrap_or(now);
            let warm = if self.own.contains(policy) { now } else { self.warm_at };
            interval.max(blocked).max(warm)
        };
        let pending = self.pending.iter().map(due);
        pending
            .map(|at| at.saturating_duration_since(now))
            .min()
            .unwrap_or(INTERVAL)
            .clamp(Duration::from_millis(50), INTERVAL)
    }
}

struct Change {
    before: Option<PolicyStatus>,
    after: PolicyStatus,
}

enum Due {
    Gone,
    Nothing,
    Later,
    Now(Box<Change>),
}

async fn write(client: &Client, policy: &PolicyKey, status: &PolicyStatus) -> kube::Result<()> {
    let resource = match policy.kind {
        PolicyKind::RateLimitPolicy => ApiResource::erase::<RateLimitPolicy>(&()),
        PolicyKind::CircuitBreakerPolicy => ApiResource::erase::<CircuitBreakerPolicy>(&()),
    };
    // Applied, not merged, so that a field that is left out goes away.
    let object = json!({
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": {"name": policy.name, "namespace": policy.namespace},
        "status": status,
    });
    let api = Api::<DynamicObject>::namespaced_with(client.clone(), &policy.namespace, &resource);
    let params = PatchParams::apply(MANAGER).force();
    api.patch_status(&policy.name, &params, &Patch::Apply(object)).await.map(drop)
}

/// A condition whose status did not change keeps its time of transition, also while the watch has not brought back
/// what was written last.
fn keep_times(mut after: PolicyStatus, before: Option<&PolicyStatus>) -> PolicyStatus {
    let Some(before) = before else { return after };
    let held = ancestors_of(before).to_vec();
    let (conditions, ancestors) = match &mut after {
        PolicyStatus::RateLimit(status) => (&mut status.conditions, &mut status.ancestors),
        PolicyStatus::CircuitBreaker(status) => (&mut status.conditions, &mut status.ancestors),
    };
    keep(conditions, before.conditions());
    for ancestor in ancestors {
        if let Some(same) = held.iter().find(|held| held.ancestor_ref == ancestor.ancestor_ref) {
            keep(&mut ancestor.conditions, &same.conditions);
        }
    }
    after
}

fn keep(conditions: &mut [Condition], held: &[Condition]) {
    for condition in conditions {
        let same = held.iter().find(|held| held.type_ == condition.type_ && held.status == condition.status);
        if let Some(same) = same {
            condition.last_transition_time = same.last_transition_time.clone();
        }
    }
}

fn ancestors_of(status: &PolicyStatus) -> &[PolicyAncestorStatus] {
    match status {
        PolicyStatus::RateLimit(status) => &status.ancestors,
        PolicyStatus::CircuitBreaker(status) => &status.ancestors,
    }
}

fn generation(status: &PolicyStatus) -> Option<i64> {
    match status {
        PolicyStatus::RateLimit(status) => status.observed_generation,
        PolicyStatus::CircuitBreaker(status) => status.observed_generation,
    }
}

fn pods(status: &PolicyStatus) -> PodCounts {
    match status {
        PolicyStatus::RateLimit(status) => status.pods,
        PolicyStatus::CircuitBreaker(status) => status.pods,
    }
}

fn rotate(status: &PolicyStatus) -> Option<&str> {
    match status {
        PolicyStatus::RateLimit(status) => status.rotate.as_deref(),
        PolicyStatus::CircuitBreaker(status) => status.rotate.as_deref(),
    }
}

#[cfg(test)]
mod tests;
