//! Sequences of everything that can happen to an engine.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use tidegate_core::{
    Admission, Cause, Completion, Decision, Engine, EngineReading, Facts, GpuMemoryReading, HeadOutcome,
    Headers, NoClaims, Place, Refusal, Signal, StageReading, Tick, Ticket, Tokens, Waiting,
};
use tidegate_policy::report::{BreakerState, Status};
use tidegate_policy::{PriorityClass, Stage};

use crate::bytes::Bytes;
use crate::policies;

const SEED: u64 = 7;
const KEYS: [&str; 4] = ["a", "b", "c", ""];
const CLASSES: [&str; 4] = ["high", "medium", "low", "none"];
const PATHS: [&str; 2] = ["/v1/chat/completions", "/v1/embeddings"];

/// The headers of a request.
struct Request {
    key: &'static str,
    class: &'static str,
}

impl Headers for Request {
    fn get(&self, name: &str) -> Option<&[u8]> {
        match name {
            "x-api-key" => Some(self.key.as_bytes()),
            "x-priority" => Some(self.class.as_bytes()),
            _ => None,
        }
    }
}

/// A request in flight, in the engine and in its twin.
struct InFlight {
    engine: Arc<Engine>,
    ticket: Ticket,
    twin: Option<(Arc<Engine>, Ticket)>,
    answered: bool,
    first_byte: Option<Tick>,
}

struct World {
    now: Tick,
    engine: Arc<Engine>,
    /// Sees what the engine sees but the requests that it refused: they must have left nothing behind.
    twin: Option<Arc<Engine>>,
    in_flight: Vec<InFlight>,
    /// Requests in the queue, each with the engine that it belongs to.
    waiting: Vec<(Arc<Engine>, Waiting)>,
    breaker: Option<BreakerState>,
}

/// Plays random admits, answers, ends, readings, ticks and changes of the policy; time stands still or leaps by days.
/// Whatever happens: nothing panics, what is in flight is what was admitted and has not ended, pressure is a share, a
/// refusal says when to come again and leaves every later verdict as it would have been without it, and an open
/// breaker is never closed in one step. Nobody is told of the end of a wait that is not his, nobody waits beyond his
/// time, low is not let in where high is kept out, and when all have left every place is free.
pub fn events(data: &[u8]) {
    let mut bytes = Bytes::new(data);
    let (document, untouched) = policies::choose(bytes.below(policies::DOCUMENTS));
    let now = Tick::from_nanos(bytes.number());
    let engine = |_: usize| Arc::new(Engine::new(&document, SEED, now));
    let mut world = World {
        now,
        engine: engine(0),
        twin: untouched.then(|| engine(1)),
        in_flight: Vec::new(),
        waiting: Vec::new(),
        breaker: None,
    };
    while !bytes.is_empty() {
        world.step(&mut bytes);
        world.check();
    }
    world.end_all();
}

/// Readings and requests of all classes, as large as they can be.
pub(crate) fn serve_extremes(engine: &Engine, now: Tick) {
    let gpu = GpuMemoryReading { used: u64::MAX, total: u64::MAX, at: now };
    engine.observe(now, Signal::GpuMemory(gpu));
    let (all, most) = (Some(f64::MAX), Some(u64::MAX));
    let reading =
        EngineReading { kv_cache_usage: all, running: most, waiting: most, preemptions: most, at: now };
    engine.observe(now, Signal::Engine(reading));
    let tokens = Tokens { input: u32::MAX, cached: u32::MAX, output: u32::MAX };
    for class in CLASSES {
        let headers = Request { key: KEYS[0], class };
        let facts = Facts {
            method: "POST",
            path: PATHS[0],
            client: IpAddr::V4(Ipv4Addr::LOCALHOST),
            headers: &headers,
            claims: &NoClaims,
            model: None,
            service_tier: None,
            tokens,
        };
        match engine.admit(now, &facts) {
            Decision::Admit(Admission { mut ticket, .. }) => {
                engine.responded(now, &mut ticket, HeadOutcome::Status(200));
                engine.first_byte(now, &mut ticket);
                let end =
                    Completion { first_byte: Some(now), events: u64::MAX, whole: true, tokens: Some(tokens) };
                engine.complete(now, ticket, &end);
            }
            Decision::Queue(waiting) => drop(engine.leave(now, waiting)),
            Decision::Refuse(refusal) | Decision::Fallback(refusal) => {
                assert!(refusal.retry_after > Duration::ZERO, "{refusal:?}");
            }
        }
    }
    engine.tick(now);
}

