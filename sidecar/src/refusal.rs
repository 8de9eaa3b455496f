//! The one place that renders what a client gets instead of the engine's answer.
//!
//! Three kinds are kept apart: 429 refuses this client or its class, 503 means that no class is served, 502 and 504
//! that the engine failed. The body is OpenAI's error object, so that clients of inference engines understand it, or a
//! problem of RFC 9457 for those who ask for one.

mod accept;
pub mod grpc;
mod problem;
pub mod stream;

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, Response, StatusCode};
use serde::Serialize;
use tidegate_core::{Answer, Cause, Refusal, Rule};
use tidegate_policy::PriorityClass;
use tidegate_policy::report::TierName;

/// Why a client did not get the engine's answer, or got that of a fallback: `<cause>; policy=<ns/name>;
/// rule=<name>`.
pub const REASON: HeaderName = HeaderName::from_static("x-tidegate-reason");

/// The wait of `Retry-After` to the millisecond.
const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");

/// Whether a client may try again by itself; the official clients of OpenAI obey it.
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// When to come again where the caps are reached: requests end all the time.
const OVERLOADED_MILLIS: u64 = 1000;

/// A longer wait is pointless within one call: the official clients of OpenAI do not wait for longer than a minute, but
/// come back after a few seconds, in vain. So they are told not to.
const LONGEST_WAIT_MILLIS: u64 = 60_000;

/// How a client wants to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// By an HTTP status and OpenAI's error object.
    OpenAi,
    /// By a gRPC status.
    Grpc,
}

/// What an answer of ours looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// OpenAI's error object.
    OpenAi,
    /// `application/problem+json` (RFC 9457).
    Problem,
    /// A gRPC status.
    Grpc,
}

impl Form {
    /// What the client asks for. Looked up only where something goes wrong.
    pub fn of(dialect: Dialect, headers: &HeaderMap) -> Self {
        match dialect {
            Dialect::Grpc => Self::Grpc,
            Dialect::OpenAi if accept::wants_problem(headers) => Self::Problem,
            Dialect::OpenAi => Self::OpenAi,
        }
    }
}

/// What an answer of ours says.
#[derive(Debug, Clone, Copy)]
struct Said<'a> {
    status: StatusCode,
    message: &'a str,
    /// OpenAI's `type`.
    kind: &'a str,
    code: &'a str,
    /// The rule that refused.
    refusal: Option<&'a Refusal>,
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
    /// The request breaks the grammar of HTTP/1.
    Malformed,
    /// The request's head has too many bytes or fields.
    HeadTooLarge,
    /// The request's target is too long.
    TargetTooLong,
    /// `CONNECT` is for proxies that choose their destination.
    Connect,
    /// There are as many requests or connections as there may be, or as the memory allows.
    Overloaded,
    /// The client is not known, and a policy lets nobody else pass.
    Unauthenticated,
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
pub fn refused(refusal: &Refusal, form: Form) -> Response<Bytes> {
    let (status, kind) = match refusal.cause.answer() {
        Answer::TooManyRequests => (StatusCode::TOO_MANY_REQUESTS, "rate_limit_exceeded"),
        Answer::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "service_unavailable"),
    };
    let (message, code) = (message(refusal), refusal.cause.as_str());
    let mut response = render(form, Said { status, message: &message, kind, code, refusal: Some(refusal) });
    response.headers_mut().insert(REASON, reason(refusal, None));
    let wait = (refusal.retry_after != Duration::MAX).then(|| millis_rounded_up(refusal.retry_after));
    retry_after(response.headers_mut(), form, wait);
    response
}

/// When to come again; None: never.
fn retry_after(headers: &mut HeaderMap, form: Form, millis: Option<u64>) {
    if let Some(millis) = millis {
        headers.insert(RETRY_AFTER, HeaderValue::from(millis.div_ceil(1000).max(1)));
        headers.insert(RETRY_AFTER_MS, HeaderValue::from(millis));
    }
    let soon = millis.filter(|millis| *millis <= LONGEST_WAIT_MILLIS);
    if soon.is_none() {
        headers.insert(SHOULD_RETRY, HeaderValue::from_static("false"));
    }
    if form == Form::Grpc {
        headers.insert(grpc::PUSHBACK, grpc::pushback(soon));
    }
}

