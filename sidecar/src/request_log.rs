//! Lines about single requests and connections, one each, bounded: a flood of refused requests must not become a flood
//! of log lines.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};

use http::HeaderMap;
use tidegate_core::{Refusal, Tick};
use tidegate_policy::PriorityClass;

use crate::metrics::{ProtocolRefusal, Verdict};
use crate::shared::Shared;

/// Lines of one kind in a second, of all threads together.
const BUDGET: u64 = 100;

/// Longest value of a client's header in a line.
const LONGEST: usize = 128;

static DECISIONS: Budget = Budget::new();
static FAILURES: Budget = Budget::new();
static CONNECTIONS: Budget = Budget::new();

/// Second and lines written in it, packed, so that one atomic step decides; and what was left out since the last
/// line.
struct Budget {
    window: AtomicU64,
    dropped: AtomicU64,
}

impl Budget {
    const fn new() -> Self {
        Self { window: AtomicU64::new(0), dropped: AtomicU64::new(0) }
    }

    /// Leave to write a line, with the number of lines that were left out before it.
    fn take(&self, now: Tick) -> Option<u64> {
        let second = now.as_nanos() / 1_000_000_000;
        let next = |window: u64| match (window >> 32 == second, window & 0xffff_ffff) {
            (true, written) if written >= BUDGET => None,
            (true, _) => Some(window + 1),
            (false, _) => Some((second << 32) | 1),
        };
        if self.window.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok() {
            Some(self.dropped.swap(0, Ordering::Relaxed))
        } else {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            None
        }
    }
}

/// A request was refused, went to a fallback or would have been refused.
pub(crate) fn decision(now: Tick, verdict: Verdict, refusal: &Refusal, client: IpAddr, headers: &HeaderMap) {
    if !tracing::enabled!(target: "tidegate::decision", tracing::Level::INFO) {
        return;
    }
    let Some(dropped) = DECISIONS.take(now) else { return };
    let priority = match refusal.class {
        PriorityClass::Low => "low",
        PriorityClass::Medium => "medium",
        PriorityClass::High => "high",
    };
    tracing::info!(
        target: "tidegate::decision",
        trace_id = trace_id(headers).unwrap_or_default(),
        request_id = text(headers, "x-request-id").unwrap_or_default(),
        decision = verdict.as_str(),
        cause = refusal.cause.as_str(),
        policy = refusal.rule.policy,
        rule = refusal.rule.name,
        observed = refusal.observed,
        limit = refusal.limit,
        retry_after_ms = u64::try_from(refusal.retry_after.as_millis()).unwrap_or(u64::MAX),
        priority,
        client_ip = %client,
        dropped,
    );
}

/// The engine gave no answer to a request.
pub(crate) fn engine_failed(now: Tick, engine: SocketAddr, failure: &dyn std::error::Error) {
    if let Some(dropped) = FAILURES.take(now) {
        tracing::warn!(%engine, dropped, "{failure}");
    }
}

/// A connection was refused for what it speaks. Also counts it.
pub(crate) fn protocol_refused(shared: &Shared, client_ip: IpAddr, refusal: ProtocolRefusal) {
    shared.metrics.traffic.protocol_refused(refusal);
    if let Some(dropped) = CONNECTIONS.take(shared.clock.now()) {
        let client_ip = client_ip.to_canonical();
        tracing::warn!(reason = refusal.as_str(), %client_ip, dropped, "connection refused: {}", refusal.advice());
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().filter(|value| value.len() <= LONGEST)
}

/// The trace id of a W3C `traceparent`.
fn trace_id(headers: &HeaderMap) -> Option<&str> {
    let mut parts = text(headers, "traceparent")?.split('-').skip(1);
    parts.next().filter(|id| id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_so_many_lines_and_the_next_says_how_many_were_left_out() {
        let budget = Budget::new();
        let written = (0..BUDGET + 7).filter(|_| budget.take(Tick::from_nanos(5)).is_some()).count();
        assert_eq!(written as u64, BUDGET);
        assert_eq!(budget.take(Tick::from_nanos(1_000_000_001)), Some(7));
        assert_eq!(budget.take(Tick::from_nanos(1_000_000_002)), Some(0));
    }

    #[test]
    fn the_trace_id_is_that_of_traceparent() {
        let mut headers = HeaderMap::new();
        assert_eq!(trace_id(&headers), None);
        let id = "4bf92f3577b34da6a3ce929d0e0e4736";
        headers.insert("traceparent", format!("00-{id}-00f067aa0ba902b7-01").parse().unwrap());
        assert_eq!(trace_id(&headers), Some(id));
        headers.insert("traceparent", "00-short-00f067aa0ba902b7-01".parse().unwrap());
        assert_eq!(trace_id(&headers), None);
    }
}