/// A refusal names its rule, what was seen, and when to come again.
fn explains_itself(refusal: &Refusal) {
    assert!(refusal.retry_after > Duration::ZERO, "{refusal:?}");
    assert!(refusal.observed.is_finite() && refusal.limit.is_finite(), "{refusal:?}");
    assert!(!refusal.rule.name.is_empty(), "{refusal:?}");
}

impl World {
    fn step(&mut self, bytes: &mut Bytes<'_>) {
        match bytes.below(17) {
            0..=5 => self.admit(bytes),
            6 | 7 => self.respond(bytes),
            8 => self.first_byte(bytes),
            9 | 10 => self.end(bytes),
            11 => self.cancel(bytes),
            12 => self.pass(bytes),
            13 => self.tick(),
            14 => self.observe(bytes),
            15 => self.leave(bytes),
            _ => self.succeed(bytes),
        }
    }

    fn both(&self, act: impl Fn(&Engine, Tick)) {
        act(&self.engine, self.now);
        if let Some(twin) = &self.twin {
            act(twin, self.now);
        }
    }

    fn admit(&mut self, bytes: &mut Bytes<'_>) {
        let headers = Request { key: KEYS[bytes.below(4)], class: CLASSES[bytes.below(4)] };
        let facts = Facts {
            method: "POST",
            path: PATHS[bytes.below(2)],
            client: IpAddr::V4(Ipv4Addr::new(10, 0, 0, bytes.byte() % 3)),
            headers: &headers,
            claims: &NoClaims,
            model: None,
            service_tier: None,
            tokens: Tokens { input: u32::from(bytes.byte()), cached: 0, output: u32::from(bytes.byte()) },
        };
        match self.engine.admit(self.now, &facts) {
            Decision::Admit(admission) => {
                let twin = self.twin.as_ref().map(|twin| match twin.admit(self.now, &facts) {
                    Decision::Admit(admission) => (Arc::clone(twin), admission.ticket),
                    other => panic!("refused only where others had been refused before: {other:?}"),
                });
                self.in_flight.push(InFlight {
                    engine: Arc::clone(&self.engine),
                    ticket: admission.ticket,
                    twin,
                    answered: false,
                    first_byte: None,
                });
            }
            Decision::Queue(waiting) => {
                let end_of_time = self.now == Tick::from_nanos(u64::MAX);
                assert!(waiting.deadline() > self.now || end_of_time, "{waiting:?}");
                let high = waiting.class() == PriorityClass::High;
                self.waiting.push((Arc::clone(&self.engine), waiting));
                if high {
                    self.keep_low_out(&facts);
                }
            }
            Decision::Refuse(refusal) | Decision::Fallback(refusal) => {
                explains_itself(&refusal);
                let own = matches!(refusal.cause, Cause::Limit | Cause::Breaker);
                if refusal.class == PriorityClass::High && !own {
                    self.keep_low_out(&facts);
                }
            }
        }
    }

    /// No high is kept out in a state that admits low.
    fn keep_low_out(&mut self, of_high: &Facts<'_>) {
        let low = Request { key: "somebody else", class: "low" };
        match self.engine.admit(self.now, &Facts { headers: &low, ..*of_high }) {
            Decision::Admit(admission) => panic!("high is kept out, and low let in: {admission:?}"),
            Decision::Queue(waiting) => {
                let turns = self.engine.leave(self.now, waiting);
                self.turns(turns);
            }
            Decision::Refuse(refusal) | Decision::Fallback(refusal) => explains_itself(&refusal),
        }
    }

