//! What every thread of the worker process sees.

use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use tidegate_core::Engine;
use tidegate_policy::PolicyDocument;

use crate::caps::{Caps, Places, Rooms};
use crate::clock::Clock;
use crate::drain::Drain;
use crate::fallback::answers::Answers;
use crate::identity::{ApiKeys, Issuers};
use crate::metrics::{Metrics, ProtocolRefusal};
use crate::pressure::Pressure;
use crate::request_log::Settings;
use crate::tokens::UsualOutput;
use crate::trace::Tracer;
use crate::turns::Turns;

/// Created once; the proxy's threads, the policy sources and the admin server hold it in an `Arc`.
#[derive(Debug)]
pub struct Shared {
    /// The engine in force. Storing another one is a policy change: requests in flight end with the one that
    /// admitted them.
    pub engine: ArcSwap<Engine>,
    /// Whose tokens are believed under the policy in force.
    pub issuers: ArcSwap<Issuers>,
    /// The API keys of clients.
    pub api_keys: ArcSwap<ApiKeys>,
    /// The time.
    pub clock: Clock,
    /// What is counted.
    pub metrics: Metrics,
    /// Whether the pod is going away, and what is still in flight.
    pub drain: Drain,
    /// How much of everything there may be.
    pub caps: Caps,
    /// Connections of clients.
    pub places: Places,
    /// What is held of bodies before their requests are judged.
    pub prefixes: Rooms,
    /// How much memory is left.
    pub pressure: Pressure,
    /// Answers that may be given again.
    pub answers: Answers,
    /// How long answers usually are.
    pub usual_output: UsualOutput,
    /// Who waits in the queue.
    pub turns: Turns,
    /// Begins spans; without it nothing is traced.
    pub tracer: OnceLock<Arc<Tracer>>,
    /// How decisions are told in the log, if not as usual.
    pub log: OnceLock<Settings>,
}

impl Shared {
    /// Starts with `engine`, which must have been made with a tick of `clock`, and believes no token.
    pub fn new(engine: Engine, clock: Clock, caps: Caps) -> Self {
        Self {
            engine: ArcSwap::from_pointee(engine),
            issuers: ArcSwap::from_pointee(Issuers::new(&PolicyDocument::default(), None)),
            api_keys: ArcSwap::default(),
            clock,
            metrics: Metrics::new(caps.client_labels),
            drain: Drain::default(),
            caps,
            places: Places::default(),
            prefixes: Rooms::default(),
            pressure: Pressure::new(&caps),
            answers: Answers::default(),
            usual_output: UsualOutput::default(),
            turns: Turns::default(),
            tracer: OnceLock::new(),
            log: OnceLock::new(),
        }
    }

    /// What forbids one more request in flight.
    pub fn full(&self) -> Option<ProtocolRefusal> {
        let others = self.drain.in_flight();
        if others >= self.caps.requests {
            Some(ProtocolRefusal::TooManyRequests)
        } else if !self.pressure.admits_request(others) {
            Some(ProtocolRefusal::OutOfMemory)
        } else {
            None
        }
    }

    /// How decisions are told in the log.
    pub fn log(&self) -> &Settings {
        self.log.get_or_init(Settings::default)
    }

    /// All metrics in the `OpenMetrics` text format, with the engine's state of this instant.
    pub fn render_metrics(&self) -> String {
        let now = self.clock.now();
        let status = self.engine.load().snapshot(now);
        self.metrics.encode(now, &status, self.drain.in_flight(), self.places.taken())
    }
}
