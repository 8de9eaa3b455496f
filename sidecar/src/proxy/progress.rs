//! A request from its arrival to its end, as the decision engine and the metrics see it.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use tidegate_core::{Completion, Engine, HeadOutcome, Rule, Tick, Ticket, Tokens};
use tidegate_policy::{AnswerCache, FallbackOn};

use super::patience::Late;
use super::sse::EventCounter;
use crate::drain::InFlight;
use crate::fallback::answers::Recording;
use crate::metrics::End;
use crate::refusal::{self, grpc};
use crate::request_log;
use crate::route::Operation;
use crate::shared::Shared;
use crate::stages::{self, Complaint};
use crate::tokens::ending::{self, Style};
use crate::tokens::grpc::RequestReader;
use crate::tokens::{Account, Meter};
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
    /// A copy of the answer, for a fallback.
    recording: Option<Box<Recording>>,
    /// What the head of a stream said, which the first byte has to confirm.
    unconfirmed: Option<HeadOutcome>,
    span: Option<Span>,
    /// The decision engine knows what became of it.
    told: bool,
    /// What it uses of the limits of tokens, where there are any.
    account: Option<Box<Account>>,
    /// The limit whose tokens have run out under it.
    exhausted: Option<Arc<Rule>>,
    /// Where breakers of stages count how often the engine runs out of memory.
    complaint: Option<Box<Complaint>>,
    /// It has not been sent yet, and may not be before its turn.
    waiting: bool,
    ended: bool,
    _in_flight: InFlight,
}

/// What becomes of a piece of an answer.
pub(super) enum Passes {
    /// It goes to the client.
    All,
    /// The tokens of a limit have run out: this goes to the client in its place, and the answer ends.
    Last(Bytes),
    /// The same of a call of gRPC, which ends with these trailers.
    End(Bytes, HeaderMap),
    /// The same, and nothing can be put into the answer.
    Never,
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
            recording: None,
            unconfirmed: None,
            span: None,
            told: false,
            account: None,
            exhausted: None,
            complaint: None,
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

    /// Its tokens are counted.
    pub(super) fn charged_to(mut self, account: Option<Account>) -> Self {
        self.account = account.map(Box::new);
        self
    }

    /// Is to be shown the messages of the request as they are sent.
    pub(super) fn prompts(&self) -> Option<Rc<RefCell<RequestReader>>> {
        self.account.as_ref().and_then(|account| account.prompts())
    }

