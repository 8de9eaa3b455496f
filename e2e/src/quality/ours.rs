//! Tidegate's own decision engine, driven as the sidecar drives it.

mod document;

use std::{collections::HashMap, net::IpAddr, time::Duration};

use tidegate_cli::engine_model::Reading;
use tidegate_core::{
    Completion, Decision, Engine, EngineReading, Facts, GpuMemoryReading, HeadOutcome, Headers, NoClaims,
    Signal, Tick, Ticket, Tokens,
};
use tidegate_policy::{PolicyDocument, PriorityClass};

use super::policy::{Arrival, Axis, End, Finished, Kind, Policy, Verdict};

const AXES: &[Axis] = &[
    Axis { name: "longest TTFT in seconds", low: 0.5, high: 8.0 },
    Axis { name: "recovery hold in seconds", low: 1.0, high: 30.0 },
    Axis { name: "latency period in seconds", low: 1.0, high: 10.0 },
];
const DEFAULT: &[f64] = &[4.0, 10.0, 5.0];

/// With every tier.
pub const WITH_LEARNED_QPS: Kind = Kind {
    name: "Tidegate",
    source: "tidegate-core",
    axes: AXES,
    default: DEFAULT,
    build: |values, seed| build(values, seed, true),
};

/// Without the learned ceiling of requests per second.
pub const WITHOUT_LEARNED_QPS: Kind = Kind {
    name: "Tidegate without learned QPS",
    source: "tidegate-core",
    axes: AXES,
    default: DEFAULT,
    build: |values, seed| build(values, seed, false),
};

/// All variants.
pub const OURS: [&Kind; 2] = [&WITH_LEARNED_QPS, &WITHOUT_LEARNED_QPS];

fn build(values: &[f64], seed: u64, learned_qps: bool) -> Box<dyn Policy> {
    let json = document::json(values, learned_qps);
    // A document that does not validate protects nothing, and the table shows it.
    let document = PolicyDocument::from_json(json.to_string().as_bytes()).unwrap_or_default();
    Box::new(Tidegate { engine: Engine::new(&document, seed, Tick::from_nanos(0)), flights: HashMap::new() })
}

/// The decision engine with the tickets that are out.
#[derive(Debug)]
struct Tidegate {
    engine: Engine,
    flights: HashMap<u64, Flight>,
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

impl Policy for Tidegate {
    fn arrive(&mut self, now: Duration, arrival: &Arrival) -> Verdict {
        let fields = Fields { tenant: arrival.tenant.to_string(), priority: name(arrival.class) };
        let client = IpAddr::from([10, 0, 0, 1]);
        let facts = Facts {
            method: "POST",
            path: "/v1/chat/completions",
            client,
            headers: &fields,
            claims: &NoClaims,
            tokens: Tokens::default(),
        };
        match self.engine.admit(Tick::from_duration(now), &facts) {
            Decision::Admit(admission) => {
                let flight = Flight { ticket: admission.ticket, first_byte: None };
                self.flights.insert(arrival.id, flight);
                Verdict::Admit
            }
            Decision::Refuse(refusal) | Decision::Fallback(_, refusal) => {
                Verdict::Refuse { retry_after: Some(refusal.retry_after) }
            }
            // The policies compared here have no queue: a client that would have to wait tries again.
            Decision::Queue(waiting) => {
                self.engine.leave(Tick::from_duration(now), waiting);
                Verdict::Refuse { retry_after: None }
            }
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
        self.engine.complete(now, flight.ticket, &completion);
    }

    fn observe(&mut self, now: Duration, reading: &Reading) {
        let at = Tick::from_duration(now);
        let gpu = GpuMemoryReading { used: reading.gpu_used, total: reading.gpu_total, at };
        self.engine.observe(at, Signal::GpuMemory(gpu));
        let engine = EngineReading {
            kv_cache_usage: Some(reading.kv_usage),
            running: Some(reading.running as u64),
            waiting: Some(reading.waiting as u64),
            preemptions: Some(reading.preemptions),
            at,
        };
        self.engine.observe(at, Signal::Engine(engine));
    }

    fn tick(&mut self, now: Duration) {
        self.engine.tick(Tick::from_duration(now));
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
        format!("pressure {:.2}, {}", status.pressure, tiers.collect::<Vec<_>>().join(", "))
    }
}
