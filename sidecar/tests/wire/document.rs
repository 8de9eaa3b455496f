//! Policies, as files.

use serde_json::{Value, json};
use tempfile::TempDir;
use tidegate_policy::PolicyDocument;

/// A file with the default document, but for these parts.
pub(crate) fn with(parts: &Value) -> (TempDir, String) {
    let mut document = serde_json::to_value(PolicyDocument::default()).unwrap();
    document["revision"] = "test".into();
    for (name, part) in parts.as_object().unwrap() {
        document[name] = part.clone();
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("policy.json");
    std::fs::write(&path, document.to_string()).unwrap();
    let path = path.display().to_string();
    (folder, path)
}

/// So many requests an hour by the header x-api-key.
pub(crate) fn limit_of(requests: u64) -> (TempDir, String) {
    with(&json!({"limits": [{
        "policy": "shop/llama", "name": "per-user", "mode": "Enforce", "key": [{"header": "x-api-key"}],
        "algorithm": {"tokenBucket": {"burst": requests}}, "limit": requests, "windowMillis": 3_600_000,
    }]}))
}

/// Opens after two failures in a row, for an hour.
pub(crate) fn breaker() -> (TempDir, String) {
    with(&json!({"breaker": {
        "policy": "shop/pay", "mode": "Enforce", "trip": {"consecutiveFailures": {"count": 2}},
        "openMillis": 3_600_000, "halfOpen": {"probes": 1},
    }}))
}
