//! A request from its arrival to its end, as the decision engine and the metrics see it.

use std::sync::Arc;
use std::time::Duration;

use tidegate_core::{Completion, Engine, HeadOutcome, Tick, Ticket};

use super::patience::Late;
use super::sse::EventCounter;
use crate::drain::InFlight;
use crate::metrics::End;
use crate::route::Operation;
use crate::shared::Shared;
use crate::trace::Span;

/// Ends exactly once: with [`Progress::finish`], or as broken off when it is dropped.
#[derive(Debug)]
pub(super) struct Progress {
    shared: Arc<Shared>,
    /// The engine that admitted the request and its ticket; none for a request that was not judged.
    ticket: Option<(Arc<Engine>, Ticket)>,
    arrived: Tick,
    first_byte: Option<Tick>,
    events: Option<EventCounter>,
    /// What is asked of a model.
    operation: Option<Operation>,
    /// What became of it, as far as its head tells.
    outcome: Option<HeadOutcome>,
    /// What the head of a stream said, which the first byte has to confirm.
    unconfirmed: Option<HeadOutcome>,
    span: Option<Span>,
    /// It has not been sent yet, and may not be before its turn.
    waiting: bool,
    ended: bool,
    _in_flight: InFlight,
}

impl Drop for Progress {
    fn drop(&mut self) {
        if !self.ended {
            self.end(false);
        }
    }
}

impl Progress {
    /// A request that arrived at `arrived`.
    pub(super) fn new(shared: Arc<Shared>, ticket: Option<(Arc<Engine>, Ticket)>, arrived: Tick) -> Self {
        let in_flight = shared.drain.enter();
        Self {
            shared,
            ticket,
            arrived,
            first_byte: None,
            events: None,
            operation: None,
            outcome: None,
            unconfirmed: None,
            span: None,
            waiting: false,
            ended: false,
            _in_flight: in_flight,
        }
    }

    /// It asks a model for something, and is counted as such.
    pub(super) fn of(mut self, operation: Option<Operation>) -> Self {
        self.operation = operation;
        self
    }

    /// It is sampled: its span ends with it.
    pub(super) fn traced(mut self, span: Option<Span>) -> Self {
        self.span = span;
        self
    }

    /// Holds the request back for as long as a limit that paces says. A client that leaves meanwhile gives its turn
    /// back.
    pub(super) async fn wait_for_turn(&mut self, wait: Duration) {
        if wait > Duration::ZERO {
            self.waiting = true;
            tokio::time::sleep(wait).await;
            self.waiting = false;
        }
    }

    /// The head of the response is there, or will not come.
    pub(super) fn responded(&mut self, outcome: HeadOutcome) {
        self.note(outcome);
        if let Some((engine, ticket)) = &mut self.ticket {
            engine.responded(self.shared.clock.now(), ticket, outcome);
        }
    }

    fn note(&mut self, outcome: HeadOutcome) {
        self.outcome = Some(outcome);
        if let Some(span) = &mut self.span {
            span.status(match outcome {
                HeadOutcome::Status(status) => status,
                HeadOutcome::TimedOut => 504,
                HeadOutcome::Failed => 502,
            });
        }
    }

    /// The head of a stream is there. Engines send it before they begin to work, so where the first byte has a time limit,
    /// a success is one with that.
    pub(super) fn began_stream(&mut self, outcome: HeadOutcome) {
        if matches!(outcome, HeadOutcome::Status(..300)) {
            self.note(outcome);
            self.unconfirmed = Some(outcome);
        } else {
            self.responded(outcome);
        }
    }

    /// The engine broke off in the middle of its answer.
    pub(super) fn broke_off(&mut self) {
        let now = self.shared.clock.now();
        if let Some((engine, ticket)) = &mut self.ticket {
            if self.unconfirmed.take().is_some() {
                engine.responded(now, ticket, HeadOutcome::Failed);
            } else {
                engine.broke_off(now, ticket);
            }
        }
    }

    /// A time limit of the answer's body is over. An engine that goes on writing a stream is not broken, however long
    /// that is.
    pub(super) fn late(&mut self, late: Late, is_stream: bool) {
        match late {
            Late::FirstByte => {
                self.unconfirmed = None;
                self.responded(HeadOutcome::TimedOut);
            }
            Late::End if is_stream => {}
            Late::NextChunk | Late::End => self.broke_off(),
        }
    }

    /// Counts events from now on: the response is an event stream.
    pub(super) fn count_events(&mut self) {
        self.events = Some(EventCounter::default());
    }

    /// Bytes of the response's body arrived.
    pub(super) fn received(&mut self, data: &[u8]) {
        self.shared.pressure.moved(data.len());
        if self.first_byte.is_none() {
            let now = self.shared.clock.now();
            self.first_byte = Some(now);
            self.confirm(now);
            if let Some(span) = &mut self.span {
                span.event("tidegate.first_byte");
            }
            if let Some((engine, ticket)) = &mut self.ticket {
                engine.first_byte(now, ticket);
            }
        }
        if let Some(events) = &mut self.events {
            events.feed(data);
        }
    }

    fn confirm(&mut self, now: Tick) {
        if let (Some(outcome), Some((engine, ticket))) = (self.unconfirmed.take(), &mut self.ticket) {
            engine.responded(now, ticket, outcome);
        }
    }

    /// The response arrived whole, at the time that is returned.
    pub(super) fn finish(mut self) -> Tick {
        self.end(true)
    }

    fn how(&self, whole: bool) -> End {
        match self.outcome {
            Some(HeadOutcome::Status(500..)) => End::Status5xx,
            Some(HeadOutcome::Status(400..)) => End::Status4xx,
            Some(HeadOutcome::Status(_)) if whole => End::Well,
            Some(HeadOutcome::Status(_)) | None => End::Aborted,
            Some(HeadOutcome::TimedOut) => End::TimedOut,
            Some(HeadOutcome::Failed) => End::Unanswered,
        }
    }

    fn end(&mut self, whole: bool) -> Tick {
        self.ended = true;
        let now = self.shared.clock.now();
        if whole {
            self.confirm(now);
        }
        if self.waiting {
            if let Some((engine, ticket)) = self.ticket.take() {
                let turns = engine.cancel(now, ticket);
                self.shared.turns.call(&turns);
            }
            return now;
        }
        let first_byte = self.first_byte.map(|at| at.since(self.arrived));
        let total = now.since(self.arrived);
        self.shared.metrics.traffic.finished(total, first_byte);
        let events = self.events.as_ref().map_or(0, EventCounter::count);
        let how = self.how(whole);
        if let Some(span) = &mut self.span {
            span.ended(how, events);
        }
        if let Some(operation) = self.operation {
            self.shared.metrics.gen_ai.ended(operation, how, total, first_byte, events);
        }
        if let Some((engine, ticket)) = self.ticket.take() {
            let turns = engine.complete(
                now,
                ticket,
                &Completion { first_byte: self.first_byte, events, whole, tokens: None },
            );
            self.shared.turns.call(&turns);
        }
        now
    }
}
