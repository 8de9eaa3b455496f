//! What the engine answers. A decision explains itself; it is never a bare yes or no.

use std::sync::Arc;
use std::time::Duration;

use tidegate_policy::PriorityClass;
use tidegate_policy::report::TierName;

use crate::{Ticket, Waiting};

/// The verdict on one request.
#[derive(Debug)]
pub enum Decision {
    /// It goes to the engine.
    Admit(Admission),
    /// It is answered with the refusal.
    Refuse(Refusal),
    /// The breaker is open and its policy has a fallback: the request goes there, without a ticket. When that fails
    /// too, the refusal is the answer.
    Fallback(Refusal),
    /// It waits for a place in flight. Somebody's `complete`, `leave` or `tick` returns its place when that is over.
    Queue(Waiting),
}

/// Leave to pass.
#[derive(Debug)]
pub struct Admission {
    /// To be handed back with `complete`, or with `cancel` if it never reaches the engine.
    pub ticket: Ticket,
    /// The class it was judged by.
    pub class: PriorityClass,
    /// How long to wait before it goes to the engine: a rule paces, and others have their turn first. Zero otherwise.
    pub wait: Duration,
    /// What would have refused it if its policy were not in `Shadow` mode.
    pub shadow: Option<Refusal>,
}

impl Admission {
    /// Of a request that holds nothing yet.
    #[inline]
    pub(crate) fn of(class: PriorityClass) -> Self {
        Self { ticket: Ticket::default(), class, wait: Duration::ZERO, shadow: None }
    }
}

/// How long the inference engine may take for an answer. What is none may take as long as it likes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TimeLimits {
    /// Until a connection stands.
    pub connect: Option<Duration>,
    /// Until the head, and of a stream also the first byte of the body.
    pub first_byte: Option<Duration>,
    /// Between two pieces of the body.
    pub between_chunks: Option<Duration>,
    /// Until the end of an answer that is no stream.
    pub total: Option<Duration>,
    /// Until the end of a stream.
    pub total_of_stream: Option<Duration>,
}

/// Why a request does not pass, and when to come again.
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    /// The kind of rule.
    pub cause: Cause,
    /// The rule itself.
    pub rule: Arc<Rule>,
    /// The class the request was judged by.
    pub class: PriorityClass,
    /// What was seen: the value over the limit, in the unit of the limit.
    pub observed: f64,
    /// The limit it was held against.
    pub limit: f64,
    /// For a keyed limit exactly the first instant at which it would pass if nobody else spends on the key; else
    /// a lower bound, spread so that the refused do not return together. `Duration::MAX`: never, since it costs more
    /// than the limit ever lets pass at once.
    pub retry_after: Duration,
}

/// The name of a rule.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Rule {
    /// The policy it comes from, as `namespace/name`.
    pub policy: String,
    /// Its name there: of a limit its own, else `tiers.qps`, `tiers.gpuMemory`, `tiers.latency`, `priority`,
    /// `concurrency`, `queue`, `trip.errorRatio` and the like of a breaker, or `stages.attention.p99` and the like.
    pub name: String,
}

/// The kind of rule that refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// Low priority while this tier sheds.
    Tier(TierName),
    /// Medium priority over the gradient that the pressure leaves.
    Pressure,
    /// A limit by key.
    Limit,
    /// The breaker is open, or half-open with all probes out.
    Breaker,
    /// As many requests are in flight as this class may bring there.
    Concurrency,
    /// As many requests wait as may, or one had to make room for others.
    QueueFull,
    /// It waited for as long as it may.
    QueueTimeout,
}

/// Which kind of answer a cause gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Answer {
    /// Refused for who you are: 429.
    TooManyRequests,
    /// No class is served: 503.
    Unavailable,
}

impl Cause {
    /// As in headers, logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tier(TierName::Qps) => "qps-tier",
            Self::Tier(TierName::GpuMemory) => "gpu-memory-tier",
            Self::Tier(TierName::Latency) => "latency-tier",
            Self::Pressure => "pressure",
            Self::Limit => "limit",
            Self::Breaker => "breaker-open",
            Self::Concurrency => "concurrency",
            Self::QueueFull => "queue-full",
            Self::QueueTimeout => "queue-timeout",
        }
    }

    /// 429 or 503.
    pub const fn answer(self) -> Answer {
        match self {
            Self::Breaker | Self::QueueFull | Self::QueueTimeout => Answer::Unavailable,
            Self::Tier(_) | Self::Pressure | Self::Limit | Self::Concurrency => Answer::TooManyRequests,
        }
    }
}
