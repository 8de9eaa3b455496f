//! What clients are told.

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
        let response = refused(&refusal(Cause::Limit, Duration::from_nanos(wait)), Form::OpenAi);
        assert_eq!(response.headers()["retry-after"], seconds);
        assert_eq!(response.headers()["retry-after-ms"], millis);
    }
}

#[test]
fn a_refusal_is_an_openai_error_that_names_its_rule() {
    let response = refused(&refusal(Cause::Limit, Duration::from_millis(1500)), Form::OpenAi);
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
    let open = refused(&refusal(Cause::Breaker, Duration::from_secs(3)), Form::OpenAi);
    assert_eq!(open.status(), 503);
    let body: serde_json::Value = serde_json::from_slice(open.body()).unwrap();
    assert_eq!(body["error"]["type"], "service_unavailable");
    assert_eq!(body["error"]["code"], "breaker-open");
    assert_eq!(trouble(Trouble::EngineFailed, Form::OpenAi).status(), 502);
    assert_eq!(trouble(Trouble::EngineTimedOut, Form::OpenAi).status(), 504);
}

#[test]
fn a_client_that_would_wait_in_vain_is_told_not_to_try_again() {
    let minute = Duration::from_mins(1);
    for (wait, seconds, should) in [
        (minute, Some("60"), None),
        (minute + Duration::from_nanos(1), Some("61"), Some("false")),
        (Duration::MAX, None, Some("false")),
    ] {
        for form in [Form::OpenAi, Form::Problem, Form::Grpc] {
            let response = refused(&refusal(Cause::Limit, wait), form);
            let header = |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap());
            assert_eq!((header("retry-after"), header("x-should-retry")), (seconds, should), "{wait:?}");
            assert_eq!(header("retry-after-ms").is_some(), seconds.is_some());
            let pushback = (form == Form::Grpc).then_some(if should.is_some() { "-1" } else { "60000" });
            assert_eq!(header("grpc-retry-pushback-ms"), pushback);
        }
    }
}

#[test]
fn a_request_that_never_fits_is_told_so_and_not_when_to_come_again() {
    let response = refused(&refusal(Cause::Limit, Duration::MAX), Form::OpenAi);
    let body: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
    let message = body["error"]["message"].as_str().unwrap();
    assert!(message.contains("at most 400 at once") && !message.contains("retry after"), "{message}");
}

#[test]
fn a_problem_has_the_type_of_its_cause_and_names_the_rule() {
    let body = |response: Response<Bytes>| -> serde_json::Value {
        assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
        let body: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
        assert_eq!(body["status"], response.status().as_u16());
        body
    };
    let limit = body(refused(&refusal(Cause::Limit, Duration::from_secs(1)), Form::Problem));
    assert_eq!(limit["type"], "https://iana.org/assignments/http-problem-types#quota-exceeded");
    assert_eq!((limit["code"].as_str(), limit["status"].as_u64()), (Some("limit"), Some(429)));
    assert_eq!(limit["violated-policies"][0], "per-user\u{e9}");
    assert!(limit["detail"].as_str().unwrap().contains("412 over 400"));
    let open = body(refused(&refusal(Cause::Breaker, Duration::from_secs(1)), Form::Problem));
    assert_eq!(open["type"], "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity");
    let failed = body(trouble(Trouble::EngineFailed, Form::Problem));
    assert_eq!(
        (failed["type"].as_str(), failed["title"].as_str()),
        (Some("about:blank"), Some("Bad Gateway"))
    );
}
