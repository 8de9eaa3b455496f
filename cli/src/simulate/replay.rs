//! The replay: events in order of virtual time.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use tidegate_core::{
    Completion, Decision, Engine, GpuMemoryReading, HeadOutcome, Place, Refusal, Signal, Tick, Ticket,
    Tokens, Waiting,
};
use tidegate_policy::{Limit, PolicyDocument, PriorityClass};

use super::clients::{Client, Clients};
use super::log::{Answer, Request};
use super::record::{Record, Verdict, note};
use super::served::{Served, Submitted};
use crate::refused::Refused;

/// How often a sidecar lets its decision engine look at the clock.
const TICK: Duration = Duration::from_millis(100);
/// How often a sidecar asks its engine for metrics, and a node's agent the GPUs for memory.
const ENGINE_INTERVAL: Duration = Duration::from_secs(1);
const GPU_INTERVAL: Duration = Duration::from_secs(2);
/// The same replay gives the same report.
const SEED: u64 = 1;

/// What happens, in the order in which simultaneous events are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Begin(u64),
    FirstToken(u64),
    Done(u64),
    TimedOut(u64),
    Step,
    GpuReading,
    EngineReading,
    Tick,
}

/// A request that was admitted.
#[derive(Debug)]
struct InFlight {
    ticket: Ticket,
    arrived: Tick,
    tokens: Tokens,
    answer: Option<Answer>,
    status: u16,
    first_token: Option<Tick>,
}

impl InFlight {
    fn new(arrived: Tick, request: &Request, ticket: Ticket) -> Self {
        let (tokens, answer) = (request.tokens(), request.answer);
        Self { ticket, arrived, tokens, answer, status: request.status.unwrap_or(200), first_token: None }
    }
}

/// A request that waits for a place in flight.
#[derive(Debug)]
struct Queued {
    number: u64,
    request: Request,
    waiting: Waiting,
}

/// Where the engine's answers come from.
#[derive(Debug)]
pub(crate) enum Answers {
    /// The log. A request without one is answered as the request before it.
    Recorded(Answer),
    /// A model of the engine.
    Modelled(Box<Served>),
}

#[derive(Debug)]
pub(crate) struct Replay<'a> {
    limits: &'a [Limit],
    clients: &'a Clients<'a>,
    engine: Engine,
    answers: Answers,
    events: BinaryHeap<Reverse<(Tick, Event)>>,
    in_flight: BTreeMap<u64, InFlight>,
    queued: BTreeMap<Place, Queued>,
    arrivals: u64,
    record: Record,
}

impl<'a> Replay<'a> {
    pub(crate) fn new(
        document: &'a PolicyDocument,
        clients: &'a Clients<'a>,
        answers: Answers,
        record: Record,
    ) -> Self {
        let start = Tick::from_nanos(0);
        let mut events = BinaryHeap::from([Reverse((start, Event::Tick))]);
        if matches!(answers, Answers::Modelled(_)) {
            events.push(Reverse((start, Event::GpuReading)));
            events.push(Reverse((start, Event::EngineReading)));
        }
        Self {
            limits: &document.limits,
            clients,
            engine: Engine::new(document, SEED, start),
            answers,
            events,
            in_flight: BTreeMap::new(),
            queued: BTreeMap::new(),
            arrivals: 0,
            record,
        }
    }

    /// Plays until every request is answered.
    pub(crate) fn run(
        mut self,
        requests: impl Iterator<Item = Result<Request, Refused>>,
    ) -> Result<Record, Refused> {
        for request in requests {
            let request = request?;
            let now = Tick::from_duration(request.at);
            self.play(|time| time <= now);
            self.arrive(now, &request);
        }
        self.play(|_| true);
        Ok(self.record)
    }

    /// Takes all events that are due, and after the last arrival those until the last answer.
    fn play(&mut self, due: impl Fn(Tick) -> bool) {
        let all = due(Tick::from_nanos(u64::MAX));
        while let Some(Reverse((now, event))) = self.events.peek().copied().filter(|next| due(next.0.0)) {
            if all && self.in_flight.is_empty() && self.queued.is_empty() {
                break;
            }
            self.events.pop();
            self.happen(now, event);
        }
    }

    fn happen(&mut self, now: Tick, event: Event) {
        match event {
            Event::Begin(request) => self.begin(now, request),
            Event::FirstToken(request) => self.first_token(now, request),
            Event::Done(request) => self.done(now, request),
            Event::TimedOut(request) => self.time_out(now, request),
            Event::Step => self.step(now),
            Event::Tick => self.tick(now),
            Event::GpuReading => self.read_gpu(now),
            Event::EngineReading => self.read_engine(now),
        }
        self.record.duration = since_start(now);
    }

    fn at(&mut self, time: Tick, event: Event) {
        self.events.push(Reverse((time, event)));
    }

    fn arrive(&mut self, now: Tick, request: &Request) {
        self.record.duration = since_start(now);
        let number = self.arrivals;
        self.arrivals += 1;
        let decision = self.engine.admit(now, &self.clients.sender(number, request).facts());
        self.obey(now, number, request, decision);
    }

    /// The wait of those at these places is over.
    fn call(&mut self, now: Tick, places: &[Place]) {
        for place in places {
            if let Some(Queued { number, request, waiting }) = self.queued.remove(place) {
                let decision = self.engine.resume(now, waiting);
                self.obey(now, number, &request, decision);
            }
        }
    }

