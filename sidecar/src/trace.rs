//! OpenTelemetry traces: a server span for each request that its caller samples, or that is sampled here, over OTLP.
//!
//! Off until an endpoint is named; then a request that is not sampled costs a look at its `traceparent`. Spans go
//! through a bounded queue to the control thread: a collector that is slow or away costs spans, which are counted, and
//! no request waits for it.

mod context;
mod exporter;
mod span;
mod target;
mod wire;

use std::sync::Arc;

use http::HeaderMap;
use tokio::sync::mpsc;

pub use context::{Context, SpanId, TraceId};
pub use exporter::export;
pub use span::{Record, Span};
pub use target::Target;

use crate::backoff::random;
use crate::clock::Clock;
use crate::metrics::{SpanOutcome, Traces};

/// Spans that wait to be exported; more are dropped.
const MOST_WAITING: usize = 2048;

/// Begins spans, and takes those that have ended.
#[derive(Debug)]
pub struct Tracer {
    queue: mpsc::Sender<Record>,
    /// Share of the requests without a caller's word that are sampled.
    ratio: f64,
    clock: Clock,
    counts: Traces,
}

impl Tracer {
    /// A tracer, and the spans that it hands over.
    pub fn new(ratio: f64, clock: Clock, counts: Traces) -> (Arc<Self>, mpsc::Receiver<Record>) {
        let (queue, spans) = mpsc::channel(MOST_WAITING);
        (Arc::new(Self { queue, ratio, clock, counts }), spans)
    }

    /// The context of a span for a request with these headers, and its caller's; none when it is not sampled.
    fn sample(&self, headers: &HeaderMap) -> Option<(Context, Option<SpanId>)> {
        let caller = Context::of(headers);
        let sampled = caller.map_or_else(|| is_in(self.ratio, random()), |caller| caller.sampled);
        sampled.then(|| {
            let trace = caller.map_or_else(new_trace, |caller| caller.trace);
            let span = SpanId(nonzero().to_be_bytes());
            (Context { trace, span, sampled }, caller.map(|caller| caller.span))
        })
    }

    fn take(&self, record: Record) {
        if self.queue.try_send(record).is_err() {
            self.counts.count(SpanOutcome::Dropped, 1);
        }
    }
}

/// Whether a number of 64 random bits falls into this share of all.
pub fn is_in(ratio: f64, random: u64) -> bool {
    ((random >> 11) as f64) < ratio * (1_u64 << 53) as f64
}

fn new_trace() -> TraceId {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&random().to_be_bytes());
    bytes[8..].copy_from_slice(&nonzero().to_be_bytes());
    TraceId(bytes)
}

fn nonzero() -> u64 {
    random().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tracer(ratio: f64) -> (Arc<Tracer>, mpsc::Receiver<Record>) {
        Tracer::new(ratio, Clock::new(), Traces::default())
    }

    fn headers(flags: &str) -> HeaderMap {
        let text = format!("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-{flags}");
        HeaderMap::from_iter([(context::TRACEPARENT, text.parse().unwrap())])
    }

    #[test]
    fn the_caller_s_word_holds_and_without_one_the_ratio() {
        let (none, all) = (tracer(0.0).0, tracer(1.0).0);
        assert!(all.sample(&headers("00")).is_none());
        let (context, parent) = none.sample(&headers("01")).unwrap();
        assert_eq!(context.trace.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(parent.unwrap().to_string(), "00f067aa0ba902b7");
        assert_ne!(Some(context.span), parent);
        assert!(none.sample(&HeaderMap::new()).is_none());
        let (first, second) =
            (all.sample(&HeaderMap::new()).unwrap(), all.sample(&HeaderMap::new()).unwrap());
        assert_ne!(first.0.trace, second.0.trace);
        assert_eq!(first.1, None);
    }

    #[test]
    fn a_ratio_is_that_share_of_all_numbers() {
        let sampled = (0..10_000_u64).filter(|i| is_in(0.25, i.wrapping_mul(0x9e37_79b9_7f4a_7c15))).count();
        assert!((2400..2600).contains(&sampled), "{sampled}");
        assert!(is_in(1.0, u64::MAX) && !is_in(0.0, 0));
    }

    #[test]
    fn a_full_queue_drops_spans_and_counts_them() {
        let (tracer, mut spans) = tracer(1.0);
        for _ in 0..MOST_WAITING + 5 {
            let mut headers = HeaderMap::new();
            drop(Span::begin(
                &tracer,
                &mut headers,
                crate::route::Route::Other,
                "GET",
                "/",
                [127, 0, 0, 1].into(),
            ));
        }
        assert_eq!(tracer.counts.get(SpanOutcome::Dropped), 5);
        assert!(spans.try_recv().is_ok());
    }
}
