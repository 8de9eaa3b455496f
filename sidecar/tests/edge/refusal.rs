//! What a client of the real sidecar is told when it is refused.

use serde_json::{Value, json};

use crate::engine::Engine;
use crate::sidecar::{Answer, Sidecar};

/// A sidecar under a document with these parts, and its file.
pub(crate) fn under(parts: &Value) -> (Sidecar, tempfile::NamedTempFile) {
    let mut document = json!({"apiVersion": "policy.tidegate.dev/v1", "revision": "r1"});
    document.as_object_mut().unwrap().extend(parts.as_object().unwrap().clone());
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), document.to_string()).unwrap();
    let argument = format!("--policy-file={}", file.path().display());
    (Sidecar::start(Engine::start().address, &[&argument]), file)
}

/// One request in `window` milliseconds for each value of x-user.
pub(crate) fn limit(name: &str, window: u64) -> Value {
    json!({
        "policy": "shop/llama", "name": name, "mode": "Enforce", "key": [{"header": "x-user"}],
        "algorithm": {"tokenBucket": {"burst": 1}}, "limit": 1, "windowMillis": window,
    })
}

impl Answer {
    /// The value of a header of the answer.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (own, value) = line.split_once(':')?;
            own.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

#[test]
fn a_client_that_prefers_problems_gets_one_and_everybody_else_an_openai_error() {
    let (sidecar, _file) = under(&json!({"limits": [limit("per-user", 30_000)]}));
    // Of each user the second request, however long the others took.
    let ask = |user, accept| {
        let ask = || sidecar.request("/v1/models", &[("x-user", user), ("accept", accept)]).unwrap();
        assert_eq!(ask().status, 200);
        ask()
    };
    let problem = ask("ann", "application/json;q=0.5, application/problem+json");
    assert_eq!((problem.status, problem.header("content-type")), (429, Some("application/problem+json")));
    let body: Value = serde_json::from_str(&problem.body).unwrap();
    assert_eq!(body["type"], "https://iana.org/assignments/http-problem-types#quota-exceeded");
    assert_eq!((&body["status"], &body["violated-policies"]), (&json!(429), &json!(["per-user"])));
    let preferred = ["application/json", "*/*", "application/problem+json;q=0.1, application/json"];
    for (user, accept) in ["bob", "cid", "dan"].into_iter().zip(preferred) {
        let refused = ask(user, accept);
        assert_eq!((refused.status, refused.header("content-type")), (429, Some("application/json")));
        let body: Value = serde_json::from_str(&refused.body).unwrap();
        assert_eq!(body["error"]["code"], "limit", "{accept}");
        let wait: u64 = refused.header("retry-after-ms").unwrap().parse().unwrap();
        assert!((1..=30_000).contains(&wait), "{wait}");
        assert_eq!(refused.header("retry-after"), Some(wait.div_ceil(1000).to_string().as_str()));
        assert_eq!(refused.header("x-should-retry"), None, "it is worth to wait");
    }
}

#[test]
fn a_wait_that_no_client_waits_out_is_told_and_not_to_be_tried() {
    let (sidecar, _file) = under(&json!({"limits": [limit("per-day", 86_400_000)]}));
    let ask = || sidecar.request("/v1/models", &[("x-user", "ann")]).unwrap();
    assert_eq!(ask().status, 200);
    let refused = ask();
    assert_eq!((refused.status, refused.header("x-should-retry")), (429, Some("false")));
    let seconds: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((86_000..=86_400).contains(&seconds), "{seconds}");
}

/// The parameter of the one item of a list.
fn parameter<'a>(answer: &'a Answer, header: &str, name: &str) -> Option<&'a str> {
    let mut parts = answer.header(header)?.split(';');
    assert_eq!(parts.next(), Some("\"per-user\""));
    parts.find_map(|part| part.strip_prefix(name)?.strip_prefix('='))
}

