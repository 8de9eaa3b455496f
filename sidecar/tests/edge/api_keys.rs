//! API keys, read by the real sidecar from a folder as the kubelet mounts a Secret.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::engine::Engine;
use crate::sidecar::{Sidecar, eventually};
use crate::support;

const ACME: &str = "sk-acme-0123456789abcdef";
const OTHER: &str = "sk-other-0123456789abcdef";
const HASHED: &str = "sk-hashed-0123456789abcdef";

/// A Secret as the kubelet mounts one: a link to the version in force.
struct Secret(TempDir, AtomicU32);

impl Secret {
    fn new(entries: &[(&str, &str)]) -> Self {
        let secret = Self(tempfile::tempdir().unwrap(), AtomicU32::new(0));
        secret.write(entries);
        secret
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, entries: &[(&str, &str)]) {
        let version = format!("..version_{}", self.1.fetch_add(1, Ordering::SeqCst));
        std::fs::create_dir(self.path().join(&version)).unwrap();
        for (name, content) in entries {
            std::fs::write(self.path().join(&version).join(name), content).unwrap();
        }
        symlink(&version, self.path().join("..new")).unwrap();
        std::fs::rename(self.path().join("..new"), self.path().join("..data")).unwrap();
    }
}

fn hash(key: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, key.as_bytes());
    let digit = |digit: u8| char::from_digit(u32::from(digit), 16).unwrap();
    digest.as_ref().iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// Two requests an hour for each tenant, five for platinum ones, and their classes.
fn policy(keys: &Value) -> Value {
    let limit = |name: &str, is: &str, most: u64| {
        json!({"policy": "a/b", "name": name, "mode": "Enforce", "key": [{"jwtClaim": "tenant"}],
            "when": [{"of": {"jwtClaim": "tier"}, "is": {is: ["platinum"]}}],
            "algorithm": {"tokenBucket": {"burst": most}}, "limit": most, "windowMillis": 3_600_000})
    };
    json!({
        "apiVersion": "policy.tidegate.dev/v1", "revision": "r1",
        "identity": {"policy": "a/b", "apiKeys": keys},
        "priority": {
            "from": [{"jwtClaim": "tier", "map": {"platinum": "High", "silver": "Low"}}],
            "default": "Medium", "highAllowedFrom": [],
        },
        "limits": [limit("usual", "notIn", 2), limit("platinum", "in", 5)],
    })
}

fn everywhere() -> Value {
    json!({"headers": ["authorization", "x-api-key", "api-key"]})
}

fn start(
    upstream: std::net::SocketAddr,
    document: &Value,
    keys: &Path,
) -> (Sidecar, tempfile::NamedTempFile) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), document.to_string()).unwrap();
    let (policy, keys) =
        (format!("--policy-file={}", file.path().display()), format!("--api-keys={}", keys.display()));
    let sidecar = Sidecar::start(upstream, &[&policy, &keys, "--workers=1", "--log-level=trace"]);
    (sidecar, file)
}

fn status(sidecar: &Sidecar, name: &str, value: &str) -> u16 {
    sidecar.request("/v1/models", &[(name, value)]).unwrap().status
}

fn looked(sidecar: &Sidecar, outcome: &str) -> f64 {
    sidecar.metric(&format!("tidegate_api_key_total{{outcome=\"{outcome}\"}}")).unwrap_or_default()
}

#[test]
fn a_key_gives_its_client_the_tenant_the_tier_and_the_class_that_the_secret_says() {
    let acme = json!({"key": ACME, "tenant": "acme", "tier": "platinum"}).to_string();
    let more = json!({"sha256": hash(HASHED), "tenant": "acme", "tier": "platinum"}).to_string();
    let other = json!({"key": OTHER, "tenant": "other", "tier": "silver"}).to_string();
    let secret = Secret::new(&[("acme", &acme), ("acme-2", &more), ("other", &other)]);
    let (sidecar, _file) = start(Engine::start().address, &policy(&everywhere()), secret.path());
    assert_eq!(sidecar.metric("tidegate_api_keys"), Some(3.0));
    let bearer = |key: &str| format!("Bearer {key}");
    // One tenant by two keys, in every header: five requests together.
    let asked = [
        status(&sidecar, "authorization", &bearer(ACME)),
        status(&sidecar, "x-api-key", ACME),
        status(&sidecar, "api-key", HASHED),
        status(&sidecar, "Authorization", &format!("bearer  {HASHED}")),
        status(&sidecar, "x-api-key", HASHED),
        status(&sidecar, "x-api-key", ACME),
    ];
    assert_eq!(asked, [200, 200, 200, 200, 200, 429]);
    assert_eq!([(); 3].map(|()| status(&sidecar, "x-api-key", OTHER)), [200, 200, 429]);
    // Whoever is not known shares the empty key: a key of another form, and one more byte.
    let strangers = [
        status(&sidecar, "authorization", ACME),
        status(&sidecar, "x-api-key", &format!("{ACME}0")),
        status(&sidecar, "x-other", ACME),
    ];
    assert_eq!(strangers, [200, 200, 429]);
    assert_eq!(
        (looked(&sidecar, "known"), looked(&sidecar, "unknown"), looked(&sidecar, "absent")),
        (9.0, 1.0, 2.0)
    );
    for (class, admitted) in [("high", 5.0), ("low", 2.0), ("medium", 2.0)] {
        let series =
            format!("tidegate_requests_total{{decision=\"admitted\",cause=\"\",priority=\"{class}\"}}");
        assert_eq!(sidecar.metric(&series), Some(admitted), "{class}");
    }
}

