//! One run: clients, a policy and the engine model, event by event in virtual time.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    time::Duration,
};

use tidegate_cli::engine_model::{Model, ModelConfig, Step};

use super::{
    client::{self, Next},
    policy::{Arrival, End, Finished, Policy, Verdict},
    record::Record,
    workload::{Plan, Request},
};
use crate::random::Random;

/// How often a policy may look at the clock.
const TICK: Duration = Duration::from_millis(100);
/// How often the engine's metrics are read.
const READING: Duration = Duration::from_secs(1);
/// How long an engine that ran out of memory is away.
const RESTART: Duration = Duration::from_secs(30);
/// After the last arrival the run goes on for this long, so that everything can end.
const AFTERMATH: Duration = Duration::from_mins(1);

/// What happens, in the order in which simultaneous events are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    StepEnds,
    EngineReturns,
    Reading,
    Tick,
    GivesUpWaiting { attempt: u64 },
    Arrives { request: usize, attempt: u32 },
}

/// An attempt inside the engine.
#[derive(Debug, Clone, Copy)]
struct Flight {
    request: usize,
    attempt: u32,
    arrived: Duration,
    first: Option<Duration>,
    tokens: u32,
}

/// The state of a run.
pub struct Run<'a> {
    requests: &'a [Request],
    policy: Box<dyn Policy>,
    model: Model,
    stepping: bool,
    down: bool,
    events: BinaryHeap<Reverse<(Duration, u64, Event)>>,
    sequence: u64,
    flights: HashMap<u64, Flight>,
    /// In the policy's own queue.
    queued: HashMap<u64, Flight>,
    next_id: u64,
    random: Random,
    end: Duration,
    record: Record,
}

impl std::fmt::Debug for Run<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Run").field("flights", &self.flights.len()).finish_non_exhaustive()
    }
}

impl<'a> Run<'a> {
    /// Before the first event.
    pub fn new(
        config: &ModelConfig,
        plan: &Plan,
        requests: &'a [Request],
        policy: Box<dyn Policy>,
        seed: u64,
    ) -> Self {
        let mut run = Self {
            requests,
            policy,
            model: Model::new(config.clone()),
            stepping: false,
            down: false,
            events: BinaryHeap::new(),
            sequence: 0,
            flights: HashMap::new(),
            queued: HashMap::new(),
            next_id: 0,
            random: Random::new(seed).fork(u64::MAX),
            end: plan.end() + AFTERMATH,
            record: Record::new(plan, requests),
        };
        for (request, wanted) in requests.iter().enumerate() {
            run.at(wanted.at, Event::Arrives { request, attempt: 0 });
        }
        run.at(TICK, Event::Tick);
        run.at(READING, Event::Reading);
        run
    }

    /// Plays all events.
    pub fn play(mut self) -> Record {
        while let Some(Reverse((now, _, event))) = self.events.pop() {
            if now > self.end {
                break;
            }
            self.handle(now, event);
            self.settle(now);
        }
        self.record.close(&self.model.reading());
        self.record
    }

    fn handle(&mut self, now: Duration, event: Event) {
        match event {
            Event::StepEnds => self.step_ends(now),
            Event::EngineReturns => self.down = false,
            Event::Reading => {
                let reading = self.model.reading();
                self.policy.observe(now, &reading);
                self.record.read(now, &reading, self.policy.describe(now));
                self.at(now + READING, Event::Reading);
            }
            Event::Tick => {
                self.policy.tick(now);
                self.at(now + TICK, Event::Tick);
            }
            Event::GivesUpWaiting { attempt } => self.give_up_waiting(now, attempt),
            Event::Arrives { request, attempt } => self.arrive(now, request, attempt),
        }
    }

    fn at(&mut self, time: Duration, event: Event) {
        self.sequence += 1;
        self.events.push(Reverse((time, self.sequence, event)));
    }

