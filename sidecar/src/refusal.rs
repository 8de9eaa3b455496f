//! The one place that renders what a client gets instead of the engine's answer.
//!
//! Three kinds are kept apart: 429 refuses this client or its class, 503 means that no class is served, 502 and 504
//! that the engine failed. The body is OpenAI's error object, so that clients of inference engines understand it.

pub mod grpc;

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use http::{HeaderMap, Response, StatusCode};
use serde::Serialize;
use tidegate_core::{Answer, Cause, Refusal};
use tidegate_policy::PriorityClass;
use tidegate_policy::report::TierName;

/// Why a client did not get the engine's answer, or got that of a fallback: `<cause>; policy=<ns/name>;
/// rule=<name>`.
pub const REASON: HeaderName = HeaderName::from_static("x-tidegate-reason");

/// The wait of `Retry-After` to the millisecond.
const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");

/// When to come again where the caps are reached: requests end all the time.
const OVERLOADED_MILLIS: u64 = 1000;

/// How a client wants to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// By an HTTP status and OpenAI's error object.
    OpenAi,
    /// By a gRPC status.
    Grpc,
}

/// What goes wrong without a rule having refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// The engine could not be reached, broke off, or does not speak HTTP/1.1.
    EngineFailed,
    /// The head of the engine's answer did not come within the breaker's timeout.
    EngineTimedOut,
    /// The end of the request's body can be found in several ways, or in none that is understood.
    AmbiguousFraming,
    /// The request's target is no path and no URL.
    BadTarget,
    /// The request has no Host, or several.
    BadHost,
    /// `CONNECT` is for proxies that choose their destination.
    Connect,
    /// There are as many requests or connections as there may be.
    Overloaded,
}

#[derive(Serialize)]
struct Body<'a> {
    error: ErrorObject<'a>,
}

#[derive(Serialize)]
struct ErrorObject<'a> {
    message: &'a str,
    r#type: &'a str,
    param: Option<&'a str>,
    code: &'a str,
}

/// The answer to a request that a rule refused.
pub fn refused(refusal: &Refusal, dialect: Dialect) -> Response<Bytes> {
    let (status, kind) = match refusal.cause.answer() {
        Answer::TooManyRequests => (StatusCode::TOO_MANY_REQUESTS, "rate_limit_exceeded"),
        Answer::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "service_unavailable"),
    };
    let mut response = render(dialect, status, &message(refusal), kind, refusal.cause.as_str());
    response.headers_mut().insert(REASON, reason(refusal));
    retry_after(response.headers_mut(), dialect, millis_rounded_up(refusal.retry_after));
    response
}

fn retry_after(headers: &mut HeaderMap, dialect: Dialect, millis: u64) {
    headers.insert(RETRY_AFTER, HeaderValue::from(millis.div_ceil(1000).max(1)));
    headers.insert(RETRY_AFTER_MS, HeaderValue::from(millis));
    if dialect == Dialect::Grpc {
        headers.insert(grpc::PUSHBACK, HeaderValue::from(i32::try_from(millis).unwrap_or(i32::MAX)));
    }
}

/// The answer where there is no rule to name.
pub fn trouble(trouble: Trouble, dialect: Dialect) -> Response<Bytes> {
    let code = trouble.code();
    let mut response = render(dialect, trouble.status(), trouble.message(), trouble.kind(), code);
    response.headers_mut().insert(REASON, HeaderValue::from_static(code));
    if trouble == Trouble::Overloaded {
        retry_after(response.headers_mut(), dialect, OVERLOADED_MILLIS);
    }
    response
}

/// Marks an answer of the breaker's fallback.
pub fn mark_fallback(refusal: &Refusal, headers: &mut HeaderMap) {
    headers.insert(REASON, reason(refusal));
}

