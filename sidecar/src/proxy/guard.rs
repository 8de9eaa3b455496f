//! A panic ends the task it happens in, which is one request or one HTTP/1 connection, and is counted.

use std::sync::Arc;

use crate::shared::Shared;

/// Lives in a task; notices when the task unwinds.
pub(super) struct PanicGuard(Arc<Shared>);

impl PanicGuard {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self(shared)
    }
}

impl Drop for PanicGuard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.metrics.traffic.panicked();
        }
    }
}
