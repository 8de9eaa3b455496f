//! The engine.

mod ask;
mod control;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidegate_policy::report::Status;
use tidegate_policy::{LatencySignal, Mode, PolicyDocument};

use crate::breaker::{Breaker, Call, FirstByte};
use crate::gate::Gate;
use crate::gradient::Gradient;
use crate::histogram::Histogram;
use crate::lane::Lane;
use crate::limit::{Held, Limits};
use crate::meter::Meter;
use crate::priority::Classifier;
use crate::spread::Spread;
use crate::{Admission, Completion, Decision, Facts, HeadOutcome, Rule, Signal, Tick};
use control::Control;

/// Decides for one pod under one document.
#[derive(Debug)]
pub struct Engine {
    revision: String,
    seed: u64,
    priority: Classifier,
    breaker: Option<Breaker>,
    tiers: Option<TierRules>,
    gate: Gate,
    limits: Limits,
    latencies: Option<(LatencySignal, Arc<Histogram>)>,
    /// Shared with every engine that succeeds this one.
    meter: Arc<Meter>,
    gradient: Arc<Gradient>,
    spread: Arc<Spread>,
    /// What ticks, readings and snapshots work on. Requests never wait for it.
    control: Mutex<Control>,
}

/// Names of the tiers' rules.
#[derive(Debug)]
struct TierRules {
    mode: Mode,
    qps: Arc<Rule>,
    gpu_memory: Arc<Rule>,
    latency: Arc<Rule>,
    priority: Arc<Rule>,
}

/// A request in flight. Belongs to the engine that gave it, also after that was succeeded by another.
#[derive(Debug)]
#[must_use = "a ticket that is not completed keeps its place in flight for ever"]
pub struct Ticket {
    admitted: Tick,
    call: Option<Call>,
    held: Held,
    /// The engine refused or failed: how long that took is not its latency.
    failed: bool,
}

impl TierRules {
    fn new(tiers: &tidegate_policy::Tiers) -> Self {
        let rule = |name: &str| Arc::new(Rule { policy: tiers.policy.clone(), name: name.to_owned() });
        Self {
            mode: tiers.mode,
            qps: rule("tiers.qps"),
            gpu_memory: rule("tiers.gpuMemory"),
            latency: rule("tiers.latency"),
            priority: rule("priority"),
        }
    }
}

impl Engine {
    /// An engine without history, for a document that validates. `seed` keys its hashes and spreads its retry
    /// advice.
    pub fn new(document: &PolicyDocument, seed: u64, now: Tick) -> Self {
        let meter = Arc::new(Meter::new());
        let signal = document.tiers.as_ref().and_then(|tiers| tiers.latency).map(|tier| tier.signal);
        let engine = Self {
            revision: document.revision.clone(),
            seed,
            priority: Classifier::new(&document.priority),
            breaker: document.breaker.as_ref().map(|policy| Breaker::new(policy, seed)),
            tiers: document.tiers.as_ref().map(TierRules::new),
            gate: Gate::new(),
            limits: Limits::new(&document.limits, seed, now),
            latencies: signal.map(|signal| (signal, Arc::new(Histogram::new()))),
            control: Mutex::new(Control::new(document, now, &meter)),
            meter,
            gradient: Arc::new(Gradient::new()),
            spread: Arc::new(Spread::new(seed)),
        };
        engine.refresh(now, &mut engine.control());
        engine
    }

    /// The engine for the next document. Counters, windows and states of rules whose identity is unchanged are
    /// shared with this one, so that tickets of both can be completed and nothing is forgotten: of a limit its
    /// policy, name, key and kind of algorithm, of a tier its kind (of latency also the signal and percentile),
    /// of a breaker its policy. Changed numbers act on what was counted before at once.
    #[must_use]
    pub fn succeed(&self, document: &PolicyDocument, now: Tick) -> Self {
        let before = self.breaker.as_ref();
        let breaker = document.breaker.as_ref().map(|policy| {
            let new = || Breaker::new(policy, self.seed);
            before.map_or_else(new, |b| b.succeed(policy, self.seed, now))
        });
        let signal = document.tiers.as_ref().and_then(|tiers| tiers.latency).map(|tier| tier.signal);
        let kept = self.latencies.as_ref().filter(|(before, _)| Some(*before) == signal);
        let fresh = || signal.map(|signal| (signal, Arc::new(Histogram::new())));
        let engine = Self {
            revision: document.revision.clone(),
            seed: self.seed,
            priority: Classifier::new(&document.priority),
            breaker,
            tiers: document.tiers.as_ref().map(TierRules::new),
            gate: Gate::new(),
            limits: self.limits.succeed(&document.limits, now),
            latencies: kept.cloned().or_else(fresh),
            control: Mutex::new(self.control().succeed(document, now, &self.meter)),
            meter: Arc::clone(&self.meter),
            gradient: Arc::clone(&self.gradient),
            spread: Arc::clone(&self.spread),
        };
        engine.refresh(now, &mut engine.control());
        engine
    }

