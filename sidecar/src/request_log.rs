//! Lines about single requests and connections, one each, bounded: a flood of refused requests must not become a flood
//! of log lines.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};

use http::HeaderMap;
use tidegate_core::{Answer, Cause, Refusal, Rule, Tick};
use tidegate_policy::PriorityClass;
use tidegate_policy::report::{BreakerState, BreakerStatus, StageStatus};

use crate::backoff::random;
use crate::metrics::{ProtocolRefusal, Verdict};
use crate::route::Route;
use crate::shared::Shared;
use crate::trace::{Context, is_in};

/// Lines of one kind in a second, of all threads together.
const BUDGET: u64 = 100;

/// Longest value of a client's header in a line.
const LONGEST: usize = 128;

static DECISIONS: Budget = Budget::new();
static ADMISSIONS: Budget = Budget::new();
static EXHAUSTED: Budget = Budget::new();
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

/// What the lines say beside the request itself.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Name of the service that is guarded.
    pub service: String,
    /// Share of the admitted requests that get a line.
    pub admitted: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { service: "tidegate-sidecar".to_owned(), admitted: 0.0 }
    }
}

/// A request, as far as its line needs it. Neither its path nor its body is told, nor any header but the two that
/// name it.
#[derive(Clone, Copy)]
pub(crate) struct Told<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) at: Tick,
    pub(crate) route: Route,
    pub(crate) client: IpAddr,
    pub(crate) headers: &'a HeaderMap,
}

/// A request was refused, went to a fallback or would have been refused. `fallback`: what has answered in place of the
/// engine, or `none` where that was tried.
pub(crate) fn refused(told: Told<'_>, verdict: Verdict, refusal: &Refusal, fallback: Option<&str>) {
    if !tracing::enabled!(target: "tidegate::decision", tracing::Level::INFO) {
        return;
    }
    let Some(dropped) = DECISIONS.take(told.at) else { return };
    let breaker = told.breaker().filter(|_| refusal.cause == Cause::Breaker);
    let limited = verdict == Verdict::Refused && refusal.cause.answer() == Answer::TooManyRequests;
    tracing::info!(
        target: "tidegate::decision",
        event = if limited { "rate_limit_rejected" } else { "decision" },
        service = told.shared.log().service,
        trace_id = told.trace_id(),
        request_id = text(told.headers, "x-request-id").unwrap_or_default(),
        decision = word(verdict, breaker.as_ref()),
        verdict = verdict.as_str(),
        cause = refusal.cause.as_str(),
        reason = reason(refusal, breaker),
        fallback,
        policy = refusal.rule.policy,
        rule = refusal.rule.name,
        observed = refusal.observed,
        limit = refusal.limit,
        current_usage = limited.then_some(refusal.observed),
        limit_quota = limited.then_some(refusal.limit),
        retry_after_ms = u64::try_from(refusal.retry_after.as_millis()).unwrap_or(u64::MAX),
        priority = class_name(refusal.class),
        route = told.route.as_str(),
        client_ip = %told.client.to_canonical(),
        dropped,
    );
}

/// The engine has failed a request, and something else has answered it.
pub(crate) fn replaced(told: Told<'_>, cause: &str, fallback: &str) {
    if !tracing::enabled!(target: "tidegate::decision", tracing::Level::INFO) {
        return;
    }
    let Some(dropped) = DECISIONS.take(told.at) else { return };
    tracing::info!(
        target: "tidegate::decision",
        event = "decision",
        service = told.shared.log().service,
        trace_id = told.trace_id(),
        request_id = text(told.headers, "x-request-id").unwrap_or_default(),
        decision = word(Verdict::Admitted, told.breaker().as_ref()),
        verdict = Verdict::Fallback.as_str(),
        cause,
        fallback,
        route = told.route.as_str(),
        client_ip = %told.client.to_canonical(),
        dropped,
    );
}

/// A request was admitted. Only a sample of them is told: of requests in a trace the same in every pod.
pub(crate) fn admitted(told: Told<'_>, class: PriorityClass) {
    let ratio = told.shared.log().admitted;
    if ratio <= 0.0 || !tracing::enabled!(target: "tidegate::decision", tracing::Level::INFO) {
        return;
    }
    let number = Context::of(told.headers).map_or_else(random, |context| context.trace.number());
    if !is_in(ratio, number) {
        return;
    }
    let Some(dropped) = ADMISSIONS.take(told.at) else { return };
    let breaker = told.breaker();
    tracing::info!(
        target: "tidegate::decision",
        event = "decision",
        service = told.shared.log().service,
        trace_id = told.trace_id(),
        request_id = text(told.headers, "x-request-id").unwrap_or_default(),
        decision = word(Verdict::Admitted, breaker.as_ref()),
        verdict = Verdict::Admitted.as_str(),
        priority = class_name(class),
        route = told.route.as_str(),
        client_ip = %told.client.to_canonical(),
        dropped,
    );
}

