//! A panic is a defect, and ends no more than the task it happens in: a stream, or a connection of HTTP/1, which carries
//! one request at a time. What the request held comes back as its parts are dropped.

use std::sync::Arc;

use tokio::task::JoinHandle;

use crate::shared::Shared;

/// Starts a task on this thread. A panic in it is counted.
pub(super) fn spawn(shared: Arc<Shared>, future: impl Future<Output = ()> + 'static) -> JoinHandle<()> {
    let guard = PanicGuard(shared);
    tokio::task::spawn_local(async move {
        let _guard = guard;
        future.await;
    })
}

/// Notices when the task it lives in unwinds.
struct PanicGuard(Arc<Shared>);

impl Drop for PanicGuard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.metrics.traffic.panicked();
        }
    }
}

#[cfg(test)]
mod tests {
    use tidegate_core::Engine;
    use tidegate_policy::PolicyDocument;
    use tokio::runtime::{Builder, LocalOptions};

    use super::*;
    use crate::caps::Caps;
    use crate::clock::Clock;
    use crate::proxy::progress::Progress;

    #[test]
    fn a_panic_ends_its_own_request_gives_back_what_it_held_and_is_counted() {
        let clock = Clock::new();
        let engine = Engine::new(&PolicyDocument::default(), 7, clock.now());
        let shared = Arc::new(Shared::new(engine, clock, Caps::DEFAULT));
        let runtime = Builder::new_current_thread().build_local(LocalOptions::default()).unwrap();
        runtime.block_on(async {
            let progress = Progress::new(shared.clone(), None, shared.clock.now());
            let fails = spawn(shared.clone(), async move {
                let _held = progress;
                tokio::task::yield_now().await;
                panic!("a defect");
            });
            let goes_on = spawn(shared.clone(), async {
                for _ in 0..10 {
                    tokio::task::yield_now().await;
                }
            });
            assert!(fails.await.unwrap_err().is_panic());
            goes_on.await.unwrap();
        });
        assert_eq!(shared.drain.in_flight(), 0);
        assert!(shared.render_metrics().contains("tidegate_request_panics_total 1\n"));
    }
}
