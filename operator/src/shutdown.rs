//! The way out, in two steps: *leaving* makes the replica unready while it still serves, so that Services withdraw
//! it before it stops; *stopped* ends the servers.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Serving,
    Leaving,
    Stopped,
}

/// Observed by everything that runs; clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Shutdown(watch::Receiver<Stage>);

/// Moves the stages on.
#[derive(Debug)]
pub(crate) struct Trigger(watch::Sender<Stage>);

/// A trigger and what it triggers.
pub(crate) fn channel() -> (Trigger, Shutdown) {
    let (sender, receiver) = watch::channel(Stage::Serving);
    (Trigger(sender), Shutdown(receiver))
}

impl Trigger {
    pub(crate) fn leave(&self) {
        self.0.send_replace(Stage::Leaving);
    }

    pub(crate) fn stop(&self) {
        self.0.send_replace(Stage::Stopped);
    }
}

impl Shutdown {
    pub(crate) fn is_leaving(&self) -> bool {
        *self.0.borrow() >= Stage::Leaving
    }

    /// Returns when the replica is on its way out, though it still serves, or when nobody could tell it any more.
    pub(crate) async fn leaving(&self) {
        let mut receiver = self.0.clone();
        let _ = receiver.wait_for(|stage| *stage >= Stage::Leaving).await;
    }

    /// Returns when the servers have to end, or when nobody could tell them any more.
    pub(crate) async fn stopped(&self) {
        let mut receiver = self.0.clone();
        let _ = receiver.wait_for(|stage| *stage == Stage::Stopped).await;
    }
}

/// Returns at SIGTERM or SIGINT.
pub(crate) async fn requested() -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