impl Told<'_> {
    /// State of the breaker at this instant.
    fn breaker(&self) -> Option<BreakerStatus> {
        self.shared.engine.load().breaker(self.at)
    }

    fn trace_id(&self) -> String {
        Context::of(self.headers).map(|context| context.trace.to_string()).unwrap_or_default()
    }
}

/// What the breaker made of it, and `REFUSED` where another rule has refused.
fn word(verdict: Verdict, breaker: Option<&BreakerStatus>) -> &'static str {
    let state = breaker.map_or(BreakerState::Closed, |breaker| breaker.state);
    match verdict {
        Verdict::Admitted | Verdict::Unlimited | Verdict::ShadowRefused => match state {
            BreakerState::HalfOpen => "HALF_OPEN",
            BreakerState::Closed | BreakerState::Open => "ALLOWED",
        },
        Verdict::Refused | Verdict::Fallback => match (breaker, state) {
            (None, _) => "REFUSED",
            (Some(_), BreakerState::HalfOpen) => "HALF_OPEN",
            (Some(_), BreakerState::Closed | BreakerState::Open) => "OPEN",
        },
    }
}

/// Of a breaker why it opened, such as `5xx_rate_85%_in_30s`; of another rule what was over what.
fn reason(refusal: &Refusal, breaker: Option<BreakerStatus>) -> String {
    let of_stage = |stage: &StageStatus| {
        let rule = refusal
            .rule
            .name
            .strip_prefix("stages.")
            .and_then(|rule| rule.strip_prefix(stage.stage.as_str()));
        rule.is_some_and(|condition| condition.starts_with('.'))
    };
    breaker
        .and_then(|breaker| match breaker.stages.iter().find(|stage| of_stage(stage)) {
            Some(stage) => stage.last_trigger_reason.clone(),
            None => breaker.last_trigger_reason,
        })
        .unwrap_or_else(|| format!("{}_{}_over_{}", refusal.cause.as_str(), refusal.observed, refusal.limit))
}

const fn class_name(class: PriorityClass) -> &'static str {
    match class {
        PriorityClass::Low => "low",
        PriorityClass::Medium => "medium",
        PriorityClass::High => "high",
    }
}

/// The tokens of a limit have run out in the middle of an answer.
pub(crate) fn exhausted(now: Tick, rule: &Rule, what: &str) {
    if let Some(dropped) = EXHAUSTED.take(now) {
        tracing::info!(
            target: "tidegate::decision",
            decision = "ended",
            policy = rule.policy,
            rule = rule.name,
            dropped,
            "the tokens of a limit ran out under a request: {what}"
        );
    }
}

/// The engine gave no answer to a request.
pub(crate) fn engine_failed(now: Tick, engine: SocketAddr, failure: &dyn std::error::Error) {
    if let Some(dropped) = FAILURES.take(now) {
        tracing::warn!(%engine, dropped, "{failure}");
    }
}

/// A server that should answer in place of the engine did not.
pub(crate) fn fallback_failed(now: Tick, server: &str, cause: &str) {
    if let Some(dropped) = FAILURES.take(now) {
        tracing::warn!(server, cause, dropped, "a fallback failed");
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
    fn a_decision_is_told_in_the_words_of_the_breaker() {
        let breaker = |state| {
            let status = serde_json::json!({"policy": "a/b", "mode": "Enforce", "state": state,
                "consecutiveFailures": 0, "transitions": []});
            serde_json::from_value::<BreakerStatus>(status).unwrap()
        };
        let (open, half) = (breaker("Open"), breaker("HalfOpen"));
        for (verdict, breaker, expected) in [
            (Verdict::Admitted, None, "ALLOWED"),
            (Verdict::Admitted, Some(&half), "HALF_OPEN"),
            (Verdict::Refused, Some(&open), "OPEN"),
            (Verdict::Fallback, Some(&open), "OPEN"),
            (Verdict::Refused, Some(&half), "HALF_OPEN"),
            (Verdict::Refused, None, "REFUSED"),
            (Verdict::ShadowRefused, Some(&open), "ALLOWED"),
        ] {
            assert_eq!(word(verdict, breaker), expected, "{verdict:?}");
        }
    }
}
