//! Places in flight: how a request finds one, waits for one, and gives it back.

use std::sync::Arc;
use std::time::Duration;

use tidegate_policy::report::{ConcurrencyStatus, QueueStatus};
use tidegate_policy::{Concurrency, LatencySignal, Mode, PolicyDocument, PriorityClass};

use super::ask::Given;
use super::control::Control;
use super::line::Line;
use super::{Engine, Ticket};
use crate::breaker::Call;
use crate::concurrency::{Advice, Pool, class_index};
use crate::deadline::client_timeout;
use crate::lane::Lane;
use crate::limit::Key;
use crate::queue::{Account, End, Joined, Newcomer, Place};
use crate::sync::{AtomicU64, Ordering::Relaxed};
use crate::{Admission, Cause, Completion, Decision, Facts, Refusal, Rule, Tick, Tokens};

/// What a token of the answer counts in the queue where one of the prompt counts one: a decoding step is paid for by
/// each, as in "Fairness in Serving Large Language Models" (OSDI 2024).
const OUTPUT_WEIGHT: u64 = 2;

/// The limit of places, as requests meet it.
#[derive(Debug)]
pub(super) struct Places {
    mode: Mode,
    rule: Arc<Rule>,
    latency: LatencySignal,
    line: Option<Arc<Line>>,
    /// Nanoseconds, of the last advice, by class: when those who find no place may come, and for how long from then on.
    spread: [[AtomicU64; 2]; 3],
}

/// Where a request stands that asked for a place.
pub(super) enum Found<'a> {
    /// It has one; none where nothing is enforced.
    Place(Option<Pool>),
    /// It may wait.
    Queue(&'a Arc<Line>),
}

/// A request that waits for a place in flight, with all that it holds meanwhile. Belongs to the engine that gave it,
/// also after that was succeeded by another: to be handed back to `resume` when its turn has come, or to `leave`.
#[derive(Debug)]
#[must_use = "a request that neither resumes nor leaves keeps what it holds for ever"]
pub struct Waiting {
    line: Arc<Line>,
    place: Place,
    class: PriorityClass,
    since: Tick,
    deadline: Tick,
    account: Account,
    given: Box<Given>,
    call: Option<Call>,
    shadow: Option<Refusal>,
}

impl Waiting {
    /// Its place in the queue.
    pub const fn place(&self) -> Place {
        self.place
    }

    /// The class it was judged by.
    pub const fn class(&self) -> PriorityClass {
        self.class
    }

    /// When its wait is over at the latest.
    pub const fn deadline(&self) -> Tick {
        self.deadline
    }
}

/// The limit of places of a document. A queue without one waits for the default.
pub(super) fn concurrency(document: &PolicyDocument) -> Option<Concurrency> {
    let of_queue = || document.queue.as_ref().map(|queue| Concurrency::default_of(&queue.policy, queue.mode));
    document.concurrency.clone().or_else(of_queue)
}

/// What a request counts among those of other tenants.
fn queue_cost(tokens: &Tokens) -> u64 {
    let prompt = u64::from(tokens.input);
    (prompt + OUTPUT_WEIGHT * u64::from(tokens.output)).max(1)
}

impl Places {
    pub(super) fn new(document: &PolicyDocument, seed: u64) -> Option<Self> {
        let concurrency = concurrency(document)?;
        let rule =
            |policy: &str, name: &str| Arc::new(Rule { policy: policy.to_owned(), name: name.to_owned() });
        let line = document
            .queue
            .as_ref()
            .map(|queue| Arc::new(Line::new(queue, rule(&queue.policy, "queue"), seed)));
        Some(Self {
            mode: concurrency.mode,
            rule: rule(&concurrency.policy, "concurrency"),
            latency: concurrency.latency,
            line,
            spread: std::array::from_fn(|_| [AtomicU64::new(0), AtomicU64::new(0)]),
        })
    }

    /// Publishes when those who find no place may come again.
    pub(super) fn advise(&self, advice: Advice) {
        let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        for ([earliest, width], spread) in self.spread.iter().zip(advice.spread) {
            earliest.store(nanos(spread.0), Relaxed);
            width.store(nanos(spread.1), Relaxed);
        }
        if let Some(line) = &self.line {
            line.shorten(advice.per_second);
        }
    }
}

