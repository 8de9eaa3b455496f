//! The queue, as requests meet it.

use std::sync::Arc;
use std::time::Duration;

use tidegate_policy::{KeyPart, Mode, Queue};

use crate::Rule;
use crate::limit::Hasher;
use crate::sync::{AtomicU64, Ordering::Relaxed};

/// Where requests wait in vain, those that may wait for each one that will be served meanwhile: enough for the queue to
/// choose among tenants. The others are refused at once, rather than after a wait that ends the same way.
const STOCK: f64 = 4.0;
/// Requests that may wait however slowly places come free.
const LEAST_USEFUL: usize = 4;

/// What the policy says of the queue, and how many may wait in it.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) rule: Arc<Rule>,
    pub(super) mode: Mode,
    pub(super) most: usize,
    pub(super) timeout: Duration,
    pub(super) tenant: Box<[KeyPart]>,
    pub(super) hasher: Hasher,
    useful: AtomicU64,
}

impl Line {
    pub(super) fn new(queue: &Queue, rule: Arc<Rule>, seed: u64) -> Self {
        Self {
            rule,
            mode: queue.mode,
            most: queue.max_length as usize,
            timeout: queue.timeout_millis.duration(),
            tenant: queue.tenant.clone().into(),
            hasher: Hasher::new(seed),
            useful: AtomicU64::new(u64::from(queue.max_length)),
        }
    }

    /// As many as may wait now.
    pub(super) fn useful(&self) -> usize {
        self.useful.load(Relaxed) as usize
    }

    /// Sets how many may wait: those of whom some are served in time when `per_second` are and others have waited in
    /// vain, and as many as the policy says while nobody has.
    pub(super) fn shorten(&self, per_second: Option<f64>) {
        let useful = per_second.map_or(self.most, |rate| {
            let served = (rate * self.timeout.as_secs_f64() * STOCK).ceil();
            (served as usize).clamp(LEAST_USEFUL.min(self.most), self.most)
        });
        self.useful.store(useful as u64, Relaxed);
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    #[test]
    fn as_many_may_wait_as_the_policy_says_until_some_have_waited_in_vain() {
        let queue = serde_json::json!({"policy": "n/p", "mode": "Enforce", "maxLength": 64, "timeoutMillis": 2000, "tenant": []});
        let queue: Queue = serde_json::from_value(queue).unwrap();
        let line =
            Line::new(&queue, Arc::new(Rule { policy: "n/p".to_owned(), name: "queue".to_owned() }), 1);
        assert_eq!(line.useful(), 64);
        for (per_second, useful) in
            [(Some(3.5), 28), (Some(0.0), 4), (Some(1e9), 64), (Some(0.1), 4), (None, 64)]
        {
            line.shorten(per_second);
            assert_eq!(line.useful(), useful, "{per_second:?} a second");
        }
    }
}
