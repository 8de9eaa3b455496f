//! The last report of each pod whose stream this replica holds or that another replica has sent on.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use tidegate_operator_core::key::PodKey;
use tidegate_operator_core::status::{PodReport, Reports};
use tidegate_policy::report::Report;

use crate::forward::Forwarded;

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
    /// Pods that told this replica something that the leader has not been told.
    unforwarded: BTreeSet<PodKey>,
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

    /// The report came from the pod itself.
    pub(super) fn note_unforwarded(&mut self, pods: impl IntoIterator<Item = PodKey>) {
        self.unforwarded.extend(pods.into_iter().filter(|pod| self.reports.contains_key(pod)));
    }

    /// The reports that the leader has not been told, which it is now.
    pub(super) fn take_unforwarded(&mut self) -> Vec<Forwarded> {
        let pods = std::mem::take(&mut self.unforwarded).into_iter();
        let forwarded = |pod: PodKey| {
            let PodReport { uid, report } = self.reports.get(&pod)?.clone();
            Some(Forwarded::new(pod, uid, report))
        };
        pods.filter_map(forwarded).collect()
    }

    pub(super) fn forget(&mut self, pods: &[&PodKey]) {
        for pod in pods {
            self.reports.remove(*pod);
            self.received.remove(*pod);
            self.unforwarded.remove(*pod);
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