    /// The waits at these places are over.
    fn turns(&mut self, mut places: Vec<Place>) {
        while let Some(place) = places.pop() {
            let at = self.waiting.iter().position(|(_, waiting)| waiting.place() == place);
            let Some(at) = at else { panic!("nobody waits at {place:?}") };
            let (engine, waiting) = self.waiting.swap_remove(at);
            match engine.resume(self.now, waiting) {
                Decision::Admit(Admission { ticket, .. }) => {
                    let (answered, first_byte) = (false, None);
                    self.in_flight.push(InFlight { engine, ticket, twin: None, answered, first_byte });
                }
                Decision::Refuse(refusal) | Decision::Fallback(refusal) => explains_itself(&refusal),
                Decision::Queue(waiting) => panic!("told that its wait is over: {waiting:?}"),
            }
        }
    }

    fn leave(&mut self, bytes: &mut Bytes<'_>) {
        let n = bytes.below(self.waiting.len());
        if n < self.waiting.len() {
            let (engine, waiting) = self.waiting.swap_remove(n);
            let turns = engine.leave(self.now, waiting);
            self.turns(turns);
        }
    }

    fn tick(&mut self) {
        let turns = self.engine.tick(self.now);
        if let Some(twin) = &self.twin {
            assert_eq!(twin.tick(self.now), [], "nobody waits at a twin");
        }
        self.turns(turns);
        let late = self.waiting.iter().find(|(_, waiting)| waiting.deadline() <= self.now);
        assert!(late.is_none(), "it waits beyond its time: {late:?}");
    }

    /// Everybody ends or leaves: every place is free again.
    fn end_all(&mut self) {
        while let Some((engine, waiting)) = self.waiting.pop() {
            let turns = engine.leave(self.now, waiting);
            self.turns(turns);
        }
        while let Some(last) = self.in_flight.pop() {
            self.complete(last, &Completion::default());
        }
        self.check();
        let status = self.engine.snapshot(self.now);
        assert_eq!(status.concurrency.map_or(0, |places| places.in_flight), 0, "places in use");
        assert_eq!(status.queue.map_or(0, |queue| queue.length), 0, "nobody waits");
        assert_eq!((self.engine.next_deadline(), self.engine.tick(self.now)), (None, Vec::new()));
    }

    fn respond(&mut self, bytes: &mut Bytes<'_>) {
        let n = bytes.below(self.in_flight.len());
        let outcome = match bytes.below(8) {
            0 => HeadOutcome::TimedOut,
            1 => HeadOutcome::Failed,
            2 => HeadOutcome::Status(500),
            3 => HeadOutcome::Status(503),
            4 => HeadOutcome::Status(u16::from(bytes.byte()) << 8),
            _ => HeadOutcome::Status(200),
        };
        let now = self.now;
        if let Some(request) = self.in_flight.get_mut(n).filter(|request| !request.answered) {
            request.answered = true;
            request.engine.responded(now, &mut request.ticket, outcome);
            if let Some((twin, ticket)) = &mut request.twin {
                twin.responded(now, ticket, outcome);
            }
        }
    }

    fn first_byte(&mut self, bytes: &mut Bytes<'_>) {
        let (n, now) = (bytes.below(self.in_flight.len()), self.now);
        let request = self.in_flight.get_mut(n);
        if let Some(request) = request.filter(|r| r.answered && r.first_byte.is_none()) {
            request.first_byte = Some(now);
            request.engine.first_byte(now, &mut request.ticket);
            if let Some((twin, ticket)) = &mut request.twin {
                twin.first_byte(now, ticket);
            }
        }
    }