/// Three requests an hour for each value of x-user.
fn three_an_hour(headers: &str) -> Value {
    let mut three = limit("per-user", 3_600_000);
    (three["limit"], three["algorithm"]) = (json!(3), json!({"tokenBucket": {"burst": 3}}));
    json!({"limits": [three], "rateLimitHeaders": headers})
}

#[test]
fn every_answer_tells_what_is_left_where_a_policy_asks_for_it() {
    let (sidecar, _file) = under(&three_an_hour("Always"));
    let ask = |user| sidecar.request("/v1/models", &[("x-user", user)]).unwrap();
    let mut partitions = Vec::new();
    for remaining in ["2", "1", "0"] {
        let answer = ask("ann");
        assert_eq!(answer.status, 200);
        assert_eq!(parameter(&answer, "ratelimit-policy", "q"), Some("3"));
        assert_eq!(parameter(&answer, "ratelimit-policy", "w"), Some("3600"));
        assert_eq!(parameter(&answer, "ratelimit", "r"), Some(remaining));
        let more: u64 = parameter(&answer, "ratelimit", "t").unwrap().parse().unwrap();
        assert!((1..=1200).contains(&more), "{more}");
        assert_eq!(answer.header("x-ratelimit-limit-requests"), Some("3"));
        assert_eq!(answer.header("x-ratelimit-remaining-requests"), Some(remaining));
        assert!(answer.header("x-ratelimit-reset-requests").unwrap().ends_with('s'));
        assert_eq!(answer.header("x-ratelimit-remaining-tokens"), None, "nothing limits tokens");
        partitions.push(parameter(&answer, "ratelimit", "pk").unwrap().to_owned());
    }
    let refused = ask("ann");
    assert_eq!((refused.status, parameter(&refused, "ratelimit", "r")), (429, Some("0")));
    assert_eq!(parameter(&refused, "ratelimit", "t"), refused.header("retry-after"));
    assert_eq!(refused.header("x-ratelimit-remaining-requests"), Some("0"));
    let bob = ask("bob");
    assert_eq!((bob.status, parameter(&bob, "ratelimit", "r")), (200, Some("2")));
    partitions.push(parameter(&bob, "ratelimit-policy", "pk").unwrap().to_owned());
    partitions.dedup();
    assert_eq!(partitions.len(), 2, "ann has one partition, and bob another");
}

#[test]
fn only_refusals_tell_what_is_left_by_default_and_none_where_a_policy_forbids_it() {
    for (headers, told) in [("OnRefusal", true), ("Never", false)] {
        let mut parts = three_an_hour(headers);
        if told {
            parts.as_object_mut().unwrap().remove("rateLimitHeaders");
        }
        let (sidecar, _file) = under(&parts);
        let ask = || sidecar.request("/v1/models", &[("x-user", "ann")]).unwrap();
        for status in [200, 200, 200, 429] {
            let answer = ask();
            assert_eq!(answer.status, status);
            for name in ["ratelimit", "ratelimit-policy", "x-ratelimit-remaining-requests"] {
                assert_eq!(answer.header(name).is_some(), told && status == 429, "{headers} {status} {name}");
            }
        }
    }
}

#[test]
fn a_limit_is_for_the_requests_that_its_conditions_name() {
    let plan = |name: &str, most: u64| {
        let mut limit = limit(name, 3_600_000);
        (limit["limit"], limit["algorithm"]) = (json!(most), json!({"tokenBucket": {"burst": most}}));
        limit["when"] = json!([{"of": {"header": "x-route-tag"}, "is": {"in": [name]}}]);
        limit
    };
    let (sidecar, _file) = under(&json!({"limits": [plan("gold", 3), plan("silver", 1)]}));
    let passed = |tag| {
        let ask = || sidecar.request("/v1/models", &[("x-user", "ann"), ("x-route-tag", tag)]).unwrap();
        (0..9).take_while(|_| ask().status == 200).count()
    };
    assert_eq!((passed("gold"), passed("silver"), passed("bronze")), (3, 1, 9));
}