    /// Judges a request. A refused one spends nothing.
    ///
    /// In this order: the breaker, the tiers by priority, the limits. Tokens are taken last, and what one of them
    /// has given comes back when a later one refuses.
    pub fn admit(&self, now: Tick, facts: &Facts<'_>) -> Decision {
        let lane = Lane::of_this_thread();
        if self.meter.offer(lane) {
            self.look_for_burst(now, lane);
        }
        let class = self.priority.classify(facts);
        match self.ask(now, class, facts) {
            Ok(ask::Leave { call, shadow, wait, held }) => {
                self.meter.admit(lane);
                let timeout = self.breaker.as_ref().and_then(Breaker::timeout);
                // Waiting for its turn is not the engine's latency.
                let ticket = Ticket { admitted: now + wait, call, held, failed: false };
                Decision::Admit(Admission { ticket, class, wait, timeout, shadow })
            }
            Err(refusal) => self.refuse(refusal),
        }
    }

    /// The head of the response is there, or will not come. At most once for each ticket.
    pub fn responded(&self, now: Tick, ticket: &mut Ticket, outcome: HeadOutcome) {
        let elapsed = now.since(ticket.admitted);
        if let (Some(breaker), Some(call)) = (&self.breaker, &mut ticket.call) {
            breaker.responded(now, call, outcome, elapsed);
        }
        ticket.failed = !matches!(outcome, HeadOutcome::Status(..400));
        if outcome == HeadOutcome::TimedOut {
            // The longest latencies of all would be missing, if only answers counted.
            self.record_latency(LatencySignal::TotalLatency, elapsed);
            self.record_latency(LatencySignal::TimeToFirstToken, elapsed);
        }
    }

    /// The first byte of the response's body is there. A breaker that looks at latency need not wait for the end of
    /// a stream then; without this it learns of it from `complete`.
    pub fn first_byte(&self, now: Tick, ticket: &mut Ticket) {
        if let (Some(breaker), Some(call)) = (&self.breaker, &mut ticket.call) {
            breaker.first_byte(now, call, FirstByte::After(now.since(ticket.admitted)));
        }
    }

    /// The request is over. Without `responded` before, it ends without a verdict on the engine.
    #[allow(clippy::needless_pass_by_value)] // a ticket ends here: nobody may complete it twice
    pub fn complete(&self, now: Tick, ticket: Ticket, completion: &Completion) {
        self.meter.complete(Lane::of_this_thread());
        if let (Some(breaker), Some(call)) = (&self.breaker, ticket.call) {
            let elapsed = now.since(ticket.admitted);
            let first = match completion.first_byte {
                Some(first) => FirstByte::After(first.since(ticket.admitted)),
                // A response without a body.
                None if completion.whole => FirstByte::After(elapsed),
                None => FirstByte::LaterThan(elapsed),
            };
            breaker.complete(now, call, first);
        }
        self.limits.complete(now, ticket.held, completion.tokens.as_ref());
        if ticket.failed {
            return;
        }
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

    /// The request left before it reached the engine: it gives back all that can be given back.
    #[allow(clippy::needless_pass_by_value)] // as in `complete`
    pub fn cancel(&self, now: Tick, ticket: Ticket) {
        self.meter.complete(Lane::of_this_thread());
        if let (Some(breaker), Some(call)) = (&self.breaker, ticket.call) {
            breaker.give_back(now, call);
        }
        self.limits.cancel(ticket.held);
    }

    /// Takes a reading.
    pub fn observe(&self, now: Tick, signal: Signal) {
        if let (Signal::Stage(reading), Some(breaker)) = (&signal, &self.breaker) {
            breaker.observe(now, reading);
        }
        let mut control = self.control();
        control.observe(now, signal);
        self.refresh(now, &mut control);
    }

    /// Closes samples and periods, learns, trips and recovers. To be called every 100 ms by one thread.
    pub fn tick(&self, now: Tick) {
        self.refresh(now, &mut self.control());
        if let Some(breaker) = &self.breaker {
            breaker.tick(now);
        }
        self.limits.grow_ahead();
    }

    /// The state at one instant.
    pub fn snapshot(&self, now: Tick) -> Status {
        let control = self.control();
        Status {
            revision: self.revision.clone(),
            pressure: self.gradient.pressure(),
            in_flight: self.meter.in_flight(),
            engine: control.engine_load(now),
            tiers: control.status(now),
            limits: self.limits.status(),
            breaker: self.breaker.as_ref().map(|breaker| breaker.status(now)),
        }
    }

    fn record_latency(&self, signal: LatencySignal, latency: Duration) {
        if let Some((wanted, histogram)) = &self.latencies
            && *wanted == signal
        {
            histogram.record(latency);
        }
    }

    /// A panic while it was held leaves numbers that are at worst one tick old, so it is used on.
    fn control(&self) -> MutexGuard<'_, Control> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
