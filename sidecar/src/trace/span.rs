//! The span of one request.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use http::HeaderMap;
use tidegate_core::{Refusal, Tick};
use tidegate_policy::PriorityClass;

use super::Tracer;
use super::context::{self, Context, SpanId};
use super::wire::{self, KeyValue};
use crate::metrics::{End, Verdict};
use crate::route::Route;

/// Longest path in a span, in bytes.
const LONGEST_PATH: usize = 256;

/// A request under way. It ends when it is dropped.
#[derive(Debug)]
pub struct Span {
    tracer: Arc<Tracer>,
    began: Tick,
    /// Boxed, since most requests have no span and all have room for one.
    record: Option<Box<Record>>,
}

/// What is known of a request that has ended.
#[derive(Debug)]
pub struct Record {
    context: Context,
    parent: Option<SpanId>,
    state: String,
    started: u64,
    ended: u64,
    route: Route,
    method: &'static str,
    path: String,
    client: IpAddr,
    model: Option<String>,
    status: Option<u16>,
    error: Option<&'static str>,
    verdict: Option<Verdict>,
    class: Option<PriorityClass>,
    refusal: Option<Refusal>,
    events: Vec<(&'static str, u64)>,
    pieces: u64,
}

impl Span {
    /// The span of a request, if it is sampled. Its `traceparent` then names this span as the caller of whatever
    /// gets the request.
    pub fn begin(
        tracer: &Arc<Tracer>,
        headers: &mut HeaderMap,
        route: Route,
        method: &str,
        path: &str,
        client: IpAddr,
    ) -> Option<Self> {
        let (context, parent) = tracer.sample(headers)?;
        // A state without its parent means nothing.
        let state = if parent.is_some() { context::state(headers) } else { String::new() };
        headers.insert(context::TRACEPARENT, context.header()?);
        if parent.is_none() {
            headers.remove(context::TRACESTATE);
        }
        let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let record = Record {
            context,
            parent,
            state,
            started: u64::try_from(started.as_nanos()).unwrap_or(u64::MAX),
            ended: 0,
            route,
            method: known(method),
            path: shortened(path),
            client: client.to_canonical(),
            model: None,
            status: None,
            error: None,
            verdict: None,
            class: None,
            refusal: None,
            events: Vec::new(),
            pieces: 0,
        };
        let began = tracer.clock.now();
        Some(Self { tracer: Arc::clone(tracer), began, record: Some(Box::new(record)) })
    }

    /// Something happened now.
    pub fn event(&mut self, name: &'static str) {
        let at = self.now();
        self.with(|record| record.events.push((name, at)));
    }

    /// It was let in.
    pub fn admitted(&mut self, class: PriorityClass, model: Option<&str>) {
        self.with(|record| {
            record.verdict = Some(Verdict::Admitted);
            record.class = Some(class);
            record.model = model.map(str::to_owned);
        });
    }

    /// A rule refused it, or would have.
    pub fn refused(&mut self, verdict: Verdict, refusal: &Refusal) {
        self.with(|record| {
            record.verdict = Some(verdict);
            record.class = Some(refusal.class);
            record.refusal = Some(refusal.clone());
        });
    }

    /// Whom it comes from, as far as the proxies before it are believed.
    pub fn client(&mut self, client: IpAddr) {
        self.with(|record| record.client = client.to_canonical());
    }

    /// The client is answered with this status.
    pub fn status(&mut self, status: u16) {
        self.with(|record| record.status = Some(status));
    }

    /// How its answer ended, after so many pieces of a stream.
    pub fn ended(&mut self, end: End, pieces: u64) {
        self.with(|record| {
            record.error = end.error();
            record.pieces = pieces;
        });
    }

    fn with(&mut self, change: impl FnOnce(&mut Record)) {
        if let Some(record) = &mut self.record {
            change(record);
        }
    }

