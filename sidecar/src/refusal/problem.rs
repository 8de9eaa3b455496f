//! Refusals as problems of RFC 9457, with the types of draft-ietf-httpapi-ratelimit-headers-11, section 5.

use serde::Serialize;
use tidegate_core::Cause;

use super::Said;

const QUOTA_EXCEEDED: &str = "https://iana.org/assignments/http-problem-types#quota-exceeded";
const REDUCED_CAPACITY: &str = "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity";

#[derive(Serialize)]
struct Problem<'a> {
    r#type: &'a str,
    title: &'a str,
    status: u16,
    detail: &'a str,
    code: &'a str,
    #[serde(rename = "violated-policies", skip_serializing_if = "Option::is_none")]
    violated_policies: Option<[&'a str; 1]>,
}

/// The body. A type that says no more than the status is `about:blank`, whose title is the status's own.
pub(super) fn json(said: Said<'_>) -> Vec<u8> {
    let (r#type, title) = match said.refusal.map(|refusal| refusal.cause) {
        Some(Cause::Limit) => {
            (QUOTA_EXCEEDED, "Request cannot be satisfied as assigned quota has been exceeded")
        }
        Some(_) => {
            (REDUCED_CAPACITY, "Request cannot be satisfied due to temporary server capacity constraints")
        }
        None => ("about:blank", said.status.canonical_reason().unwrap_or("Error")),
    };
    let problem = Problem {
        r#type,
        title,
        status: said.status.as_u16(),
        detail: said.message,
        code: said.code,
        violated_policies: said.refusal.map(|refusal| [refusal.rule.name.as_str()]),
    };
    serde_json::to_vec(&problem).unwrap_or_default()
}