    /// The engine never got it.
    pub(super) fn unsent(&mut self) {
        if let Some(account) = &mut self.account {
            account.unsent();
        }
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

    /// The head of the response is there, or will not come. What is said once stands.
    pub(super) fn responded(&mut self, outcome: HeadOutcome) {
        if std::mem::replace(&mut self.told, true) {
            return;
        }
        self.note(outcome);
        if let Some((engine, ticket)) = &mut self.ticket {
            engine.responded(self.shared.clock.moment(), ticket, outcome);
        }
    }

    /// The head of the engine's own answer: before it is judged, so that a probe that found a stage slow closes nothing.
    pub(super) fn hears(&mut self, outcome: HeadOutcome, headers: &HeaderMap, is_stream: bool) {
        let Some((engine, _)) = &self.ticket else { return };
        stages::hear(engine, self.shared.clock.moment(), headers);
        if let HeadOutcome::Status(status) = outcome
            && stages::counts_memory(engine)
        {
            self.complaint = Complaint::of(status, is_stream).map(Box::new);
            self.complains(|complaint| complaint.message(headers));
        }
    }

    /// What stands behind the body of the engine's answer.
    pub(super) fn trailers(&mut self, trailers: &HeaderMap) {
        if let (Some(account), Some(status)) = (&mut self.account, grpc::status(trailers)) {
            account.ended_with(status);
        }
        let Some((engine, _)) = &self.ticket else { return };
        stages::hear(engine, self.shared.clock.moment(), trailers);
        self.complains(|complaint| complaint.message(trailers));
    }

    fn complains(&mut self, says_so: impl FnOnce(&mut Complaint) -> bool) {
        if let (Some(complaint), Some((engine, _))) = (&mut self.complaint, &self.ticket)
            && says_so(complaint)
        {
            stages::ran_out_of_memory(engine, self.shared.clock.moment());
        }
    }

    fn note(&mut self, outcome: HeadOutcome) {
        self.outcome = Some(outcome);
        if let Some(account) = &mut self.account {
            account.responded(outcome);
        }
        if let Some(span) = &mut self.span {
            span.status(match outcome {
                HeadOutcome::Status(status) => status,
                HeadOutcome::TimedOut => 504,
                HeadOutcome::Failed => 502,
            });
        }
    }

    /// The engine that judged the request, if a failure of the inference engine is to be answered by something else, and
    /// this is one.
    pub(super) fn engine_that_falls_back(&self, outcome: HeadOutcome) -> Option<Arc<Engine>> {
        let (HeadOutcome::Status(status), Some((engine, _))) = (outcome, &self.ticket) else { return None };
        let obeys = engine.breaker_policy().is_some_and(|policy| policy.obeys_on(FallbackOn::Failure));
        (obeys && engine.is_failure(status)).then(|| Arc::clone(engine))
    }

    /// There will be no head of a response. The engine that judged the request.
    pub(super) fn fail(mut self, outcome: HeadOutcome) -> Option<Arc<Engine>> {
        self.responded(outcome);
        self.ticket.as_ref().map(|(engine, _)| Arc::clone(engine))
    }

    /// Which answers are kept.
    pub(super) fn answer_cache(&self) -> Option<AnswerCache> {
        self.ticket.as_ref().and_then(|(engine, _)| engine.breaker_policy()?.answer_cache().copied())
    }

    /// Keeps a copy of the answer.
    pub(super) fn record(&mut self, recording: Option<Box<Recording>>) {
        self.recording = recording;
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
        let now = self.shared.clock.moment();
        if self.unconfirmed.take().is_some() {
            self.responded(HeadOutcome::Failed);
        } else if let Some((engine, ticket)) = &mut self.ticket {
            engine.broke_off(now, ticket);
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

    /// A body follows this head. Its events are counted, if it is a stream of those.
    pub(super) fn begins(&mut self, headers: &HeaderMap, is_event_stream: bool) {
        if is_event_stream {
            self.events = Some(EventCounter::default());
        }
        if let Some(account) = &mut self.account {
            account.answers(headers);
        }
    }

    /// Bytes of the response's body arrived.
    pub(super) fn received(&mut self, data: &[u8]) -> Passes {
        self.shared.pressure.moved(data.len());
        if self.first_byte.is_none() {
            let now = self.shared.clock.moment();
            self.first_byte = Some(now);
            self.confirm(now);
            if let Some(span) = &mut self.span {
                span.event("tidegate.first_byte");
            }
            if let Some((engine, ticket)) = &mut self.ticket {
                engine.first_byte(now, ticket);
            }
        }
        if self.recording.as_mut().is_some_and(|recording| !recording.push(data)) {
            self.recording = None;
        }
        if let Some(events) = &mut self.events {
            events.feed(data);
        }
        self.complains(|complaint| complaint.feed(data));
        self.count_tokens(data)
    }

    fn count_tokens(&mut self, data: &[u8]) -> Passes {
        let Some(account) = &mut self.account else { return Passes::All };
        let ended = account.feed(data);
        if self.exhausted.is_none()
            && let Some(used) = account.look()
            && let Some((engine, ticket)) = &self.ticket
        {
            self.exhausted = engine.exhausted(self.shared.clock.moment(), ticket, &used);
        }
        let Some(rule) = &self.exhausted else { return Passes::All };
        let now = self.shared.clock.moment();
        if account.meter().is_some_and(Meter::is_packed) {
            request_log::exhausted(now, rule, "its stream is compressed and was aborted");
            return Passes::Never;
        }
        // Between two events: half of one would be no event.
        let Some(ended) = ended else { return Passes::All };
        if account.style() == Style::Grpc {
            request_log::exhausted(now, rule, "its call was ended with a status");
            let trailers = grpc::exhausted(&ending::message(rule), refusal::reason_of(rule));
            return Passes::End(Bytes::copy_from_slice(&data[..ended]), trailers);
        }
        request_log::exhausted(now, rule, "its stream was ended with an error event");
        let mut last = BytesMut::from(&data[..ended]);
        last.extend_from_slice(&ending::event(account.style(), rule));
        Passes::Last(last.freeze())
    }

    /// What it has used of the limits of tokens, as far as anybody knows.
    fn settle(&mut self, whole: bool) -> Option<Tokens> {
        let account = self.account.as_mut()?;
        let used = account.used()?;
        if whole && let Some(output) = account.open_output(&used) {
            self.shared.usual_output.learn(account.model(), output);
        }
        if let Some(operation) = self.operation {
            self.shared.metrics.gen_ai.used(operation, &used);
        }
        Some(used)
    }

    fn confirm(&mut self, now: Tick) {
        if let Some(outcome) = self.unconfirmed.take() {
            self.told = true;
            if let Some((engine, ticket)) = &mut self.ticket {
                engine.responded(now, ticket, outcome);
            }
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
        let now = self.shared.clock.moment();
        if whole {
            self.confirm(now);
            if let Some(recording) = self.recording.take() {
                self.shared.answers.keep(*recording, now);
            }
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
        let tokens = self.settle(whole);
        if let Some((engine, ticket)) = self.ticket.take() {
            let completion = Completion { first_byte: self.first_byte, events, whole, tokens };
            let turns = engine.complete(now, ticket, &completion);
            self.shared.turns.call(&turns);
        }
        now
    }
}