    fn obey(&mut self, now: Tick, number: u64, request: &Request, decision: Decision) {
        let client = self.clients.sender(number, request);
        match decision {
            Decision::Queue(waiting) => {
                self.queued.insert(waiting.place(), Queued { number, request: request.clone(), waiting });
            }
            Decision::Admit(admission) => {
                let shadow = admission.shadow.as_ref();
                let verdict = if shadow.is_some() { Verdict::Shadow } else { Verdict::Admitted };
                self.count(now, verdict, shadow, admission.class, &client);
                let sent = now + admission.wait;
                if let Some(timeout) = self.engine.time_limits().first_byte {
                    self.at(sent + timeout, Event::TimedOut(number));
                }
                self.in_flight.insert(
                    number,
                    InFlight::new(Tick::from_duration(request.at), request, admission.ticket),
                );
                if admission.wait.is_zero() {
                    self.begin(now, number);
                } else {
                    self.at(sent, Event::Begin(number));
                }
            }
            Decision::Refuse(refusal) => {
                self.count(now, Verdict::Refused, Some(&refusal), refusal.class, &client);
            }
            Decision::Fallback(refusal) => {
                self.count(now, Verdict::Fallback, Some(&refusal), refusal.class, &client);
            }
        }
    }

    fn count(
        &mut self,
        now: Tick,
        verdict: Verdict,
        refusal: Option<&Refusal>,
        class: PriorityClass,
        client: &Client<'_>,
    ) {
        self.record.count(since_start(now), verdict, refusal, class);
        let admitted = matches!(verdict, Verdict::Admitted | Verdict::Shadow);
        for (i, limit) in self.limits.iter().enumerate().filter(|(_, limit)| !limit.key.is_empty()) {
            let by_this =
                |refusal: &Refusal| refusal.rule.policy == limit.policy && refusal.rule.name == limit.name;
            let refused = refusal.is_some_and(by_this);
            self.record.count_key(i, client.key(&limit.key), admitted, refused);
        }
    }

    /// The engine gets an admitted request.
    fn begin(&mut self, now: Tick, request: u64) {
        let Some(in_flight) = self.in_flight.get(&request) else { return };
        match &mut self.answers {
            Answers::Recorded(before) => {
                *before = in_flight.answer.unwrap_or(*before);
                let answer = *before;
                self.at(now + answer.first_token, Event::FirstToken(request));
                self.at(now + answer.total, Event::Done(request));
            }
            Answers::Modelled(engine) => match engine.submit(request, in_flight.tokens) {
                Submitted::Queued => {}
                Submitted::Begins(step) => self.at(now + step, Event::Step),
                Submitted::TooLong => self.reject(now, request),
            },
        }
    }

    /// The engine refuses a request that it can never compute.
    fn reject(&mut self, now: Tick, request: u64) {
        if let Some(in_flight) = self.in_flight.get_mut(&request) {
            in_flight.status = 400;
        }
        self.record.too_long += 1;
        self.at(now, Event::FirstToken(request));
        self.at(now, Event::Done(request));
    }

    /// The engine has computed a step.
    fn step(&mut self, now: Tick) {
        let Answers::Modelled(engine) = &mut self.answers else { return };
        let (emitted, next) = engine.step();
        if let Some(step) = next {
            self.at(now + step, Event::Step);
        }
        for token in emitted {
            if self.in_flight.get(&token.id).is_some_and(|in_flight| in_flight.first_token.is_none()) {
                self.first_token(now, token.id);
            }
            if token.last {
                self.done(now, token.id);
            }
        }
    }

    fn first_token(&mut self, now: Tick, request: u64) {
        if let Some(in_flight) = self.in_flight.get_mut(&request) {
            let head = HeadOutcome::Status(in_flight.status);
            self.engine.responded(now, &mut in_flight.ticket, head);
            self.engine.first_byte(now, &mut in_flight.ticket);
            in_flight.first_token = Some(now);
            note(&mut self.record.first_token, now.since(in_flight.arrived));
        }
    }

    fn done(&mut self, now: Tick, request: u64) {
        let Some(in_flight) = self.in_flight.remove(&request) else { return };
        let completion = Completion {
            first_byte: in_flight.first_token,
            events: u64::from(in_flight.tokens.output),
            whole: true,
            tokens: Some(in_flight.tokens),
        };
        note(&mut self.record.total, now.since(in_flight.arrived));
        let turns = self.engine.complete(now, in_flight.ticket, &completion);
        self.call(now, &turns);
    }

    fn time_out(&mut self, now: Tick, request: u64) {
        let waits = self.in_flight.get(&request).is_some_and(|in_flight| in_flight.first_token.is_none());
        let Some(mut in_flight) = waits.then(|| self.in_flight.remove(&request)).flatten() else { return };
        self.engine.responded(now, &mut in_flight.ticket, HeadOutcome::TimedOut);
        let turns = self.engine.complete(now, in_flight.ticket, &Completion::default());
        self.record.timed_out += 1;
        if let Answers::Modelled(engine) = &mut self.answers {
            engine.abort(request);
        }
        self.call(now, &turns);
    }

    fn read_gpu(&mut self, now: Tick) {
        if let Answers::Modelled(engine) = &self.answers {
            let (used, total) = engine.gpu_memory();
            self.engine.observe(now, Signal::GpuMemory(GpuMemoryReading { used, total, at: now }));
            self.record.observe_gpu(used, total);
            self.at(now + GPU_INTERVAL, Event::GpuReading);
        }
    }

    fn read_engine(&mut self, now: Tick) {
        if let Answers::Modelled(engine) = &self.answers {
            self.engine.observe(now, Signal::Engine(engine.reading(now)));
            self.at(now + ENGINE_INTERVAL, Event::EngineReading);
        }
    }

    fn tick(&mut self, now: Tick) {
        let turns = self.engine.tick(now);
        self.call(now, &turns);
        self.record.observe(since_start(now), self.engine.snapshot(now));
        self.at(now + TICK, Event::Tick);
    }
}

fn since_start(now: Tick) -> Duration {
    Duration::from_nanos(now.as_nanos())
}