    fn arrive(&mut self, now: Duration, request: usize, attempt: u32) {
        let wanted = &self.requests[request];
        let id = self.next_id;
        self.next_id += 1;
        let arrival = Arrival {
            id,
            class: wanted.class,
            tenant: wanted.tenant,
            prompt: wanted.prompt,
            engine_waiting: self.model.waiting(),
        };
        let verdict = self.policy.arrive(now, &arrival);
        if !matches!(verdict, Verdict::Refuse { .. }) {
            self.at(now + client::PATIENCE, Event::GivesUpWaiting { attempt: id });
        }
        let flight = Flight { request, attempt, arrived: now, first: None, tokens: 0 };
        self.obey(now, id, flight, verdict);
    }

    fn obey(&mut self, now: Duration, id: u64, flight: Flight, verdict: Verdict) {
        let wanted = &self.requests[flight.request];
        match verdict {
            Verdict::Refuse { retry_after } => {
                self.record.refused(now, flight.request);
                self.turned_away(now, flight.request, flight.attempt, retry_after);
            }
            Verdict::Wait => _ = self.queued.insert(id, flight),
            Verdict::Admit => {
                self.record.admitted(now, flight.request, flight.attempt);
                self.flights.insert(id, flight);
                if self.down || self.model.submit(id, wanted.prompt, wanted.output).is_err() {
                    self.lose(now, id);
                } else {
                    self.step_begins(now);
                }
            }
        }
    }

    /// Carries out what the policy has decided about those who wait in its queue.
    fn settle(&mut self, now: Duration) {
        loop {
            let decided = self.policy.decided(now);
            if decided.is_empty() {
                return;
            }
            for (id, verdict) in decided {
                if let Some(flight) = self.queued.remove(&id) {
                    self.obey(now, id, flight, verdict);
                }
            }
        }
    }

    fn turned_away(&mut self, now: Duration, request: usize, attempt: u32, told: Option<Duration>) {
        let behaviour = self.requests[request].behaviour;
        match client::next(behaviour, attempt, told, &mut self.random) {
            Next::ComesAgain(after) => {
                self.record.comes_again(request, attempt, told);
                self.at(now + after, Event::Arrives { request, attempt: attempt + 1 });
            }
            Next::Leaves => {}
        }
    }

    fn step_begins(&mut self, now: Duration) {
        if self.stepping || self.down {
            return;
        }
        match self.model.begin_step() {
            Step::Idle => {}
            Step::Takes(duration) => {
                self.stepping = true;
                self.at(now + duration, Event::StepEnds);
            }
            Step::OutOfMemory(lost) => {
                self.record.out_of_memory += 1;
                self.down = true;
                self.at(now + RESTART, Event::EngineReturns);
                for id in lost {
                    self.lose(now, id);
                }
            }
        }
    }

    fn step_ends(&mut self, now: Duration) {
        self.stepping = false;
        for token in self.model.end_step() {
            let Some(flight) = self.flights.get_mut(&token.id) else { continue };
            flight.tokens += 1;
            if flight.first.is_none() {
                flight.first = Some(now);
                self.policy.first_token(now, token.id, now.saturating_sub(flight.arrived));
            }
            if token.last {
                self.finish(now, token.id, End::Whole);
            }
        }
        self.step_begins(now);
    }

    /// The engine has failed the attempt.
    fn lose(&mut self, now: Duration, id: u64) {
        if let Some(flight) = self.finish(now, id, End::Failed) {
            self.turned_away(now, flight.request, flight.attempt, None);
        }
    }

    fn give_up_waiting(&mut self, now: Duration, id: u64) {
        if self.queued.remove(&id).is_some() {
            self.policy.leaves(now, id);
        } else if self.flights.get(&id).is_some_and(|flight| flight.first.is_none()) {
            self.model.abort(id);
            self.finish(now, id, End::Abandoned);
        }
    }

    fn finish(&mut self, now: Duration, id: u64, end: End) -> Option<Flight> {
        let flight = self.flights.remove(&id)?;
        let finished = Finished {
            id,
            end,
            first_token: flight.first.map(|first| first.saturating_sub(flight.arrived)),
            total: now.saturating_sub(flight.arrived),
            tokens: flight.tokens,
        };
        self.policy.finish(now, &finished);
        self.record.finished(flight.request, &finished);
        Some(flight)
    }
}
