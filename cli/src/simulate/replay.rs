//! The replay: events in order of virtual time.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use tidegate_core::{
    Completion, Decision, Engine, GpuMemoryReading, HeadOutcome, Refusal, Signal, Tick, Ticket,
};
use tidegate_policy::report::{BreakerState, Status};
use tidegate_policy::{PolicyDocument, PriorityClass};

use super::clients::Client;
use super::model::Model;
use super::trace::Request;
use crate::command_line::ModelArguments;

/// How often a sidecar lets its decision engine look at the clock.
const TICK: Duration = Duration::from_millis(100);
/// How often a node's agent reads the GPUs.
const GPU_INTERVAL: Duration = Duration::from_secs(2);
/// The same replay gives the same table.
const SEED: u64 = 1;

/// What happens, in the order in which simultaneous events are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    FirstToken(usize),
    Done(usize),
    TimedOut(usize),
    GpuReading,
    Tick,
    Arrival(usize),
}

/// A request that was admitted.
#[derive(Debug)]
struct InFlight {
    ticket: Ticket,
    first_token: Option<Tick>,
}

/// What was decided and how it went.
#[derive(Debug, Default)]
pub(crate) struct Record {
    /// Virtual time from the first arrival to the last answer.
    pub(crate) duration: Duration,
    /// Requests by decision and class.
    pub(crate) decisions: BTreeMap<(String, PriorityClass), u64>,
    /// Of every admitted request that was answered.
    pub(crate) first_token: Vec<Duration>,
    pub(crate) total: Vec<Duration>,
    pub(crate) timed_out: u64,
    /// How often each tier tripped.
    pub(crate) trips: BTreeMap<&'static str, u64>,
    pub(crate) breaker_opened: u64,
    /// Largest amount of GPU memory in use, and what there is.
    pub(crate) gpu_peak: u64,
    pub(crate) gpu_total: u64,
    /// What the sidecar's status says at the end.
    pub(crate) last: Status,
}

pub(crate) struct Replay<'a> {
    document: &'a PolicyDocument,
    requests: &'a [Request],
    engine: Engine,
    model: Model,
    events: BinaryHeap<Reverse<(Tick, Event)>>,
    in_flight: BTreeMap<usize, InFlight>,
    record: Record,
}

impl<'a> Replay<'a> {
    pub(crate) fn new(document: &'a PolicyDocument, requests: &'a [Request], model: ModelArguments) -> Self {
        let start = Tick::from_nanos(0);
        let arrivals = requests
            .iter()
            .enumerate()
            .map(|(i, request)| Reverse((Tick::from_duration(request.at), Event::Arrival(i))));
        let mut events: BinaryHeap<_> = arrivals.collect();
        events.push(Reverse((start, Event::Tick)));
        events.push(Reverse((start, Event::GpuReading)));
        Self {
            document,
            requests,
            engine: Engine::new(document, SEED, start),
            model: Model::new(model),
            events,
            in_flight: BTreeMap::new(),
            record: Record::default(),
        }
    }

    /// Plays until every request is answered.
    pub(crate) fn run(mut self) -> Record {
        let mut open = self.requests.len();
        while let Some(Reverse((now, event))) = self.events.pop() {
            match event {
                Event::Arrival(request) => open -= usize::from(!self.arrive(now, request)),
                Event::FirstToken(request) => self.first_token(now, request),
                Event::Done(request) => open -= usize::from(self.done(now, request)),
                Event::TimedOut(request) => open -= usize::from(self.time_out(now, request)),
                Event::Tick => self.tick(now),
                Event::GpuReading => self.read_gpu(now),
            }
            self.record.duration = Duration::from_nanos(now.as_nanos());
            if open == 0 {
                break;
            }
        }
        self.record
    }

    fn at(&mut self, time: Tick, event: Event) {
        self.events.push(Reverse((time, event)));
    }

    fn count(&mut self, decision: impl Into<String>, class: PriorityClass) {
        *self.record.decisions.entry((decision.into(), class)).or_default() += 1;
    }