    fn end(&mut self, bytes: &mut Bytes<'_>) {
        let tokens =
            Tokens { input: u32::MAX, cached: u32::from(bytes.byte()), output: u32::from(bytes.byte()) };
        let (n, whole) = (bytes.below(self.in_flight.len()), bytes.below(2) == 0);
        let counted = bytes.below(2) == 0;
        if n < self.in_flight.len() {
            let request = self.in_flight.swap_remove(n);
            let completion = Completion {
                first_byte: request.first_byte,
                events: bytes.number(),
                whole,
                tokens: counted.then_some(tokens),
            };
            self.complete(request, &completion);
        }
    }

    fn complete(&mut self, request: InFlight, completion: &Completion) {
        let turns = request.engine.complete(self.now, request.ticket, completion);
        if let Some((twin, ticket)) = request.twin {
            twin.complete(self.now, ticket, completion);
        }
        self.turns(turns);
    }

    fn cancel(&mut self, bytes: &mut Bytes<'_>) {
        let n = bytes.below(self.in_flight.len());
        if n < self.in_flight.len() && !self.in_flight[n].answered {
            let request = self.in_flight.swap_remove(n);
            let turns = request.engine.cancel(self.now, request.ticket);
            if let Some((twin, ticket)) = request.twin {
                twin.cancel(self.now, ticket);
            }
            self.turns(turns);
        }
    }

    fn pass(&mut self, bytes: &mut Bytes<'_>) {
        let passed = match bytes.below(5) {
            0 => Duration::ZERO,
            1 => Duration::from_nanos(bytes.number()),
            2 => Duration::from_millis(u64::from(bytes.byte())),
            3 => Duration::from_secs(u64::from(bytes.byte())),
            _ => Duration::from_hours(u64::from(bytes.byte())),
        };
        self.now = self.now + passed;
    }

    fn observe(&self, bytes: &mut Bytes<'_>) {
        let at = self.now;
        let signal = match bytes.below(3) {
            0 => Signal::GpuMemory(GpuMemoryReading { used: bytes.number(), total: bytes.number(), at }),
            1 => Signal::Engine(EngineReading {
                kv_cache_usage: Some(f64::from(bytes.byte()) / 100.0),
                running: Some(bytes.number()),
                waiting: Some(bytes.number()),
                preemptions: Some(bytes.number()),
                at,
            }),
            _ => return self.observe_stage(bytes),
        };
        self.both(|engine, now| engine.observe(now, signal));
    }

    fn observe_stage(&self, bytes: &mut Bytes<'_>) {
        let reading = match bytes.below(3) {
            0 => StageReading::Took(Duration::from_millis(bytes.number())),
            1 => StageReading::Counted { times: bytes.number(), over: bytes.number() },
            _ => StageReading::OutOfMemory,
        };
        let i = bytes.below(Stage::MOST);
        self.both(|engine, now| engine.observe_stage(now, i, reading));
    }

    fn succeed(&mut self, bytes: &mut Bytes<'_>) {
        let (document, untouched) = policies::choose(bytes.below(policies::DOCUMENTS));
        self.engine = Arc::new(self.engine.succeed(&document, self.now));
        // A document under which refused requests leave something behind ends the comparison.
        self.twin = self.twin.take().filter(|_| untouched).map(|t| Arc::new(t.succeed(&document, self.now)));
        self.breaker = None;
    }

    fn check(&mut self) {
        let status: Status = self.engine.snapshot(self.now);
        assert_eq!(status.in_flight, self.in_flight.len() as u64, "in flight");
        assert!((0.0..=1.0).contains(&status.pressure), "pressure {}", status.pressure);
        let breaker = status.breaker.map(|breaker| breaker.state);
        let illegal = (self.breaker, breaker) == (Some(BreakerState::Open), Some(BreakerState::Closed));
        assert!(!illegal, "an open breaker was closed in one step");
        self.breaker = breaker;
    }
}
