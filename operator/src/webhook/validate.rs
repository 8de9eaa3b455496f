//! Policies, judged by the same rules as in the index. Only mistakes within one object are refused.

use kube::core::admission::{AdmissionResponse, Operation};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tidegate_operator_core::compile;

use super::review::Asked;

/// Allows what it does not know, and every DELETE.
pub(super) fn validate(asked: &Asked) -> AdmissionResponse {
    let response = AdmissionResponse::from(&asked.request);
    if asked.request.operation == Operation::Delete || asked.object.is_null() {
        return response;
    }
    let kind = asked.request.kind.kind.as_str();
    let judged = match (asked.request.kind.group.as_str(), kind) {
        (tidegate_crds::GROUP, "RateLimitPolicy") => {
            judge(&asked.object, kind, |policy| compile::rate_limit(policy).map(drop))
        }
        (tidegate_crds::GROUP, "CircuitBreakerPolicy") => {
            judge(&asked.object, kind, |policy| compile::circuit_breaker(policy).map(drop))
        }
        _ => Ok(()),
    };
    match judged {
        Ok(()) => response,
        Err(message) => {
            tracing::info!(
                kind,
                name = asked.request.name,
                namespace = asked.request.namespace,
                message,
                "policy refused"
            );
            let mut response = response.deny(message);
            response.result.code = 422;
            "Invalid".clone_into(&mut response.result.reason);
            response
        }
    }
}

fn judge<T: DeserializeOwned>(
    object: &Value,
    kind: &str,
    judge: impl FnOnce(&T) -> Result<(), compile::Problems>,
) -> Result<(), String> {
    let policy: T =
        serde_json::from_value(object.clone()).map_err(|error| format!("this is not a {kind}: {error}"))?;
    judge(&policy).map_err(|problems| problems.to_string())
}
