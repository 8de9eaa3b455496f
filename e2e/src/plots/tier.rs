//! One tier of the decision core in virtual time.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tidegate_core::{
    Completion, Decision, Engine, Facts, GpuMemoryReading, HeadOutcome, Headers, NoClaims, Signal, Tick,
    Ticket, Tokens,
};
use tidegate_policy::PolicyDocument;
use tidegate_policy::report::{TierState, TierStatus};

use super::scenario::Scenario;

const GIB: f64 = (1u64 << 30) as f64;
/// Requests per second at the usual load.
const RATE: f64 = 40.0;
/// Requests per second of the latency tier's plots, where their number does not matter.
const LATENCY_RATE: f64 = 30.0;
/// As often as a sidecar does.
const TICK: Duration = Duration::from_millis(100);
/// Points of a line.
const POINTS: u64 = 240;

/// Which tier is played.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Qps,
    GpuMemory,
    Latency,
}

/// Every tier, in the order of the panels.
pub(super) const KINDS: [Kind; 3] = [Kind::Qps, Kind::GpuMemory, Kind::Latency];

/// What a panel shows.
#[derive(Debug)]
pub(super) struct Panel {
    pub(super) title: &'static str,
    pub(super) points: Vec<Point>,
}

/// The tier at one instant.
#[derive(Debug, Clone, Copy)]
pub(super) struct Point {
    pub(super) minute: f64,
    pub(super) value: Option<f64>,
    pub(super) ceiling: Option<f64>,
    pub(super) phase: Phase,
}

/// What the tier does to low priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Passes,
    Returns,
    Refused,
}

struct NoHeaders;

impl Headers for NoHeaders {
    fn get(&self, _: &str) -> Option<&[u8]> {
        None
    }
}

/// High priority for everybody, so that the plot shows what comes and not what is left of it.
const DOCUMENT: &str = r#"{"apiVersion":"policy.tidegate.dev/v1","revision":"plots",
    "priority":{"from":[],"default":"High","highAllowedFrom":[]},
    "tiers":{"policy":"docs/tiers","mode":"Enforce",TIER,
        "recovery":{"belowRatio":0.9,"holdMillis":10000,"rampMillis":5000}}}"#;

impl Kind {
    const fn title(self) -> &'static str {
        match self {
            Self::Qps => "QPS tier, learned ceiling: requests/s",
            Self::GpuMemory => "GPU-memory tier, learned plateau: GiB of 80",
            Self::Latency => "Latency tier, learned ceiling: P99 of the time to first token, ms",
        }
    }

    /// The defaults of the field, in the document's words.
    const fn tier(self) -> &'static str {
        match self {
            Self::Qps => {
                r#""qps":{"sampleIntervalMillis":1000,"windowMillis":300000,"learned":{"sigma":2,"factor":1.5,
                "floor":10,"minimumSamples":60,"minimumRequests":10,"growthPerHour":0.5}}"#
            }
            Self::GpuMemory => {
                r#""gpuMemory":{"maxUtilization":0.75,"plateau":{"stableMillis":60000,"growth":0.5},
                "staleAfterMillis":10000,"onStale":"Ignore"}"#
            }
            Self::Latency => {
                r#""latency":{"signal":"TimeToFirstToken","percentile":0.99,"periodMillis":10000,"periods":3,
                "minimumSamples":100,"learned":{"factor":1.8,"minimumPeriods":6}}"#
            }
        }
    }

    const fn unit(self) -> f64 {
        match self {
            Self::Qps | Self::Latency => 1.0,
            Self::GpuMemory => GIB,
        }
    }

    /// Plays a scenario.
    pub(super) fn play(self, scenario: &Scenario) -> Result<Panel> {
        let document = PolicyDocument::from_json(DOCUMENT.replace("TIER", self.tier()).as_bytes())
            .map_err(|errors| anyhow::anyhow!("{errors}"))?;
        let mut play = Play::new(self, scenario, &document);
        let points = play.run()?;
        Ok(Panel { title: self.title(), points })
    }
}

/// An engine under a scenario.
struct Play<'a> {
    kind: Kind,
    scenario: &'a Scenario,
    engine: Engine,
    /// Requests that the hung engine holds.
    hung: Vec<Ticket>,
    /// Requests to come, in parts of one.
    due: f64,
    random: u64,
}

