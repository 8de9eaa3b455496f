//! The lines of one stream.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Bytes;
use futures::Stream;
use futures::stream::unfold;
use tidegate_policy::stream::{BOOKMARK_SECONDS, PolicyEvent};
use tokio::time::{Instant, sleep_until};

use crate::metrics::Metrics;
use crate::shutdown::Shutdown;
use crate::world::{Subscription, View};

/// Half of the longest silence that the contract allows.
const BOOKMARK: Duration = Duration::from_secs(BOOKMARK_SECONDS / 2);
/// Every node's kube-proxy must have put the withdrawal in force before the engine may stop. It does so once a second at
/// most (`minSyncPeriod`), and takes its time on a node that is busy.
const PROPAGATION: Duration = Duration::from_secs(3);

/// Ends when the pod is gone or the replica stops; the sidecar then finds another replica.
pub(super) fn lines(
    subscription: Subscription,
    revision: Option<String>,
    metrics: Metrics,
    shutdown: Shutdown,
) -> impl Stream<Item = Result<Bytes, Infallible>> {
    metrics.streams.inc();
    let stream = Lines {
        subscription,
        told: Told { revision, withdrawn: false },
        was_listed: false,
        seen: false,
        settling: None,
        bookmark_at: Instant::now(),
        metrics: Counted(metrics),
        shutdown,
    };
    unfold(stream, |mut stream| async move {
        let event = stream.next().await?;
        let mut line = serde_json::to_vec(&event).ok()?;
        line.push(b'\n');
        Some((Ok(Bytes::from(line)), stream))
    })
}

/// What the sidecar knows.
struct Told {
    revision: Option<String>,
    withdrawn: bool,
}

struct Lines {
    subscription: Subscription,
    told: Told,
    was_listed: bool,
    seen: bool,
    settling: Option<Instant>,
    bookmark_at: Instant,
    metrics: Counted,
    shutdown: Shutdown,
}

/// A connected sidecar in the metric, until it is dropped.
struct Counted(Metrics);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.streams.dec();
    }
}

impl Lines {
    async fn next(&mut self) -> Option<PolicyEvent> {
        loop {
            let view = self.subscription.view();
            if view.is_none() && self.seen {
                return None;
            }
            if let Some(event) = view.as_ref().and_then(|view| self.due(view)) {
                self.bookmark_at = Instant::now() + BOOKMARK;
                return Some(event);
            }
            if Instant::now() >= self.bookmark_at {
                self.bookmark_at = Instant::now() + BOOKMARK;
                return Some(self.bookmark(view.as_ref()));
            }
            let wake = self.settling.map_or(self.bookmark_at, |at| at.min(self.bookmark_at));
            tokio::select! {
                () = self.shutdown.stopped() => return None,
                alive = self.subscription.changed() => if !alive { return None },
                () = sleep_until(wake) => {}
            }
        }
    }

    fn due(&mut self, view: &View) -> Option<PolicyEvent> {
        self.seen = true;
        if self.told.revision.as_deref() != Some(&view.document.revision) {
            return self.document(view);
        }
        let withdrawn = self.is_withdrawn(view);
        (withdrawn != self.told.withdrawn).then(|| {
            self.told.withdrawn = withdrawn;
            PolicyEvent::Endpoints { withdrawn }
        })
    }

    fn document(&mut self, view: &View) -> Option<PolicyEvent> {
        self.told.revision = Some(view.document.revision.clone());
        match PolicyEvent::modified(&view.document) {
            Ok(event) => {
                self.metrics.0.documents.inc();
                self.metrics.0.delay.observe(view.since.elapsed().as_secs_f64());
                Some(event)
            }
            Err(error) => {
                tracing::error!(%error, revision = view.document.revision, "a document could not be written");
                None
            }
        }
    }

    /// At once for a pod that no Service listed; else when every node had the time to hear of it.
    fn is_withdrawn(&mut self, view: &View) -> bool {
        if view.listed {
            (self.was_listed, self.settling) = (true, None);
            return false;
        }
        if !view.deleting {
            return false;
        }
        if !self.was_listed {
            return true;
        }
        let now = Instant::now();
        let at = *self.settling.get_or_insert(now + PROPAGATION);
        if now < at {
            return false;
        }
        self.settling = None;
        self.was_listed = false;
        true
    }

    fn bookmark(&self, view: Option<&View>) -> PolicyEvent {
        let revision = view.map(|view| view.document.revision.clone()).or_else(|| self.told.revision.clone());
        PolicyEvent::Bookmark { revision: revision.unwrap_or_default() }
    }
}
