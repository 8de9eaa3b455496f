//! Reading slowly, where not reading at all would keep what is held from being given back.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Sleep, sleep};

/// Between two reads.
const BETWEEN: Duration = Duration::from_millis(50);

/// Lets one read through in every [`BETWEEN`].
#[derive(Debug, Default)]
pub(super) struct Pause(Option<Pin<Box<Sleep>>>);

impl Pause {
    /// Ready when the next read may go on.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let waited = self.0.get_or_insert_with(|| Box::pin(sleep(BETWEEN))).as_mut().poll(cx);
        if waited.is_ready() {
            self.0 = None;
        }
        waited
    }
}
