//! A request that waits for its place in flight.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use tidegate_core::{Admission, Decision, Engine, Refusal, Waiting};

use super::request_body::{BodyError, RequestBody};
use crate::drain::InFlight;
use crate::shared::Shared;

/// No more of a body is taken than this.
const AHEAD: usize = 64 * 1024;

/// Leaves the queue when it is dropped before its turn has come.
struct Queued {
    shared: Arc<Shared>,
    engine: Arc<Engine>,
    waiting: Option<Waiting>,
    _in_flight: InFlight,
}

impl Drop for Queued {
    fn drop(&mut self) {
        if let Some(waiting) = self.waiting.take() {
            self.shared.turns.leave(waiting.place());
            let turns = self.engine.leave(self.shared.clock.now(), waiting);
            self.shared.turns.call(&turns);
        }
    }
}

/// Waits until the request is let in or refused. Meanwhile some of its body is taken: a client that leaves is seen only
/// behind what it has sent. An error: it did.
pub(super) async fn wait(
    shared: &Arc<Shared>,
    engine: &Arc<Engine>,
    waiting: Waiting,
    mut body: Option<&mut RequestBody>,
) -> Result<Result<Admission, Refusal>, BodyError> {
    let began = shared.clock.now();
    let mut queued = Queued {
        shared: Arc::clone(shared),
        engine: Arc::clone(engine),
        waiting: Some(waiting),
        _in_flight: shared.drain.enter(),
    };
    let mut turn = pin!(queued.turn());
    let verdict = poll_fn(|cx| {
        if let Some(taken) = body.as_mut()
            && let Poll::Ready(taken) = taken.poll_ahead(cx, AHEAD)
        {
            taken?;
            body = None;
        }
        turn.as_mut().poll(cx).map(Ok::<_, BodyError>)
    })
    .await?;
    shared.metrics.traffic.queued(shared.clock.now().since(began));
    Ok(verdict)
}

impl Queued {
    async fn turn(&mut self) -> Result<Admission, Refusal> {
        let place = self.waiting.as_ref().map(Waiting::place);
        let called = place.map(|place| self.shared.turns.enter(place)).unwrap_or_default();
        loop {
            // Asked before the first call, which may have come before anybody waited for it.
            if let Some(waiting) = self.waiting.take() {
                let verdict = match self.engine.resume(self.shared.clock.now(), waiting) {
                    Decision::Queue(waiting) => {
                        self.waiting = Some(waiting);
                        None
                    }
                    Decision::Admit(admission) => Some(Ok(admission)),
                    Decision::Refuse(refusal) | Decision::Fallback(refusal) => Some(Err(refusal)),
                };
                if let Some(verdict) = verdict {
                    if let Some(place) = place {
                        self.shared.turns.leave(place);
                    }
                    return verdict;
                }
            }
            called.notified().await;
        }
    }
}
