//! What the engine is told.

use std::net::IpAddr;
use std::time::Duration;

use crate::Tick;

/// Header fields of a request. Names are asked for in lower case.
pub trait Headers {
    /// The first value of the field, if the request has it.
    fn get(&self, name: &str) -> Option<&[u8]>;
}

/// Claims of a token that is believed.
pub trait Claims {
    /// The values of a claim, none when the request has no such claim.
    fn values(&self, claim: &str) -> &[Box<str>];
}

/// The claims of a request without a token that is believed.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoClaims;

impl Claims for NoClaims {
    fn values(&self, _claim: &str) -> &[Box<str>] {
        &[]
    }
}

/// What is known about a request when it arrives.
#[derive(Clone, Copy)]
pub struct Facts<'a> {
    /// Method, in upper case.
    pub method: &'a str,
    /// Path without query.
    pub path: &'a str,
    /// Address of the client's end of the connection.
    pub client: IpAddr,
    /// Header fields.
    pub headers: &'a dyn Headers,
    /// Claims of its token.
    pub claims: &'a dyn Claims,
    /// The model it asks for; nothing where nobody has looked.
    pub model: Option<&'a str>,
    /// The `service_tier` of its body; nothing where nobody has looked.
    pub service_tier: Option<&'a str>,
    /// What it is estimated to use; nothing where nobody has looked.
    pub tokens: Tokens,
}

/// Tokens of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tokens {
    /// Of the prompt, those that the engine has to compute.
    pub input: u32,
    /// Of the prompt, those that the engine has in its cache.
    pub cached: u32,
    /// Of the answer.
    pub output: u32,
}

/// How the inference engine answered, known when the head of its response is there or is given up on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadOutcome {
    /// A response head with this status.
    Status(u16),
    /// No response head within the breaker's timeout.
    TimedOut,
    /// The connection was refused, reset or spoke nonsense.
    Failed,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Completion {
    /// When the first byte of the response's body arrived, if one did.
    pub first_byte: Option<Tick>,
    /// Events of a `text/event-stream` response; 0 for any other.
    pub events: u64,
    /// The response arrived whole. False when the client or the engine gave up: its total latency is then not a
    /// sample.
    pub whole: bool,
    /// What it has used, whole or not. None: nobody has counted, and the estimate stands.
    pub tokens: Option<Tokens>,
}

/// A reading from outside of the request path.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Signal {
    /// Memory of the pod's own GPUs.
    GpuMemory(GpuMemoryReading),
    /// What the inference engine says about its own load.
    Engine(EngineReading),
}

/// What is heard of a stage of the inference engine's pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StageReading {
    /// It took so long, once.
    Took(Duration),
    /// It was passed so often since the last reading, and `over` times it took longer than its breaker allows. Also
    /// nothing is something: whoever says it is there.
    Counted {
        /// How often.
        times: u64,
        /// How often of those it took too long.
        over: u64,
    },
    /// It ran out of memory, once.
    OutOfMemory,
}

/// What the inference engine says about its own load. A number that this kind of engine does not tell is absent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EngineReading {
    /// Share of the KV cache in use, 0 to 1.
    pub kv_cache_usage: Option<f64>,
    /// Requests in the running batch.
    pub running: Option<u64>,
    /// Requests that wait for a place in it.
    pub waiting: Option<u64>,
    /// Requests preempted since the engine started.
    pub preemptions: Option<u64>,
    /// When it was read.
    pub at: Tick,
}

/// Memory of the fullest of the pod's GPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GpuMemoryReading {
    /// Bytes in use.
    pub used: u64,
    /// Bytes there are; 0 when the pod has no GPU.
    pub total: u64,
    /// When it was read.
    pub at: Tick,
}
