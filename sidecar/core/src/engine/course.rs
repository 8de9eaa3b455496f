//! What becomes of a request that was let in: its head, its first byte, its end.

use std::time::Duration;

use tidegate_policy::LatencySignal;

use super::{Engine, Ticket};
use crate::breaker::FirstByte;
use crate::lane::Lane;
use crate::queue::Place;
use crate::{Completion, HeadOutcome, Tick};

impl Engine {
    /// The head of the response is there, or will not come. At most once for each ticket.
    pub fn responded(&self, now: Tick, ticket: &mut Ticket, outcome: HeadOutcome) {
        let elapsed = now.since(ticket.admitted);
        if let (Some(breaker), Some(call)) = (&self.breaker, &mut ticket.call) {
            breaker.responded(now, call, outcome, elapsed);
        }
        ticket.failed = !matches!(outcome, HeadOutcome::Status(..400));
        if !ticket.failed {
            self.meter.succeed(Lane::of_this_thread());
        }
        if matches!(outcome, HeadOutcome::TimedOut | HeadOutcome::Status(429 | 503)) && self.places.is_some()
        {
            self.flow.drop_one(Lane::of_this_thread());
        }
        if outcome == HeadOutcome::TimedOut {
            // The longest latencies of all would be missing, if only answers counted.
            self.record_latency(LatencySignal::TotalLatency, elapsed);
            self.record_latency(LatencySignal::TimeToFirstToken, elapsed);
        }
    }

    /// The first byte of the response's body is there. To be called when it is, not at the end of a stream: without it
    /// a breaker that looks at latency and the limit of places learn of it from `complete`, and the latency tier takes
    /// whoever has no first byte yet for one that waits for it.
    pub fn first_byte(&self, now: Tick, ticket: &mut Ticket) {
        if let Some(latencies) = &self.latencies {
            latencies.first_byte(Lane::of_this_thread(), &mut ticket.slot);
        }
        if let (Some(breaker), Some(call)) = (&self.breaker, &mut ticket.call) {
            breaker.first_byte(now, call, FirstByte::After(now.since(ticket.admitted)));
        }
        if self.places.is_some() && !std::mem::replace(&mut ticket.begun, true) {
            self.begin(ticket, Some(now), true);
        }
    }

    /// The inference engine stopped in the middle of its answer, or was cut off there: a failure. At most once for each
    /// ticket, after `responded`.
    pub fn broke_off(&self, now: Tick, ticket: &mut Ticket) {
        if let (Some(breaker), Some(call)) = (&self.breaker, &mut ticket.call) {
            breaker.broke_off(now, call);
        }
    }

    /// The request is over. Without `responded` before, it ends without a verdict on the engine. Returns those who
    /// waited for it to end.
    #[allow(clippy::needless_pass_by_value)] // a ticket ends here: nobody may complete it twice
    pub fn complete(&self, now: Tick, mut ticket: Ticket, completion: &Completion) -> Vec<Place> {
        self.count_out(&mut ticket);
        if let (Some(breaker), Some(call)) = (&self.breaker, ticket.call.take()) {
            let elapsed = now.since(ticket.admitted);
            let first = match completion.first_byte {
                Some(first) => FirstByte::After(first.since(ticket.admitted)),
                // A response without a body.
                None if completion.whole => FirstByte::After(elapsed),
                None => FirstByte::LaterThan(elapsed),
            };
            breaker.complete(now, call, first);
        }
        self.limits.complete(now, std::mem::take(&mut ticket.held), completion.tokens.as_ref());
        if !ticket.failed {
            self.record_latencies(now, &ticket, completion);
        }
        self.end_place(now, &ticket, completion)
    }

    /// It is in flight no longer.
    fn count_out(&self, ticket: &mut Ticket) {
        let lane = Lane::of_this_thread();
        self.meter.complete(lane);
        if let Some(latencies) = &self.latencies {
            latencies.leave(lane, &mut ticket.slot);
        }
    }

    fn record_latencies(&self, now: Tick, ticket: &Ticket, completion: &Completion) {
        if completion.whole {
            self.record_latency(LatencySignal::TotalLatency, now.since(ticket.admitted));
        }
        if let Some(first) = completion.first_byte {
            self.record_latency(LatencySignal::TimeToFirstToken, first.since(ticket.admitted));
            let gaps = u32::try_from(completion.events.saturating_sub(1)).unwrap_or(u32::MAX);
            if gaps > 0 {
                self.record_latency(LatencySignal::TimePerOutputToken, now.since(first) / gaps);
            }
        }
    }

    /// The request left before it reached the engine: it gives back all that can be given back. Returns
    /// those who waited for that.
    #[allow(clippy::needless_pass_by_value)] // as in `complete`
    pub fn cancel(&self, now: Tick, mut ticket: Ticket) -> Vec<Place> {
        self.count_out(&mut ticket);
        if let (Some(breaker), Some(call)) = (&self.breaker, ticket.call.take()) {
            breaker.give_back(now, call);
        }
        self.limits.cancel(std::mem::take(&mut ticket.held));
        self.end_place(now, &ticket, &Completion::default())
    }

    fn record_latency(&self, signal: LatencySignal, latency: Duration) {
        if let Some(latencies) = &self.latencies {
            latencies.record(signal, latency);
        }
    }
}
