use serde_json::{Value, json};

use crate::{DocumentErrors, PolicyDocument};

/// A document in which every field is written.
fn full() -> Value {
    json!({
        "apiVersion": "policy.tidegate.dev/v1", "revision": "r1",
        "tiers": {
            "policy": "a/b", "mode": "Enforce",
            "qps": {"sampleIntervalMillis": 1000, "windowMillis": 60_000, "max": 400.0,
                "learned": {"sigma": 1.5, "factor": 1.2, "floor": 10.0, "minimumSamples": 10}},
            "gpuMemory": {"maxUtilization": 0.75, "maxBytes": 1, "staleAfterMillis": 10_000, "onStale": "Ignore"},
            "latency": {"signal": "TimeToFirstToken", "percentile": 0.99, "periodMillis": 10_000, "periods": 3,
                "minimumSamples": 100, "learned": {"factor": 1.8, "minimumPeriods": 6}, "maxMillis": 800},
            "recovery": {"belowRatio": 0.8, "holdMillis": 30_000},
        },
        "identity": {"policy": "a/b", "jwt": [{"issuer": "a", "audiences": ["b"], "algorithms": ["RS256"],
            "leewayMillis": 1000, "keys": {"remote": {"uri": "https://a/keys", "caBundle": "pem"}}}]},
        "priority": {
            "from": [{"header": "x-priority", "map": {"gold": "High"}}], "default": "Medium", "reservedHigh": 0.2,
            "highAllowedFrom": [{"cidr": "10.0.0.0/8", "header": "x-team", "value": "ops"}],
        },
        "limits": [{"policy": "a/b", "name": "key", "mode": "Enforce", "key": [{"header": "x-api-key"}],
            "algorithm": {"tokenBucket": {"burst": 10}}, "limit": 100, "windowMillis": 1000}],
        "breaker": {
            "policy": "a/b", "mode": "Enforce",
            "trip": {
                "consecutiveFailures": {"count": 5},
                "errorRatio": {"threshold": 0.5, "windowMillis": 30_000, "minimumRequests": 20},
                "slowCallRatio": {"threshold": 0.3, "slowerThanMillis": 1000, "windowMillis": 10_000,
                    "minimumRequests": 20},
            },
            "openMillis": 60_000, "halfOpen": {"probes": 1}, "timeoutMillis": 3000,
            "fallback": {"path": "/fallback"},
        },
    })
}

fn read(document: &Value) -> Result<PolicyDocument, DocumentErrors> {
    PolicyDocument::from_json(document.to_string().as_bytes())
}

#[test]
fn a_document_with_every_field_is_valid() {
    assert_eq!(read(&full()).map(drop), Ok(()));
}

#[test]
fn all_mistakes_are_told_at_once_in_the_order_of_the_document() {
    let mut document = full();
    document["tiers"]["latency"]["periods"] = json!(0);
    document["priority"]["highAllowedFrom"][0]["cidr"] = json!("10.0.0.0/33");
    document["limits"][0]["limit"] = json!(0);
    document["limits"][0]["algorithm"]["tokenBucket"]["burst"] = json!(0);
    document["breaker"]["halfOpen"]["probes"] = json!(1001);
    let errors = read(&document).unwrap_err();
    assert_eq!(
        errors.to_string(),
        "tiers.latency.periods: 0 is out of range: write 1 to 100\n\
         priority.highAllowedFrom[0].cidr: \"10.0.0.0/33\" is not an address block: write one such as \"10.0.0.0/8\"\n\
         limits[0].limit: 0 is out of range: write 1 to 1000000000\n\
         limits[0].algorithm.tokenBucket.burst: 0 is out of range: write 1 to 1000000000\n\
         breaker.halfOpen.probes: 1001 is out of range: write 1 to 1000"
    );
    assert_eq!(errors.in_one_line().lines().count(), 1);
}

#[test]
fn every_mistake_of_an_issuer_is_told() {
    for (change, message) in [
        (json!({"jwt": []}), "identity.jwt: 0 issuers: write 1 to 8"),
        (json!({"jwt": [{"issuer": ""}]}), "identity.jwt[0].issuer: \"\" is no issuer"),
        (json!({"jwt": [{}, {}]}), "identity.jwt[1].issuer: \"a\" is there twice"),
        (json!({"jwt": [{"algorithms": []}]}), "identity.jwt[0].algorithms: [] allows no token"),
        (json!({"jwt": [{"audiences": vec!["x"; 17]}]}), "identity.jwt[0].audiences: 17 audiences"),
        (json!({"jwt": [{"keys": {"inline": "{}"}}]}), "identity.jwt[0].keys.inline: not a JSON Web Key Set"),
        (
            json!({"jwt": [{"keys": {"inline": " ".repeat(65_537)}}]}),
            "identity.jwt[0].keys.inline: 65537 bytes",
        ),
        (
            json!({"jwt": [{"keys": {"remote": {"uri": "http://a"}}}]}),
            "identity.jwt[0].keys.remote.uri: \"http://a\" is not an address",
        ),
        (json!({"jwt": [{"algorithms": ["HS256"]}]}), "HS256"),
    ] {
        let mut document = full();
        let issuer = document["identity"]["jwt"][0].clone();
        let issuers = change["jwt"].as_array().unwrap().iter().map(|change| {
            let mut issuer = issuer.clone();
            issuer.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            issuer
        });
        document["identity"]["jwt"] = issuers.collect();
        let text = read(&document).unwrap_err().to_string();
        assert!(text.contains(message), "{change}: {text}");
    }
    let mut both = full();
    both["priority"]["from"][0]["jwtClaim"] = json!("tier");
    assert!(read(&both).unwrap_err().to_string().contains("priority.from[0]: a class comes from one thing"));
}
