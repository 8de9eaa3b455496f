//! The last report of each pod whose stream this replica holds.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use tidegate_operator_core::key::PodKey;
use tidegate_operator_core::status::{PodReport, Reports};
use tidegate_policy::report::Report;

/// A sidecar reports every 10 s; after three silent periods its last word counts no more.
const EXPIRY: Duration = Duration::from_secs(35);

/// A report that was taken.
#[derive(Debug)]
pub(crate) struct Received {
    /// The one before, of the same pod.
    pub(crate) before: Option<Report>,
    /// This one.
    pub(crate) after: Report,
}

#[derive(Debug, Default)]
pub(super) struct Ledger {
    reports: Reports,
    received: BTreeMap<PodKey, Instant>,
}

impl Ledger {
    pub(super) const fn reports(&self) -> &Reports {
        &self.reports
    }

    pub(super) fn put(&mut self, pod: PodKey, uid: &str, report: Report, now: Instant) -> Received {
        self.received.insert(pod.clone(), now);
        let after = report.clone();
        let before = self.reports.insert(pod, PodReport { uid: uid.to_owned(), report });
        Received { before: before.filter(|before| before.uid == uid).map(|before| before.report), after }
    }

    pub(super) fn forget(&mut self, pods: &[&PodKey]) {
        for pod in pods {
            self.reports.remove(*pod);
            self.received.remove(*pod);
        }
    }

    /// Returns the namespaces of what it dropped.
    pub(super) fn expire(&mut self, now: Instant) -> BTreeSet<String> {
        let old = |at: &Instant| now.saturating_duration_since(*at) > EXPIRY;
        let expired: Vec<PodKey> =
            self.received.iter().filter(|(_, at)| old(at)).map(|(pod, _)| pod.clone()).collect();
        self.forget(&expired.iter().collect::<Vec<_>>());
        expired.into_iter().map(|pod| pod.namespace).collect()
    }
}
