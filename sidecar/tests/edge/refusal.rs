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
    let ask = |accept| sidecar.request("/v1/models", &[("x-user", "ann"), ("accept", accept)]).unwrap();
    assert_eq!(ask("application/problem+json").status, 200);
    let problem = ask("application/json;q=0.5, application/problem+json");
    assert_eq!((problem.status, problem.header("content-type")), (429, Some("application/problem+json")));
    let body: Value = serde_json::from_str(&problem.body).unwrap();
    assert_eq!(body["type"], "https://iana.org/assignments/http-problem-types#quota-exceeded");
    assert_eq!((&body["status"], &body["violated-policies"]), (&json!(429), &json!(["per-user"])));
    for accept in ["application/json", "*/*", "application/problem+json;q=0.1, application/json"] {
        let refused = ask(accept);
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
