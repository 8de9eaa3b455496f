//! The engine.

mod ask;
mod control;
mod course;
mod latencies;
mod line;
mod places;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidegate_policy::report::{BreakerStatus, Status};
use tidegate_policy::{Mode, PolicyDocument, PriorityClass, RateLimitHeaders};

use crate::ages::Slot;
use crate::breaker::{Breaker, Call};
use crate::concurrency::{Flow, Permits, Pool};
use crate::gate::Gate;
use crate::gradient::Gradient;
use crate::lane::Lane;
use crate::limit::{Held, Judged, Limits, Quota, QuotaKeys};
use crate::meter::Meter;
use crate::priority::Classifier;
use crate::queue::{Account, Place, Queue};
use crate::ramp::Ramp;
use crate::spread::Spread;
use crate::{Decision, Facts, Rule, Signal, StageReading, Tick, TimeLimits, Tokens};
use control::Control;
use latencies::LatencyMeter;
use places::Places;
pub use places::Waiting;

/// Decides for one pod under one document.
#[derive(Debug)]
pub struct Engine {
    revision: String,
    seed: u64,
    reads_prompts: bool,
    counts_tokens: bool,
    priority: Classifier,
    rate_limit_headers: RateLimitHeaders,
    breaker: Option<Breaker>,
    tiers: Option<TierRules>,
    gate: Gate,
    limits: Limits,
    latencies: Option<Arc<LatencyMeter>>,
    /// Shared with every engine that succeeds this one.
    meter: Arc<Meter>,
    gradient: Arc<Gradient>,
    ramp: Arc<Ramp>,
    spread: Arc<Spread>,
    /// What is asked for a place in flight, where their number is limited.
    places: Option<Places>,
    permits: Arc<Permits>,
    flow: Arc<Flow>,
    queue: Arc<Queue>,
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
#[derive(Debug, Default)]
#[must_use = "a ticket that is not completed keeps its place in flight for ever"]
pub struct Ticket {
    admitted: Tick,
    call: Option<Call>,
    held: Held,
    /// Where it waits, until the latency tier's signal is there.
    slot: Option<Slot>,
    /// The engine refused or failed: how long that took is not its latency.
    failed: bool,
    /// Its place in flight.
    pool: Option<Pool>,
    /// Its answer has begun.
    begun: bool,
    /// What it counted in the queue, if it has been there.
    account: Option<Box<Account>>,
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
        let (meter, flow) = (Arc::new(Meter::new()), Arc::new(Flow::new()));
        let latency = document.tiers.as_ref().and_then(|tiers| tiers.latency);
        let engine = Self {
            revision: document.revision.clone(),
            seed,
            reads_prompts: document.reads_prompts(),
            counts_tokens: document.counts_tokens(),
            priority: Classifier::new(&document.priority),
            rate_limit_headers: document.rate_limit_headers.unwrap_or_default(),
            breaker: document.breaker.as_ref().map(|policy| Breaker::new(policy, seed)),
            tiers: document.tiers.as_ref().map(TierRules::new),
            gate: Gate::new(),
            limits: Limits::new(&document.limits, seed, now),
            latencies: latency.map(|tier| Arc::new(LatencyMeter::new(&tier, now))),
            control: Mutex::new(Control::new(document, now, &meter, &flow)),
            meter,
            gradient: Arc::new(Gradient::new()),
            ramp: Arc::new(Ramp::new()),
            spread: Arc::new(Spread::new(seed)),
            places: Places::new(document, seed),
            permits: Arc::new(Permits::new()),
            flow,
            queue: Arc::new(Queue::new()),
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
        let latencies = document.tiers.as_ref().and_then(|tiers| tiers.latency).map(|tier| {
            let kept = self.latencies.as_ref().filter(|meter| meter.serves(&tier));
            kept.cloned().unwrap_or_else(|| Arc::new(LatencyMeter::new(&tier, now)))
        });
        let engine = Self {
            revision: document.revision.clone(),
            seed: self.seed,
            reads_prompts: document.reads_prompts(),
            counts_tokens: document.counts_tokens(),
            priority: Classifier::new(&document.priority),
            rate_limit_headers: document.rate_limit_headers.unwrap_or_default(),
            breaker,
            tiers: document.tiers.as_ref().map(TierRules::new),
            gate: Gate::new(),
            limits: self.limits.succeed(&document.limits, now),
            latencies,
            control: Mutex::new(self.control().succeed(document, now, &self.meter, &self.flow)),
            meter: Arc::clone(&self.meter),
            gradient: Arc::clone(&self.gradient),
            ramp: Arc::clone(&self.ramp),
            spread: Arc::clone(&self.spread),
            places: Places::new(document, self.seed),
            permits: Arc::clone(&self.permits),
            flow: Arc::clone(&self.flow),
            queue: Arc::clone(&self.queue),
        };
        engine.refresh(now, &mut engine.control());
        engine
    }

    /// Whether some rule needs a request's model or its estimated tokens, which its body tells. Where none does, nobody
    /// has to look.
    pub const fn reads_prompts(&self) -> bool {
        self.reads_prompts
    }

    /// Whether some rule settles the tokens that a request has used.
    pub const fn counts_tokens(&self) -> bool {
        self.counts_tokens
    }

