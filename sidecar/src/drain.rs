//! The way out: what is in flight, and whether new connections should be kept.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Shared by all threads; clones are the same drain.
#[derive(Debug, Clone, Default)]
pub struct Drain(Arc<State>);

#[derive(Debug, Default)]
struct State {
    draining: AtomicBool,
    stopped: AtomicBool,
    in_flight: AtomicUsize,
    arrivals: AtomicU64,
    /// Woken when the drain starts, when it stops accepting, and when the last request ends while draining.
    changed: Notify,
}

/// One request or spliced connection in flight; over when dropped.
#[derive(Debug)]
pub struct InFlight(Drain);

impl Drain {
    /// From now on answers carry `connection: close`. Requests that still arrive are served: the endpoints of the
    /// pod may not be withdrawn everywhere yet.
    pub fn start(&self) {
        self.0.draining.store(true, Ordering::SeqCst);
        self.0.changed.notify_waiters();
    }

    /// Whether it has started.
    pub fn is_draining(&self) -> bool {
        self.0.draining.load(Ordering::Relaxed)
    }

    /// Requests and spliced connections in flight.
    pub fn in_flight(&self) -> usize {
        self.0.in_flight.load(Ordering::SeqCst)
    }

    /// Requests and spliced connections that came since the drain started. Not counted before, when nobody asks.
    pub fn arrivals(&self) -> u64 {
        self.0.arrivals.load(Ordering::Relaxed)
    }

    /// Counts one until the guard is dropped.
    pub fn enter(&self) -> InFlight {
        if self.is_draining() {
            self.0.arrivals.fetch_add(1, Ordering::Relaxed);
        }
        self.0.in_flight.fetch_add(1, Ordering::SeqCst);
        InFlight(self.clone())
    }

    /// Returns when nothing is in flight, at once if so already. Only meaningful after [`start`](Self::start).
    pub async fn idle(&self) {
        self.until(|state| state.in_flight.load(Ordering::SeqCst) == 0).await;
    }

    /// Ends the accept loops: no connection is accepted any more, and `proxy::serve` returns.
    pub fn stop(&self) {
        self.0.stopped.store(true, Ordering::SeqCst);
        self.start();
    }

    /// Returns when [`start`](Self::start) was called.
    pub async fn started(&self) {
        self.until(|state| state.draining.load(Ordering::SeqCst)).await;
    }

    /// Returns when [`stop`](Self::stop) was called.
    pub async fn stopped(&self) {
        self.until(|state| state.stopped.load(Ordering::SeqCst)).await;
    }

    async fn until(&self, reached: impl Fn(&State) -> bool) {
        loop {
            let changed = self.0.changed.notified();
            tokio::pin!(changed);
            // Registered before the look, so that a change between the two is not missed.
            changed.as_mut().enable();
            if reached(&self.0) {
                return;
            }
            changed.await;
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let state = &self.0.0;
        if state.in_flight.fetch_sub(1, Ordering::SeqCst) == 1 && state.draining.load(Ordering::SeqCst) {
            state.changed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn within<T>(future: impl Future<Output = T>) -> Option<T> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async { tokio::time::timeout(Duration::from_secs(10), future).await.ok() })
    }

    #[test]
    fn idle_waits_for_the_last_guard() {
        let drain = Drain::default();
        let first = drain.enter();
        let second = drain.enter();
        drain.start();
        drop(first);
        assert_eq!(drain.in_flight(), 1);
        let other = drain.clone();
        let ended = within(async move {
            let waiting = tokio::spawn(async move { other.idle().await });
            tokio::task::yield_now().await;
            assert!(!waiting.is_finished());
            drop(second);
            waiting.await
        });
        assert!(ended.is_some_and(|joined| joined.is_ok()));
    }

    #[test]
    fn idle_returns_at_once_when_nothing_is_in_flight() {
        assert!(within(async { Drain::default().idle().await }).is_some());
    }
}