    /// Whether the request is in flight now.
    fn arrive(&mut self, now: Tick, request: usize) -> bool {
        let client = Client::new(request, self.requests[request].priority, &self.document.priority);
        match self.engine.admit(now, &client.facts()) {
            Decision::Admit(admission) => {
                let shadow =
                    admission.shadow.as_ref().map(|refusal| named("admitted, in Shadow mode", refusal));
                self.count(shadow.unwrap_or_else(|| "admitted".to_owned()), admission.class);
                if let Some(timeout) = admission.timeout {
                    self.at(now + timeout, Event::TimedOut(request));
                }
                self.in_flight.insert(request, InFlight { ticket: admission.ticket, first_token: None });
                self.model.enqueue(request);
                self.begin(now);
                true
            }
            Decision::Refuse(refusal) => {
                self.count(named("refused", &refusal), refusal.class);
                false
            }
            Decision::Fallback(_, refusal) => {
                self.count(named("fallback", &refusal), refusal.class);
                false
            }
        }
    }

    fn begin(&mut self, now: Tick) {
        while let Some((request, service)) = self.model.begin(self.requests) {
            let first_token = now + service.first_token;
            self.at(first_token, Event::FirstToken(request));
            self.at(first_token + service.rest, Event::Done(request));
        }
    }

    fn first_token(&mut self, now: Tick, request: usize) {
        if let Some(in_flight) = self.in_flight.get_mut(&request) {
            self.engine.responded(now, &mut in_flight.ticket, HeadOutcome::Status(200));
            in_flight.first_token = Some(now);
            let arrived = Tick::from_duration(self.requests[request].at);
            self.record.first_token.push(now.since(arrived));
        }
    }

    fn done(&mut self, now: Tick, request: usize) -> bool {
        let Some(in_flight) = self.in_flight.remove(&request) else { return false };
        let completion = Completion {
            first_byte: in_flight.first_token,
            events: self.requests[request].generated_tokens,
            whole: true,
            tokens: None,
        };
        self.engine.complete(now, in_flight.ticket, &completion);
        self.record.total.push(now.since(Tick::from_duration(self.requests[request].at)));
        self.model.end(request, self.requests);
        self.begin(now);
        true
    }

    fn time_out(&mut self, now: Tick, request: usize) -> bool {
        let waits = self.in_flight.get(&request).is_some_and(|in_flight| in_flight.first_token.is_none());
        let Some(mut in_flight) = waits.then(|| self.in_flight.remove(&request)).flatten() else {
            return false;
        };
        self.engine.responded(now, &mut in_flight.ticket, HeadOutcome::TimedOut);
        self.engine.complete(now, in_flight.ticket, &Completion::default());
        self.record.timed_out += 1;
        self.model.end(request, self.requests);
        self.begin(now);
        true
    }

    fn read_gpu(&mut self, now: Tick) {
        let (used, total) = self.model.gpu_memory();
        self.engine.observe(now, Signal::GpuMemory(GpuMemoryReading { used, total, at: now }));
        self.record.gpu_peak = self.record.gpu_peak.max(used);
        self.record.gpu_total = total;
        self.at(now + GPU_INTERVAL, Event::GpuReading);
    }

    fn tick(&mut self, now: Tick) {
        self.engine.tick(now);
        let status = self.engine.snapshot(now);
        let before = std::mem::replace(&mut self.record.last, status);
        for tier in self.record.last.tiers.iter().filter(|tier| tier.shedding) {
            let sheds_since = !before.tiers.iter().any(|old| old.tier == tier.tier && old.shedding);
            *self.record.trips.entry(tier.tier.as_str()).or_default() += u64::from(sheds_since);
        }
        let state = |status: &Status| status.breaker.as_ref().map(|breaker| breaker.state);
        let opened = state(&self.record.last) == Some(BreakerState::Open);
        self.record.breaker_opened += u64::from(opened && state(&before) != Some(BreakerState::Open));
        self.at(now + TICK, Event::Tick);
    }
}

fn named(what: &str, refusal: &Refusal) -> String {
    format!("{what}: {} ({} {})", refusal.cause.as_str(), refusal.rule.policy, refusal.rule.name)
}
