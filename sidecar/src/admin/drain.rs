//! `/drain/<token>`: what the engine's preStop hook waits for. The kubelet stops the engine when this answers, and an
//! engine such as vLLM aborts its requests then; so it is held while requests may still come or run.

use std::time::Duration;

use serde::Serialize;
use tokio::time::{Instant, interval, sleep_until};
use tracing::info;

use super::Admin;

/// Without an operator nobody says when the endpoints are withdrawn; this long without a new request says that
/// they probably are.
const QUIET: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(50);

/// Why the hook may go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
enum Reason {
    /// No Service sends traffic here any more, and nothing is in flight.
    EndpointsWithdrawn,
    /// No operator is connected, no request came for a while, and nothing is in flight.
    Quiet,
    /// The grace period is nearly over.
    Deadline,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    reason: Reason,
    in_flight: usize,
    waited_millis: u128,
}

/// Starts the drain, waits, and answers with a line of JSON. The deadline counts from the first call.
pub(super) async fn hold(admin: &Admin) -> Vec<u8> {
    let asked = Instant::now();
    let began = *admin.drain_began.get_or_init(|| {
        info!("drain begins");
        asked
    });
    admin.shared.drain.start();
    let reason = tokio::select! {
        reason = settled(admin) => reason,
        () = sleep_until(began + admin.drain_deadline) => Reason::Deadline,
    };
    let in_flight = admin.shared.drain.in_flight();
    let answer = Answer { reason, in_flight, waited_millis: asked.elapsed().as_millis() };
    info!(?reason, in_flight, waited_millis = answer.waited_millis, "drain ends");
    let mut line = serde_json::to_vec(&answer).unwrap_or_default();
    line.push(b'\n');
    line
}

async fn settled(admin: &Admin) -> Reason {
    let mut looks = interval(LOOK);
    let mut quiet = Quiet { since: Instant::now(), arrivals: admin.shared.drain.arrivals() };
    loop {
        looks.tick().await;
        let idle = admin.shared.drain.in_flight() == 0;
        let quiet = quiet.look(admin.shared.drain.arrivals(), idle, Instant::now());
        let state = admin.keeper.state();
        if idle && state.operator_connected && state.endpoints_withdrawn {
            return Reason::EndpointsWithdrawn;
        }
        if idle && !state.operator_connected && quiet >= QUIET {
            return Reason::Quiet;
        }
    }
}

struct Quiet {
    since: Instant,
    arrivals: u64,
}

impl Quiet {
    /// How long no request came.
    fn look(&mut self, arrivals: u64, idle: bool, now: Instant) -> Duration {
        if arrivals != self.arrivals || !idle {
            *self = Self { since: now, arrivals };
        }
        now - self.since
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_between_two_looks_is_not_overlooked() {
        let start = Instant::now();
        let mut quiet = Quiet { since: start, arrivals: 0 };
        assert_eq!(quiet.look(0, true, start + QUIET), QUIET);
        assert_eq!(quiet.look(1, true, start + QUIET), Duration::ZERO);
        assert_eq!(quiet.look(1, true, start + QUIET + LOOK), LOOK);
        assert_eq!(quiet.look(1, false, start + QUIET * 2), Duration::ZERO);
    }
}