    fn now(&self) -> u64 {
        let elapsed = self.tracer.clock.now().since(self.began);
        let started = self.record.as_ref().map_or(0, |record| record.started);
        started.saturating_add(u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX))
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        let ended = self.now();
        if let Some(mut record) = self.record.take() {
            record.ended = ended;
            self.tracer.take(*record);
        }
    }
}

impl Record {
    /// As in OTLP, by the stable conventions for HTTP and those for generative AI.
    pub(super) fn into_wire(self) -> wire::Span {
        let failed = self.error.is_some() || self.status.is_some_and(|status| status >= 500);
        wire::Span {
            trace_id: self.context.trace.0.to_vec(),
            span_id: self.context.span.0.to_vec(),
            parent_span_id: self.parent.map_or_else(Vec::new, |parent| parent.0.to_vec()),
            name: match self.route {
                Route::Other => self.method.to_owned(),
                route => format!("{} {}", self.method, route.as_str()),
            },
            kind: wire::SERVER,
            start_time_unix_nano: self.started,
            end_time_unix_nano: self.ended,
            attributes: self.attributes(),
            events: self
                .events
                .iter()
                .map(|(name, at)| wire::Event { time_unix_nano: *at, name: (*name).to_owned() })
                .collect(),
            status: failed.then_some(wire::Status { code: wire::ERROR }),
            // Sampled; and the parent, where there is one, is another process's.
            flags: if self.parent.is_some() { 0x301 } else { 0x101 },
            trace_state: self.state,
        }
    }

    fn attributes(&self) -> Vec<KeyValue> {
        let mut all = vec![
            KeyValue::new("http.request.method", self.method),
            KeyValue::new("url.path", self.path.as_str()),
            KeyValue::new("url.scheme", "http"),
            KeyValue::new("client.address", self.client.to_string()),
        ];
        if self.route != Route::Other {
            all.push(KeyValue::new("http.route", self.route.as_str()));
        }
        if let Some(operation) = self.route.operation() {
            all.push(KeyValue::new("gen_ai.operation.name", operation.name()));
            all.push(KeyValue::new("gen_ai.provider.name", operation.provider()));
        }
        all.extend(self.model.as_deref().map(|model| KeyValue::new("gen_ai.request.model", model)));
        all.extend(self.status.map(|status| KeyValue::new("http.response.status_code", u64::from(status))));
        all.extend(self.error.map(|error| KeyValue::new("error.type", error)));
        if self.pieces > 0 {
            all.push(KeyValue::new("tidegate.stream.events", self.pieces));
        }
        self.add_decision(&mut all);
        all
    }

    fn add_decision(&self, all: &mut Vec<KeyValue>) {
        all.extend(self.verdict.map(|verdict| KeyValue::new("tidegate.decision", verdict.as_str())));
        all.extend(self.class.map(|class| {
            let class = ["low", "medium", "high"][class as usize];
            KeyValue::new("tidegate.priority", class)
        }));
        if let Some(refusal) = &self.refusal {
            all.push(KeyValue::new("tidegate.reason", refusal.cause.as_str()));
            all.push(KeyValue::new("tidegate.policy", refusal.rule.policy.as_str()));
            all.push(KeyValue::new("tidegate.rule", refusal.rule.name.as_str()));
            all.push(KeyValue::new("tidegate.observed", refusal.observed));
            all.push(KeyValue::new("tidegate.limit", refusal.limit));
        }
    }
}

/// As the conventions ask for: what is no method of HTTP's own is `_OTHER`.
fn known(method: &str) -> &'static str {
    const METHODS: [&str; 9] =
        ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "CONNECT", "TRACE"];
    METHODS.into_iter().find(|known| *known == method).unwrap_or("_OTHER")
}

fn shortened(path: &str) -> String {
    let mut end = path.len().min(LONGEST_PATH);
    while !path.is_char_boundary(end) {
        end -= 1;
    }
    path[..end].to_owned()
}
