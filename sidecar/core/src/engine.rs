//! The engine.

use tidegate_policy::report::Status;
use tidegate_policy::{PolicyDocument, PriorityClass};

use crate::{Admission, Completion, Decision, Facts, HeadOutcome, Signal, Tick};

/// Decides for one pod under one document.
#[derive(Debug)]
pub struct Engine {
    revision: String,
}

/// A request in flight. Belongs to the engine that gave it, also after that was succeeded by another.
#[derive(Debug)]
#[must_use = "a ticket that is not completed keeps its place in flight for ever"]
pub struct Ticket {
    #[allow(dead_code)]
    admitted: Tick,
}

impl Engine {
    /// An engine without history. `seed` keys its hashes and spreads its retry advice.
    pub fn new(document: &PolicyDocument, seed: u64, now: Tick) -> Self {
        let _ = (seed, now);
        Self { revision: document.revision.clone() }
    }

    /// The engine for the next document. Counters, windows and states of rules whose identity is unchanged are
    /// shared with this one, so that tickets of both can be completed and nothing is forgotten.
    #[must_use]
    pub fn succeed(&self, document: &PolicyDocument, now: Tick) -> Self {
        Self::new(document, 0, now)
    }

    /// Judges a request. A refused one spends nothing.
    pub fn admit(&self, now: Tick, facts: &Facts<'_>) -> Decision {
        let _ = facts;
        let ticket = Ticket { admitted: now };
        Decision::Admit(Admission { ticket, class: PriorityClass::Medium, timeout: None, shadow: None })
    }

    /// The head of the response is there, or will not come. At most once for each ticket.
    pub fn responded(&self, now: Tick, ticket: &mut Ticket, outcome: HeadOutcome) {
        let _ = (now, ticket, outcome);
    }

    /// The request is over. Without `responded` before, it ends without a verdict on the engine.
    pub fn complete(&self, now: Tick, ticket: Ticket, completion: &Completion) {
        let _ = (now, ticket, completion);
    }

    /// Takes a reading.
    pub fn observe(&self, now: Tick, signal: Signal) {
        let _ = (now, signal);
    }

    /// Closes samples and periods, learns, trips and recovers. To be called every 100 ms by one thread.
    pub fn tick(&self, now: Tick) {
        let _ = now;
    }

    /// The state at one instant.
    pub fn snapshot(&self, now: Tick) -> Status {
        let _ = now;
        Status { revision: self.revision.clone(), ..Status::default() }
    }
}
