//! The class of a request: by whose word, and who sees it.

use serde_json::json;

use crate::decisions::document;
use crate::support::{Engine, Proxy, ok};

#[test]
fn the_engine_does_not_see_what_clients_ask_for_where_a_policy_strips_it() {
    let engine = Engine::answering(|request| ok(&request.head.to_ascii_lowercase()));
    for (strip, seen) in [(false, true), (true, false)] {
        let sources = json!([{"header": "x-priority"}, {"jwtClaim": "tier"},
            {"header": "x-request-priority", "number": {"better": "Lower", "medium": 5}}]);
        let parts = json!({"priority": {"from": sources, "default": "Medium", "highAllowedFrom": [],
            "stripHeaders": strip}});
        let proxy = Proxy::with_document(engine.address, &document("1", &parts));
        let head = proxy.ask(
            "GET / HTTP/1.1\r\nHost: a\r\nX-Priority: low\r\nX-Request-Priority: 9\r\nX-Other: x\r\n\r\n",
        );
        let head = head.text();
        assert_eq!(
            (head.contains("x-priority"), head.contains("x-request-priority")),
            (seen, seen),
            "{head}"
        );
        assert!(head.contains("x-other: x"));
        let low = r#"tidegate_requests_total{decision="admitted",cause="",priority="low"}"#;
        assert_eq!(proxy.metric(low), 1, "and it has done its work");
    }
}

#[test]
fn a_service_tier_in_the_body_is_the_class_of_its_request() {
    let engine = Engine::answering(|_| ok("engine"));
    let parts =
        json!({"priority": {"from": [{"serviceTier": true}], "default": "Medium", "highAllowedFrom": []}});
    let proxy = Proxy::with_document(engine.address, &document("1", &parts));
    for tier in ["flex", "priority", "auto"] {
        let body = json!({"model": "m", "messages": [{"content": "service_tier"}], "service_tier": tier})
            .to_string();
        let length = body.len();
        let head =
            format!("POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
        assert_eq!(proxy.ask(&format!("{head}{body}")).text(), "engine");
    }
    let admitted = |class: &str| {
        proxy
            .metric(&format!(r#"tidegate_requests_total{{decision="admitted",cause="",priority="{class}"}}"#))
    };
    assert_eq!((admitted("low"), admitted("medium"), admitted("high")), (1, 2, 0));
}

#[test]
fn what_clients_and_routers_send_already_is_the_class_of_their_requests() {
    let engine = Engine::answering(|_| ok("engine"));
    let objectives = json!({"premium": "High", "batch": "Low"});
    let parts = json!({"priority": {"from": [
            {"header": "x-request-priority", "number": {"better": "Lower", "high": -1, "medium": 0}},
            {"serviceTier": true},
            {"header": "x-llm-d-inference-objective", "map": objectives},
            {"header": "x-gateway-inference-objective", "map": objectives}],
        "default": "Medium", "highAllowedFrom": [{"header": "x-team", "value": "search"}]}});
    let proxy = Proxy::with_document(engine.address, &document("1", &parts));
    let admitted = |class: &str| {
        proxy
            .metric(&format!(r#"tidegate_requests_total{{decision="admitted",cause="",priority="{class}"}}"#))
    };
    for (field, tier, of_anybody, of_those_who_may) in [
        ("x-request-priority: -2", None, "medium", "high"),
        ("x-request-priority: -1", None, "medium", "high"),
        ("x-request-priority: 0", None, "medium", "medium"),
        ("x-request-priority: 1", None, "low", "low"),
        ("x-request-priority: soon", None, "medium", "medium"),
        ("x-request-priority: 1", Some("priority"), "low", "low"),
        ("x-llm-d-inference-objective: premium", None, "medium", "high"),
        ("x-llm-d-inference-objective: batch", None, "low", "low"),
        ("x-llm-d-inference-objective: other", None, "medium", "medium"),
        ("x-gateway-inference-objective: batch", None, "low", "low"),
        ("x-other: 1", Some("priority"), "medium", "high"),
        ("x-other: 1", Some("default"), "medium", "medium"),
        ("x-other: 1", Some("flex"), "low", "low"),
    ] {
        for (team, class) in [("chat", of_anybody), ("search", of_those_who_may)] {
            let body = json!({"model": "m", "prompt": "p", "service_tier": tier}).to_string();
            let (before, length) = (admitted(class), body.len());
            let answer = proxy.ask(&format!(
                "POST /v1/completions HTTP/1.1\r\nHost: a\r\n{field}\r\nx-team: {team}\r\ncontent-length: {length}\r\n\r\n{body}"
            ));
            assert_eq!(answer.text(), "engine");
            assert_eq!(admitted(class), before + 1, "{field}, {tier:?}, of {team}: {class}");
        }
    }
}