fn render(dialect: Dialect, status: StatusCode, message: &str, kind: &str, code: &str) -> Response<Bytes> {
    if dialect == Dialect::Grpc {
        return grpc::render(status, message);
    }
    let body = Body { error: ErrorObject { message, r#type: kind, param: None, code } };
    // Strings and nothing else: there is no value here that JSON cannot carry.
    let json = serde_json::to_vec(&body).unwrap_or_default();
    let mut response = Response::new(Bytes::from(json));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn reason(refusal: &Refusal) -> HeaderValue {
    let text =
        format!("{}; policy={}; rule={}", refusal.cause.as_str(), refusal.rule.policy, refusal.rule.name);
    // Names come from Kubernetes and are plain; those of a policy file can be anything.
    let plain: Vec<u8> = text.bytes().map(|b| if (b' '..0x7f).contains(&b) { b } else { b'?' }).collect();
    HeaderValue::from_bytes(&plain).unwrap_or(HeaderValue::from_static("refused"))
}

/// A value of a tier in its unit, which for memory the limit tells: the ceiling of the KV cache is a share.
fn tier_value(tier: TierName, value: f64, limit: f64) -> String {
    match tier {
        TierName::Qps => format!("{value:.1} requests/s"),
        TierName::GpuMemory if limit <= 1.0 => format!("{:.0} % of the KV cache", value * 100.0),
        TierName::GpuMemory => format!("{value:.0} bytes of GPU memory"),
        TierName::Latency => format!("a latency of {value:.0} ms"),
    }
}

fn message(refusal: &Refusal) -> String {
    let class = match refusal.class {
        PriorityClass::Low => "low",
        PriorityClass::Medium => "medium",
        PriorityClass::High => "high",
    };
    let (observed, limit, rule) = (refusal.observed, refusal.limit, &refusal.rule.name);
    let why = match refusal.cause {
        Cause::Tier(tier) => {
            let (observed, limit) = (tier_value(tier, observed, limit), tier_value(tier, limit, limit));
            let relation = if refusal.observed > refusal.limit { "over" } else { "recovering from" };
            format!("requests of {class} priority are refused: {observed}, {relation} the ceiling of {limit}")
        }
        Cause::Pressure => format!(
            "too many requests of {class} priority under the present load: {observed:.1} over {limit:.1}"
        ),
        Cause::Limit => format!("limit {rule:?} is exceeded: {observed:.0} over {limit:.0}"),
        Cause::Breaker => format!(
            "the circuit breaker of this service is open: {rule} was {observed:.2} against a limit of {limit:.2}"
        ),
        Cause::Concurrency => {
            format!("too many requests of {class} priority are in flight: {observed:.0} over {limit:.0}")
        }
        Cause::QueueFull => format!("the queue is full: {observed:.0} of {limit:.0} requests wait"),
        Cause::QueueTimeout => format!("no place came free: waited {observed:.0} ms of {limit:.0} ms"),
    };
    format!("{why}; retry after {} ms", millis_rounded_up(refusal.retry_after))
}

fn millis_rounded_up(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

impl Trouble {
    fn status(self) -> StatusCode {
        match self {
            Self::EngineFailed => StatusCode::BAD_GATEWAY,
            Self::EngineTimedOut => StatusCode::GATEWAY_TIMEOUT,
            Self::AmbiguousFraming | Self::BadTarget | Self::BadHost => StatusCode::BAD_REQUEST,
            Self::Connect => StatusCode::METHOD_NOT_ALLOWED,
            Self::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn kind(self) -> &'static str {
        match self {
            Self::EngineFailed | Self::EngineTimedOut | Self::Overloaded => "service_unavailable",
            Self::AmbiguousFraming | Self::BadTarget | Self::BadHost | Self::Connect => {
                "invalid_request_error"
            }
        }
    }

    fn code(self) -> &'static str {
        match self {
            Self::EngineFailed => "engine-failed",
            Self::EngineTimedOut => "engine-timeout",
            Self::AmbiguousFraming => "ambiguous-framing",
            Self::BadTarget => "bad-target",
            Self::BadHost => "bad-host",
            Self::Connect => "connect",
            Self::Overloaded => "overloaded",
        }
    }

    fn message(self) -> &'static str {
        match self {
            Self::EngineFailed => "the inference engine did not answer",
            Self::EngineTimedOut => "the inference engine did not answer in time",
            Self::AmbiguousFraming => {
                "the framing of the request is ambiguous: send either Content-Length or Transfer-Encoding: chunked, once"
            }
            Self::BadTarget => "the request's target is not understood: send a path that begins with /",
            Self::BadHost => "the request has no Host header or several: send one",
            Self::Connect => "CONNECT is not served here: send the request itself",
            Self::Overloaded => "the sidecar has as many requests or connections as it may: retry later",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tidegate_core::Rule;

    use super::*;

    fn refusal(cause: Cause, retry_after: Duration) -> Refusal {
        Refusal {
            cause,
            rule: Arc::new(Rule { policy: "shop/llama".into(), name: "per-user\u{e9}".into() }),
            class: PriorityClass::Low,
            observed: 412.0,
            limit: 400.0,
            retry_after,
        }
    }

    #[test]
    fn retry_after_is_whole_seconds_rounded_up_and_never_zero() {
        for (wait, seconds, millis) in [(0, "1", "0"), (1_000_000, "1", "1"), (1_000_000_001, "2", "1001")] {
            let response = refused(&refusal(Cause::Limit, Duration::from_nanos(wait)), Dialect::OpenAi);
            assert_eq!(response.headers()["retry-after"], seconds);
            assert_eq!(response.headers()["retry-after-ms"], millis);
        }
    }

    #[test]
    fn a_refusal_is_an_openai_error_that_names_its_rule() {
        let response = refused(&refusal(Cause::Limit, Duration::from_millis(1500)), Dialect::OpenAi);
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()["x-tidegate-reason"], "limit; policy=shop/llama; rule=per-user??");
        let body: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
        assert_eq!(body["error"]["type"], "rate_limit_exceeded");
        assert_eq!(body["error"]["code"], "limit");
        assert!(body["error"]["param"].is_null());
        assert!(body["error"]["message"].as_str().unwrap().contains("412 over 400"));
    }

    #[test]
    fn an_open_breaker_is_503_and_a_failed_engine_502_or_504() {
        let open = refused(&refusal(Cause::Breaker, Duration::from_secs(3)), Dialect::OpenAi);
        assert_eq!(open.status(), 503);
        let body: serde_json::Value = serde_json::from_slice(open.body()).unwrap();
        assert_eq!(body["error"]["type"], "service_unavailable");
        assert_eq!(body["error"]["code"], "breaker-open");
        assert_eq!(trouble(Trouble::EngineFailed, Dialect::OpenAi).status(), 502);
        assert_eq!(trouble(Trouble::EngineTimedOut, Dialect::OpenAi).status(), 504);
    }
}