/// The answer where there is no rule to name.
pub fn trouble(trouble: Trouble, form: Form) -> Response<Bytes> {
    let code = trouble.code();
    let (status, message, kind) = (trouble.status(), trouble.message(), trouble.kind());
    let mut response = render(form, Said { status, message, kind, code, refusal: None });
    response.headers_mut().insert(REASON, HeaderValue::from_static(code));
    if trouble == Trouble::Unauthenticated {
        // RFC 9110, 11.6.1.
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if trouble == Trouble::Overloaded {
        retry_after(response.headers_mut(), form, Some(OVERLOADED_MILLIS));
    }
    response
}

fn render(form: Form, said: Said<'_>) -> Response<Bytes> {
    // Strings and nothing else: there is no value here that JSON cannot carry.
    let (kind, json) = match form {
        Form::Grpc => return grpc::render(said.status, said.message),
        Form::Problem => ("application/problem+json", problem::json(said)),
        Form::OpenAi => {
            let Said { message, kind, code, .. } = said;
            let body = Body { error: ErrorObject { message, r#type: kind, param: None, code } };
            ("application/json", serde_json::to_vec(&body).unwrap_or_default())
        }
    };
    let mut response = Response::new(Bytes::from(json));
    *response.status_mut() = said.status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// The cause and the rule, and why no fallback has answered.
pub fn reason(refusal: &Refusal, no_fallback: Option<&str>) -> HeaderValue {
    because(refusal.cause, &refusal.rule, no_fallback)
}

/// The cause and the rule of an answer that ends before it is whole.
pub fn reason_of(rule: &Rule) -> HeaderValue {
    because(Cause::Limit, rule, None)
}

fn because(cause: Cause, rule: &Rule, no_fallback: Option<&str>) -> HeaderValue {
    let mut text = format!("{}; policy={}; rule={}", cause.as_str(), rule.policy, rule.name);
    if let Some(why) = no_fallback {
        text.push_str("; fallback=");
        text.push_str(why);
    }
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
        Cause::Limit if refusal.retry_after == Duration::MAX => {
            return format!(
                "the request alone is over limit {rule:?}, which lets pass at most {limit:.0} at once: make it smaller, \
                 since it would be refused again"
            );
        }
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
            Self::AmbiguousFraming | Self::BadTarget | Self::BadHost | Self::Malformed => {
                StatusCode::BAD_REQUEST
            }
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::Connect => StatusCode::METHOD_NOT_ALLOWED,
            Self::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
            Self::Unauthenticated => StatusCode::UNAUTHORIZED,
        }
    }

    fn kind(self) -> &'static str {
        match self {
            Self::EngineFailed | Self::EngineTimedOut | Self::Overloaded => "service_unavailable",
            Self::AmbiguousFraming
            | Self::BadTarget
            | Self::BadHost
            | Self::Malformed
            | Self::HeadTooLarge
            | Self::TargetTooLong
            | Self::Connect
            | Self::Unauthenticated => "invalid_request_error",
        }
    }

    /// One word for programs.
    pub fn code(self) -> &'static str {
        match self {
            Self::EngineFailed => "engine-failed",
            Self::EngineTimedOut => "engine-timeout",
            Self::AmbiguousFraming => "ambiguous-framing",
            Self::BadTarget => "bad-target",
            Self::BadHost => "bad-host",
            Self::Malformed => "malformed",
            Self::HeadTooLarge => "head-too-large",
            Self::TargetTooLong => "target-too-long",
            Self::Connect => "connect",
            Self::Overloaded => "overloaded",
            // As OpenAI has it.
            Self::Unauthenticated => "invalid_api_key",
        }
    }

    /// One sentence for clients.
    pub fn message(self) -> &'static str {
        match self {
            Self::EngineFailed => "the inference engine did not answer",
            Self::EngineTimedOut => "the inference engine did not answer in time",
            Self::AmbiguousFraming => {
                "the framing of the request is ambiguous: send either Content-Length or Transfer-Encoding: chunked, once"
            }
            Self::BadTarget => "the request's target is not understood: send a path that begins with /",
            Self::BadHost => "the request has no Host header, several, or one that names no host: send one",
            Self::Malformed => "the request is not HTTP/1: see RFC 9112 for its grammar",
            Self::HeadTooLarge => "the request's head is too large: send fewer and shorter header fields",
            Self::TargetTooLong => "the request's URL is too long: send what it says in the body",
            Self::Connect => "CONNECT is not served here: send the request itself",
            Self::Unauthenticated => "no API key that is known here: send one as Authorization: Bearer",
            Self::Overloaded => "the sidecar has as many requests or connections as it may: retry later",
        }
    }
}

#[cfg(test)]
mod tests;