impl Engine {
    /// Takes a place in flight, or says that there is a queue for one.
    #[inline]
    pub(super) fn find_place(
        &self,
        class: PriorityClass,
        shadow: &mut Option<Refusal>,
    ) -> Result<Found<'_>, Refusal> {
        let Some(places) = &self.places else { return Ok(Found::Place(None)) };
        let line = places.line.as_ref().filter(|line| line.mode == Mode::Enforce);
        // Nobody overtakes those of his own class or of a higher one.
        if (line.is_none() || self.queue.may_pass(class))
            && let Some(pool) = self.permits.take(class)
        {
            return Ok(Found::Place(Some(pool)));
        }
        match line {
            _ if places.mode == Mode::Shadow => {
                shadow.get_or_insert_with(|| self.no_place(places, class));
                Ok(Found::Place(None))
            }
            Some(line) => Ok(Found::Queue(line)),
            None => Err(self.no_place(places, class)),
        }
    }

    /// Waits with all that was given, which comes back when the queue is full.
    #[cold]
    #[inline(never)]
    pub(super) fn queue_up(
        &self,
        now: Tick,
        facts: &Facts<'_>,
        line: &Arc<Line>,
        mut admission: Admission,
        given: Box<Given>,
    ) -> Decision {
        let Key { place, tag } = Key::of(&line.tenant, &line.hasher, facts);
        let (class, cost) = (admission.class, queue_cost(&facts.tokens));
        let account = Account { class, tenant: [place, tag], cost };
        // Nobody is kept waiting for an answer that he no longer waits for himself.
        let patience = client_timeout(facts.headers).map_or(line.timeout, |own| own.min(line.timeout));
        let deadline = now + patience;
        let newcomer = Newcomer { account, deadline };
        let most = line.useful();
        match self.queue.join(now, newcomer, most, &self.permits) {
            Joined::Go(pool) => {
                (admission.wait, admission.ticket.held) = (given.wait, given.held);
                admission.ticket.pool = Some(pool);
                admission.ticket.account = Some(Box::new(account));
                self.let_pass(now, facts.tokens, admission)
            }
            Joined::Waits(place) => {
                let (line, since) = (Arc::clone(line), now);
                let Admission { ticket: Ticket { call, .. }, shadow, .. } = admission;
                Decision::Queue(Waiting { line, place, class, since, deadline, account, given, call, shadow })
            }
            Joined::Full(length) => {
                self.hand_back(now, class, &given, admission.ticket.call);
                self.refuse(self.unqueued(line, class, Cause::QueueFull, length as f64, most as f64))
            }
        }
    }

    /// One that was in the queue is let in.
    fn let_pass(&self, now: Tick, tokens: Tokens, mut admission: Admission) -> Decision {
        let Admission { class, wait, .. } = admission;
        let ticket = &mut admission.ticket;
        let lane = Lane::of_this_thread();
        (ticket.admitted, ticket.slot) = self.let_in(now, lane, (class, tokens, wait), &mut ticket.call);
        Decision::Admit(admission)
    }

    /// What has become of a waiting request: it is let in, or refused, and what it held comes back, or it waits on. To
    /// be asked when its place was returned as one whose wait is over; asking earlier does no harm.
    pub fn resume(&self, now: Tick, waiting: Waiting) -> Decision {
        let Some(end) = self.queue.ended(waiting.place) else { return Decision::Queue(waiting) };
        let Waiting { line, class, since, deadline, account, given, call, shadow, .. } = waiting;
        if let End::Go(pool) = end {
            let tokens = given.judged.tokens();
            let mut admission = Admission { shadow, ..Admission::of(class) };
            // It has waited for its turn with the others at the same time.
            admission.wait = (since + given.wait).since(now);
            let account = Some(Box::new(account));
            admission.ticket = Ticket { call, held: given.held, pool, account, ..Ticket::default() };
            return self.let_pass(now, tokens, admission);
        }
        self.hand_back(now, class, &given, call);
        let most = line.most as f64;
        let refusal = match end {
            End::Displaced { length } => self.unqueued(&line, class, Cause::QueueFull, length as f64, most),
            End::Shed(tier) => self.shed_by(now, class, tier).unwrap_or_else(|| {
                let waited = now.since(since).as_secs_f64() * 1000.0;
                self.unqueued(&line, class, Cause::Tier(tier), waited, 0.0)
            }),
            End::TimedOut | End::Go(_) => {
                let millis = |duration: Duration| duration.as_secs_f64() * 1000.0;
                let (waited, most) = (millis(now.since(since)), millis(deadline.since(since)));
                self.unqueued(&line, class, Cause::QueueTimeout, waited, most)
            }
        };
        self.refuse(refusal)
    }

    /// A waiting request is given up, and what it held comes back. Returns those whose wait is over with that.
    pub fn leave(&self, now: Tick, waiting: Waiting) -> Vec<Place> {
        let Waiting { place, class, given, call, .. } = waiting;
        if let Some(End::Go(Some(pool))) = self.queue.leave(place) {
            self.permits.give_back(pool);
        }
        self.hand_back(now, class, &given, call);
        self.turns(now)
    }

    /// When the next waiting request has waited for as long as it may: a `tick` then returns it.
    pub fn next_deadline(&self) -> Option<Tick> {
        if self.queue.is_occupied() { self.queue.next_deadline() } else { None }
    }

    /// An answer has begun.
    pub(super) fn begin(&self, ticket: &Ticket, first: Option<Tick>, told: bool) {
        let Some(places) = &self.places else { return };
        let lane = Lane::of_this_thread();
        self.flow.begin(lane, told);
        if let (Some(first), false, LatencySignal::TimeToFirstToken) = (first, ticket.failed, places.latency)
        {
            self.flow.sample(lane, first.since(ticket.admitted));
        }
    }

    /// Gives a place in flight back.
    pub(super) fn end_place(&self, now: Tick, ticket: &Ticket, completion: &Completion) -> Vec<Place> {
        let Some(places) = &self.places else { return Vec::new() };
        if !ticket.begun {
            self.begin(ticket, completion.first_byte, false);
        }
        let lane = Lane::of_this_thread();
        match (places.latency, completion.first_byte) {
            _ if ticket.failed => {}
            (LatencySignal::TotalLatency, _) if completion.whole => {
                self.flow.sample(lane, now.since(ticket.admitted));
            }
            (LatencySignal::TimePerOutputToken, Some(first)) if completion.events > 1 => {
                let gaps = u32::try_from(completion.events - 1).unwrap_or(u32::MAX);
                self.flow.sample(lane, now.since(first) / gaps);
            }
            _ => {}
        }
        if let (Some(account), Some(used)) = (&ticket.account, &completion.tokens) {
            self.queue.settle(**account, queue_cost(used));
        }
        if let Some(pool) = ticket.pool {
            self.permits.give_back(pool);
        }
        self.turns(now)
    }

    pub(super) fn turns_of_tick(&self, now: Tick) -> Vec<Place> {
        if !self.queue.is_occupied() {
            return Vec::new();
        }
        let enforced = self.tiers.as_ref().is_some_and(|tiers| tiers.mode == Mode::Enforce);
        let shed = self.gate.shed(now).filter(|_| enforced).map(|shed| shed.tier);
        self.queue.turns(now, self.places.as_ref().map(|_| &*self.permits), shed)
    }

    fn turns(&self, now: Tick) -> Vec<Place> {
        if self.queue.is_occupied() { self.queue.turns(now, Some(&self.permits), None) } else { Vec::new() }
    }

    fn hand_back(&self, now: Tick, class: PriorityClass, given: &Given, call: Option<Call>) {
        self.refund(class, given);
        if let (Some(breaker), Some(call)) = (&self.breaker, call) {
            breaker.give_back(now, call);
        }
    }

    fn refund(&self, class: PriorityClass, given: &Given) {
        self.limits.give_back(&given.judged);
        self.give_back(class, given.tokens);
    }

    #[cold]
    #[inline(never)]
    fn no_place(&self, places: &Places, class: PriorityClass) -> Refusal {
        self.flow.refuse(Lane::of_this_thread(), class);
        let (bounds, in_use) = (self.permits.bounds(), self.permits.in_use());
        let (used, limit) = match class {
            PriorityClass::High => (in_use.total(), bounds.reserve.saturating_add(bounds.common)),
            PriorityClass::Medium => (in_use.common, bounds.medium),
            PriorityClass::Low => (in_use.common, bounds.low),
        };
        Refusal {
            cause: Cause::Concurrency,
            rule: Arc::clone(&places.rule),
            class,
            observed: f64::from(used) + 1.0,
            limit: f64::from(limit),
            retry_after: self.place_advice(places, class),
        }
    }

    #[cold]
    fn unqueued(
        &self,
        line: &Line,
        class: PriorityClass,
        cause: Cause,
        observed: f64,
        limit: f64,
    ) -> Refusal {
        self.flow.refuse(Lane::of_this_thread(), class);
        let advice = self.places.as_ref().map_or(Duration::ZERO, |places| self.place_advice(places, class));
        Refusal { cause, rule: Arc::clone(&line.rule), class, observed, limit, retry_after: advice }
    }

    fn place_advice(&self, places: &Places, class: PriorityClass) -> Duration {
        let [earliest, width] = &places.spread[class_index(class)];
        let nanos = |word: &AtomicU64| Duration::from_nanos(word.load(Relaxed));
        self.spread.within(nanos(earliest), nanos(width))
    }

    pub(super) fn concurrency_status(&self, control: &Control) -> Option<ConcurrencyStatus> {
        let limiter = control.limiter()?;
        let (config, bounds) = (limiter.config(), self.permits.bounds());
        Some(ConcurrencyStatus {
            policy: config.policy.clone(),
            mode: config.mode,
            algorithm: config.algorithm.as_str().to_owned(),
            limit: u64::from(limiter.limit()),
            reserve: u64::from(bounds.reserve),
            medium: u64::from(bounds.medium),
            low: u64::from(bounds.low),
            in_flight: u64::from(self.permits.in_use().total()),
            refused: self.flow.totals().all_refused(),
        })
    }

    pub(super) fn queue_status(&self, now: Tick) -> Option<QueueStatus> {
        let line = self.places.as_ref()?.line.as_ref()?;
        let (length, oldest, counts) = self.queue.status();
        let millis = oldest.map_or(0, |since| now.since(since).as_millis());
        Some(QueueStatus {
            policy: line.rule.policy.clone(),
            mode: line.mode,
            max_length: line.most as u64,
            length,
            oldest_millis: u64::try_from(millis).unwrap_or(u64::MAX),
            admitted: counts.admitted,
            timed_out: counts.timed_out,
            evicted: counts.evicted,
            refused: counts.refused,
        })
    }
}
