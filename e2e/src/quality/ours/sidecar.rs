//! The decision engine, driven as the sidecar drives it.

use std::{collections::HashMap, net::IpAddr, time::Duration};

use tidegate_cli::engine_model::Reading;
use tidegate_core::{
    Completion, Decision, Engine, EngineReading, Facts, GpuMemoryReading, HeadOutcome, Headers, NoClaims,
    Place, Signal, Tick, Ticket, Tokens, Waiting,
};
use tidegate_policy::{PolicyDocument, PriorityClass};

use crate::quality::policy::{Arrival, End, Finished, Policy, Verdict};

/// The decision engine with the tickets that are out.
#[derive(Debug)]
pub(super) struct Sidecar {
    engine: Engine,
    flights: HashMap<u64, Flight>,
    /// Attempts in the queue, by their place there.
    queued: HashMap<Place, (u64, Waiting)>,
    /// Places whose wait is over.
    ended: Vec<Place>,
}

#[derive(Debug)]
struct Flight {
    ticket: Ticket,
    first_byte: Option<Tick>,
}

/// Header fields of an attempt.
struct Fields {
    tenant: String,
    priority: &'static str,
}

impl Headers for Fields {
    fn get(&self, name: &str) -> Option<&[u8]> {
        match name {
            "x-priority" => Some(self.priority.as_bytes()),
            "x-tenant" => Some(self.tenant.as_bytes()),
            _ => None,
        }
    }
}

fn name(class: PriorityClass) -> &'static str {
    match class {
        PriorityClass::High => "high",
        PriorityClass::Medium => "medium",
        PriorityClass::Low => "low",
    }
}

impl Sidecar {
    pub(super) fn new(document: &PolicyDocument, seed: u64) -> Self {
        Self {
            engine: Engine::new(document, seed, Tick::from_nanos(0)),
            flights: HashMap::new(),
            queued: HashMap::new(),
            ended: Vec::new(),
        }
    }

    fn verdict(&mut self, id: u64, decision: Decision) -> Verdict {
        match decision {
            Decision::Admit(admission) => {
                self.flights.insert(id, Flight { ticket: admission.ticket, first_byte: None });
                Verdict::Admit
            }
            Decision::Queue(waiting) => {
                self.queued.insert(waiting.place(), (id, waiting));
                Verdict::Wait
            }
            Decision::Refuse(refusal) | Decision::Fallback(refusal) => {
                Verdict::Refuse { retry_after: Some(refusal.retry_after) }
            }
        }
    }
}

impl Policy for Sidecar {
    fn arrive(&mut self, now: Duration, arrival: &Arrival) -> Verdict {
        let fields = Fields { tenant: arrival.tenant.to_string(), priority: name(arrival.class) };
        let client = IpAddr::from([10, 0, 0, 1]);
        let facts = Facts {
            method: "POST",
            path: "/v1/chat/completions",
            client,
            headers: &fields,
            claims: &NoClaims,
            model: None,
            service_tier: None,
            tokens: Tokens::default(),
        };
        let decision = self.engine.admit(Tick::from_duration(now), &facts);
        self.verdict(arrival.id, decision)
    }

    fn decided(&mut self, now: Duration) -> Vec<(u64, Verdict)> {
        let ended = std::mem::take(&mut self.ended);
        let mut decided = Vec::with_capacity(ended.len());
        for place in ended {
            let Some((id, waiting)) = self.queued.remove(&place) else { continue };
            let decision = self.engine.resume(Tick::from_duration(now), waiting);
            decided.push((id, self.verdict(id, decision)));
        }
        decided
    }

    fn leaves(&mut self, now: Duration, id: u64) {
        let place = self.queued.iter().find(|(_, (waiting, _))| *waiting == id).map(|(place, _)| *place);
        if let Some((_, waiting)) = place.and_then(|place| self.queued.remove(&place)) {
            self.ended.extend(self.engine.leave(Tick::from_duration(now), waiting));
        }
    }

    fn first_token(&mut self, now: Duration, id: u64, _elapsed: Duration) {
        let now = Tick::from_duration(now);
        if let Some(flight) = self.flights.get_mut(&id) {
            self.engine.responded(now, &mut flight.ticket, HeadOutcome::Status(200));
            self.engine.first_byte(now, &mut flight.ticket);
            flight.first_byte = Some(now);
        }
    }

    fn finish(&mut self, now: Duration, finished: &Finished) {
        let now = Tick::from_duration(now);
        let Some(mut flight) = self.flights.remove(&finished.id) else { return };
        if finished.end == End::Failed && flight.first_byte.is_none() {
            self.engine.responded(now, &mut flight.ticket, HeadOutcome::Failed);
        }
        let completion = Completion {
            first_byte: flight.first_byte,
            events: u64::from(finished.tokens),
            whole: finished.end == End::Whole,
            tokens: None,
        };
        self.ended.extend(self.engine.complete(now, flight.ticket, &completion));
    }

    fn observe(&mut self, now: Duration, reading: &Reading) {
        let at = Tick::from_duration(now);
        let gpu = GpuMemoryReading { used: reading.gpu_used, total: reading.gpu_total, at };
        self.engine.observe(at, Signal::GpuMemory(gpu));
        let engine = EngineReading {
            kv_cache_usage: Some(reading.kv_usage),
            running: Some(reading.running as u64),
            waiting: Some(reading.waiting as u64),
            preemptions: reading.preemptions,
            at,
        };
        self.engine.observe(at, Signal::Engine(engine));
    }

    fn tick(&mut self, now: Duration) {
        let ended = self.engine.tick(Tick::from_duration(now));
        self.ended.extend(ended);
    }

    fn describe(&mut self, now: Duration) -> String {
        let status = self.engine.snapshot(Tick::from_duration(now));
        let tiers = status.tiers.iter().map(|tier| {
            let number = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.0}"));
            format!(
                "{} {} {}/{}",
                tier.tier.as_str(),
                tier.state.as_str(),
                number(tier.value),
                number(tier.threshold)
            )
        });
        let concurrency = status.concurrency.map_or(String::new(), |c| format!(" limit {:.0}", c.limit));
        format!("pressure {:.2}, {}{concurrency}", status.pressure, tiers.collect::<Vec<_>>().join(", "))
    }
}