#[test]
fn keys_rotate_without_a_restart_and_the_old_one_is_unknown_at_once() {
    let secret = Secret::new(&[("acme", ACME)]);
    let keys = json!({"headers": ["authorization"], "required": true});
    let (sidecar, _file) = start(Engine::start().address, &policy(&keys), secret.path());
    let asked = |key: &str| status(&sidecar, "authorization", &format!("Bearer {key}"));
    assert_eq!((asked(ACME), asked(OTHER)), (200, 401));
    secret.write(&[("acme", OTHER), ("broken", "short"), ("twice", "{\"key\": 5}")]);
    eventually("the new key", || (asked(OTHER) != 401).then_some(()));
    assert_eq!(asked(ACME), 401);
    let left_out = |entry: &str| {
        sidecar.line(entry, |line| line["message"] == "an API key is left out" && line["entry"] == entry)
    };
    assert!(left_out("broken")["cause"].as_str().unwrap().contains("write one of 16 to 512"));
    left_out("twice");
    // A Secret without entries, or none at all, knows nobody.
    secret.write(&[]);
    eventually("nobody is known", || (asked(OTHER) == 401).then_some(()));
}

#[test]
fn where_a_policy_says_so_a_client_that_nobody_knows_is_401_and_probes_are_not() {
    let secret = Secret::new(&[("acme", ACME)]);
    let keys = json!({"headers": ["authorization"], "required": true});
    let (sidecar, _file) = start(Engine::start().address, &policy(&keys), secret.path());
    for headers in [&[][..], &[("authorization", "Bearer sk-made-up-0123456789")], &[("x-api-key", ACME)]] {
        let refused = sidecar.request("/v1/models", headers).unwrap();
        assert_eq!(refused.status, 401, "{headers:?}");
        let head = refused.head.to_ascii_lowercase();
        assert!(
            head.contains("\r\nwww-authenticate: bearer")
                && head.contains("x-tidegate-reason: invalid_api_key")
        );
        let body: Value = serde_json::from_str(&refused.body).unwrap();
        assert_eq!(body["error"]["type"], "invalid_request_error");
        assert_eq!(body["error"]["code"], "invalid_api_key");
    }
    assert_eq!(sidecar.metric("tidegate_protocol_refused_total{reason=\"unauthenticated\"}"), Some(3.0));
    // Its own /metrics has no key, and is asked of the engine all the same.
    assert_ne!(sidecar.request("/metrics", &[]).unwrap().status, 401);
    assert_eq!(status(&sidecar, "authorization", &format!("Bearer {ACME}")), 200);
}

#[test]
fn no_key_and_no_hash_of_one_is_told_anywhere() {
    let secret = Secret::new(&[("acme", ACME), ("broken", &format!("{{\"key\": \"{OTHER}\", nonsense"))]);
    let (sidecar, _file) = start(Engine::start().address, &policy(&everywhere()), secret.path());
    for _ in 0..4 {
        status(&sidecar, "x-api-key", ACME);
        status(&sidecar, "x-api-key", OTHER);
    }
    sidecar.line("a refusal", |line| line["verdict"] == "refused");
    let log = sidecar.lines().into_iter().map(|line| line.to_string()).collect::<String>();
    let told = [log, sidecar.admin("/metrics").unwrap().body, sidecar.status().to_string()];
    for key in [ACME, OTHER] {
        for text in &told {
            assert!(!text.contains(&key[3..]) && !text.contains(&hash(key)[..16]), "{text}");
        }
    }
}

#[test]
fn the_engine_sees_keys_unless_a_policy_strips_them() {
    for strips in [false, true] {
        let engine = support::Engine::answering(|request| {
            let seen = ["authorization", "x-api-key", "x-else"].map(|name| request.header(name).is_some());
            support::ok(&format!("{seen:?}"))
        });
        let secret = Secret::new(&[("acme", ACME)]);
        let keys = json!({"headers": ["authorization", "x-api-key"], "stripHeaders": strips});
        let (sidecar, _file) = start(engine.address, &policy(&keys), secret.path());
        let bearer = format!("Bearer {ACME}");
        let headers = [("authorization", &*bearer), ("x-api-key", OTHER), ("x-else", "1")];
        let answer = sidecar.request("/v1/models", &headers).unwrap();
        assert_eq!(answer.body, if strips { "[false, false, true]" } else { "[true, true, true]" });
    }
}