    /// Judges a request. A refused one spends nothing.
    ///
    /// In this order: the breaker, the tiers by priority, the limits, a place in flight. Tokens are taken last, and
    /// what one of them has given comes back when a later one refuses. One that waits for its place holds them.
    pub fn admit(&self, now: Tick, facts: &Facts<'_>) -> Decision {
        let mut judged = Judged::new();
        // First, so that the memory of their keys is on its way while all others are asked.
        self.limits.find(facts, &mut judged);
        let lane = Lane::of_this_thread();
        if self.meter.offer(lane) {
            self.look_for_burst(now, lane);
        }
        let class = self.priority.classify(facts);
        self.ask(now, lane, class, facts, &mut judged)
    }

    /// All rules let the request pass. Returns when it goes to the inference engine, and where it waits.
    #[inline(always)]
    #[allow(clippy::inline_always)] // what it gives stays in registers
    fn let_in(
        &self,
        now: Tick,
        lane: Lane,
        (class, tokens, wait): (PriorityClass, Tokens, Duration),
        call: &mut Option<Call>,
    ) -> (Tick, Option<Slot>) {
        if let (Some(breaker), Some(call)) = (&self.breaker, call) {
            breaker.begin(now, call);
        }
        self.meter.admit(lane, tokens);
        if self.places.is_some() {
            self.flow.enter(lane, class);
        }
        if !wait.is_zero() {
            // Waiting for its turn is not the engine's latency.
            return (now + wait, None);
        }
        (now, self.latencies.as_ref().and_then(|latencies| latencies.enter(lane)))
    }

    /// How long the inference engine may take.
    pub fn time_limits(&self) -> TimeLimits {
        self.breaker.as_ref().map(Breaker::time_limits).unwrap_or_default()
    }

    /// The policy of the breaker: its fallbacks and hooks are obeyed by whoever serves.
    pub fn breaker_policy(&self) -> Option<&tidegate_policy::Breaker> {
        self.breaker.as_ref().map(Breaker::policy)
    }

    /// Whether an answer with this status is a failure of the inference engine.
    pub fn is_failure(&self, status: u16) -> bool {
        self.breaker.as_ref().is_some_and(|breaker| breaker.is_failure(status))
    }

    /// The limit that a stream of this ticket has to end for, having used so many tokens: they are more than what was
    /// reserved for it and what is left, and the limit does not let streams finish. To be asked now and then while a
    /// stream goes on; what it used is settled by `complete`, whatever is answered here.
    pub fn exhausted(&self, now: Tick, ticket: &Ticket, used: &Tokens) -> Option<Arc<Rule>> {
        self.limits.exhausted(now, &ticket.held, used)
    }

    /// Takes a reading.
    pub fn observe(&self, now: Tick, signal: Signal) {
        let mut control = self.control();
        control.observe(now, signal, &self.meter);
        self.refresh(now, &mut control);
    }

    /// Takes what is heard of the stage that stands `i`th in the breaker's policy.
    pub fn observe_stage(&self, now: Tick, i: usize, reading: StageReading) {
        if let Some(breaker) = &self.breaker {
            breaker.observe(now, i, reading);
        }
    }

    /// Closes samples and periods, learns, trips and recovers. To be called every 100 ms by one thread. Returns those
    /// whose wait is over.
    pub fn tick(&self, now: Tick) -> Vec<Place> {
        self.refresh(now, &mut self.control());
        if let Some(breaker) = &self.breaker {
            breaker.tick(now);
        }
        self.limits.grow_ahead();
        self.turns_of_tick(now)
    }

    /// Names of the headers that the inference engine should not see.
    pub fn stripped_headers(&self) -> &[String] {
        self.priority.stripped()
    }

    /// Which answers should tell what is left of the limits.
    pub fn rate_limit_headers(&self) -> RateLimitHeaders {
        self.rate_limit_headers
    }

    /// What a request is counted by, to ask [`Engine::quotas`] with when its answer is there.
    pub fn quota_keys(&self, facts: &Facts<'_>) -> QuotaKeys {
        self.limits.quota_keys(facts)
    }

    /// What is left at `now` of every limit that is enforced. The keys have to be this engine's.
    pub fn quotas<'a>(&'a self, now: Tick, keys: &'a QuotaKeys) -> impl Iterator<Item = Quota<'a>> + use<'a> {
        self.limits.quotas(now, keys)
    }

    /// The state at one instant.
    pub fn snapshot(&self, now: Tick) -> Status {
        let control = self.control();
        Status {
            revision: self.revision.clone(),
            pressure: self.gradient.pressure(),
            pressure_onset: control.onset(),
            in_flight: self.meter.in_flight(),
            engine: control.engine_load(now),
            tiers: control.status(now),
            limits: self.limits.status(now),
            breaker: self.breaker(now),
            concurrency: self.concurrency_status(&control),
            queue: self.queue_status(now),
        }
    }

    /// State of the breaker at one instant, without waiting for whatever else goes on.
    pub fn breaker(&self, now: Tick) -> Option<BreakerStatus> {
        self.breaker.as_ref().map(|breaker| breaker.status(now))
    }

    /// A panic while it was held leaves numbers that are at worst one tick old, so it is used on.
    fn control(&self) -> MutexGuard<'_, Control> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