impl<'a> Play<'a> {
    fn new(kind: Kind, scenario: &'a Scenario, document: &PolicyDocument) -> Self {
        let engine = Engine::new(document, 1, Tick::default());
        Self { kind, scenario, engine, hung: Vec::new(), due: 0.0, random: 1 }
    }

    fn run(&mut self) -> Result<Vec<Point>> {
        let ticks = self.scenario.minutes * 600;
        let first = self.scenario.from_minute * 600;
        let every = ((ticks - first) / POINTS).max(1);
        let mut points = Vec::new();
        for n in 1..=ticks {
            let now = Tick::from_duration(TICK * n as u32);
            let minute = n as f64 / 600.0;
            self.step(now, n, minute);
            if n >= first && n.is_multiple_of(every) {
                let status = self.engine.snapshot(now);
                points.push(self.point(minute, status.tiers.first().context("the tier has a status")?));
            }
        }
        Ok(points)
    }

    fn step(&mut self, now: Tick, n: u64, minute: f64) {
        let load = (self.scenario.load)(minute);
        let rate = if self.kind == Kind::Latency { LATENCY_RATE * load.min(1.0) } else { RATE * load };
        // Arrivals in the tenth of a second that is over, with the unevenness of independent ones.
        self.due += rate * TICK.as_secs_f64() * (0.5 + self.random());
        while self.due >= 1.0 {
            self.due -= 1.0;
            self.request(now, minute, load);
        }
        if self.kind == Kind::GpuMemory && n.is_multiple_of(20) {
            let used = (self.memory(minute, load) * GIB) as u64;
            let reading = GpuMemoryReading { used, total: (80.0 * GIB) as u64, at: now };
            self.engine.observe(now, Signal::GpuMemory(reading));
        }
        self.engine.tick(now);
    }

    /// GiB in use: what the engine reserved, and more under more load.
    fn memory(&self, minute: f64, load: f64) -> f64 {
        let loading = self.scenario.restart.filter(|_| self.scenario.is_down(minute));
        match loading {
            Some((from, to)) => 72.0 * ((minute - from) / (to - from)).powi(2),
            None => (72.0 + 2.5 * (load.max(1.0) - 1.0)).min(79.5),
        }
    }

    fn request(&mut self, now: Tick, minute: f64, load: f64) {
        let client = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let facts = Facts {
            method: "POST",
            path: "/",
            client,
            headers: &NoHeaders,
            claims: &NoClaims,
            model: None,
            service_tier: None,
            tokens: Tokens::default(),
        };
        let Decision::Admit(admission) = self.engine.admit(now, &facts) else { return };
        let mut ticket = admission.ticket;
        if self.scenario.is_down(minute) {
            self.hung.push(ticket);
            return;
        }
        for ticket in std::mem::take(&mut self.hung) {
            self.engine.complete(now, ticket, &Completion::default());
        }
        let first_byte = now + Duration::from_secs_f64(self.latency(load));
        self.engine.responded(now, &mut ticket, HeadOutcome::Status(200));
        self.engine.first_byte(first_byte, &mut ticket);
        let completion =
            Completion { first_byte: Some(first_byte), events: 0, whole: true, ..Completion::default() };
        self.engine.complete(first_byte, ticket, &completion);
    }

    /// Seconds to the first token, in proportion to the load.
    fn latency(&mut self, load: f64) -> f64 {
        0.1 * load * (0.5 + self.random())
    }

    /// From 0 to 1, the same in every run.
    fn random(&mut self) -> f64 {
        // Knuth's MMIX generator.
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 11) as f64 / (1u64 << 53) as f64
    }

    fn point(&self, minute: f64, tier: &TierStatus) -> Point {
        let phase = match tier.state {
            TierState::Recovering if !tier.shedding => Phase::Returns,
            _ if tier.shedding => Phase::Refused,
            _ => Phase::Passes,
        };
        let scaled = |value: Option<f64>| value.map(|value| value / self.kind.unit());
        Point { minute, value: scaled(tier.value), ceiling: scaled(tier.threshold), phase }
    }
}
