//! Where the keys of an issuer come from: written down, its own server, a mounted file. Each followed and kept.

use std::sync::{Arc, Mutex};

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use serde_json::{Value, json};

use crate::authority::Authority;
use crate::engine::Engine;
use crate::operator::plain;
use crate::server::{Body, Server, Service};
use crate::sidecar::{Sidecar, eventually};
use crate::signer::{Signer, claims, inline, judged, passes, policy, start};

#[test]
fn a_policy_with_other_keys_takes_the_belief_from_tokens_that_were_cached() {
    let (before, after) = (Signer::ed25519("a"), Signer::ed25519("b"));
    let (sidecar, file) = start(&inline(&[&before]));
    assert!(passes(&sidecar, &before.token(&claims("ann"))));
    let old = before.token(&claims("bob"));
    assert!(passes(&sidecar, &old));
    let text = policy(&inline(&[&after])).replace("\"r1\"", "\"r2\"");
    std::fs::write(file.path(), text).unwrap();
    eventually("the second policy", || (sidecar.status()["revision"] == "r2").then_some(()));
    assert!(passes(&sidecar, &old), "not believed: the first on the empty key");
    assert_eq!(judged(&sidecar, "unknown_key"), 1);
    assert!(passes(&sidecar, &after.token(&claims("cid"))));
}

/// An issuer's own server with its key set.
struct Issuer(Arc<Mutex<String>>);

impl Service for Issuer {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        assert_eq!(request.uri().path(), "/keys");
        let keys = self.0.lock().unwrap().clone();
        if keys.is_empty() {
            return plain(StatusCode::SERVICE_UNAVAILABLE, "");
        }
        plain(StatusCode::OK, keys)
    }
}

#[test]
fn keys_are_read_from_their_issuer_followed_when_they_rotate_and_kept_when_it_is_away() {
    let set = |signer: &Signer| json!({"keys": [signer.public()]}).to_string();
    let (before, after) = (Signer::ed25519("a"), Signer::p256("b"));
    let keys = Arc::new(Mutex::new(set(&before)));
    let authority = Authority::new();
    let server = Server::start(authority.server(&[b"http/1.1"]), Arc::new(Issuer(Arc::clone(&keys))));
    let uri = format!("https://127.0.0.1:{}/keys", server.address.port());
    let (sidecar, _file) = start(&json!({"remote": {"uri": uri, "caBundle": authority.pem()}}));
    sidecar.line("the reading", |line| line["message"] == "key set read");
    let known = before.token(&claims("ann"));
    assert!(passes(&sidecar, &known));
    assert!(passes(&sidecar, "anonymous"), "the one request of the empty key is spent");
    keys.lock().unwrap().clear();
    let rotated = after.token(&claims("bob"));
    assert!(!passes(&sidecar, &rotated));
    eventually("a failed reading", || {
        (sidecar.metric("tidegate_jwt_key_set_errors_total") >= Some(1.0)).then_some(())
    });
    assert!(passes(&sidecar, &before.token(&claims("cid"))), "the last keys stay in force");
    *keys.lock().unwrap() = set(&after);
    eventually("belief in the new key", || passes(&sidecar, &rotated).then_some(()));
    assert!(!passes(&sidecar, &before.token(&claims("dan"))), "and none in the old one");
    // What was verified before is not taken from the cache either.
    let (cached, unknown) = (judged(&sidecar, "cached"), judged(&sidecar, "unknown_key"));
    passes(&sidecar, &known);
    assert_eq!((judged(&sidecar, "cached"), judged(&sidecar, "unknown_key")), (cached, unknown + 1));
}

#[test]
fn keys_are_read_from_a_mounted_file_followed_when_it_changes_and_kept_when_it_is_damaged() {
    let (before, after) = (Signer::ed25519("a"), Signer::p256("b"));
    // As the kubelet mounts a ConfigMap: a version of the whole beside the last one, and a link that is turned to it.
    let folder = tempfile::tempdir().unwrap();
    let mount = folder.path().join("sets");
    std::fs::create_dir(&mount).unwrap();
    std::os::unix::fs::symlink("..data/issuer.json", mount.join("issuer.json")).unwrap();
    let turn = |version: &str, content: &str| {
        std::fs::create_dir(mount.join(version)).unwrap();
        std::fs::write(mount.join(version).join("issuer.json"), content).unwrap();
        std::os::unix::fs::symlink(version, mount.join("..next")).unwrap();
        std::fs::rename(mount.join("..next"), mount.join("..data")).unwrap();
    };
    let set = |signer: &Signer| json!({"keys": [signer.public()]}).to_string();
    turn("..1", &set(&before));
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), policy(&json!({"file": "issuer.json"}))).unwrap();
    let (policy, jwks) =
        (format!("--policy-file={}", file.path().display()), format!("--jwks={}", mount.display()));
    let sidecar = Sidecar::start(Engine::start().address, &[&policy, &jwks, "--workers=1"]);
    let known = before.token(&claims("ann"));
    eventually("belief in the file", || {
        sidecar.request("/", &[]).unwrap();
        passes(&sidecar, &known).then_some(())
    });
    let damaged = sidecar.metric("tidegate_jwt_key_set_errors_total").unwrap();
    turn("..2", "no key set");
    eventually("a failed reading", || {
        (sidecar.metric("tidegate_jwt_key_set_errors_total") > Some(damaged)).then_some(())
    });
    assert!(passes(&sidecar, &before.token(&claims("bob"))), "the last keys stay in force");
    let told = |line: &Value| line["file"] == "issuer.json" && line["level"] == "WARN";
    let line = sidecar.line("the complaint", told);
    assert!(line["cause"].as_str().unwrap().contains("not a JSON Web Key Set"), "{line}");
    turn("..3", &set(&after));
    let rotated = after.token(&claims("cid"));
    eventually("belief in the new key", || passes(&sidecar, &rotated).then_some(()));
    let (cached, unknown) = (judged(&sidecar, "cached"), judged(&sidecar, "unknown_key"));
    assert!(
        !passes(&sidecar, &known),
        "what was believed by the old key is not any more, from no cache either"
    );
    assert_eq!((judged(&sidecar, "cached"), judged(&sidecar, "unknown_key")), (cached, unknown + 1));
    assert_eq!(sidecar.lines().iter().filter(|line| told(line)).count(), 1, "told once");
}

#[test]
fn a_key_set_that_is_not_there_is_told_of_and_believed_once_it_is() {
    let signer = Signer::ed25519("a");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), policy(&json!({"file": "issuer.json"}))).unwrap();
    let policy = format!("--policy-file={}", file.path().display());
    let sidecar = Sidecar::start(Engine::start().address, &[&policy]);
    let line = sidecar.line("the complaint", |line| line["file"] == "issuer.json");
    assert!(line["cause"].as_str().unwrap().contains("tidegate.dev/jwks"), "{line}");
    let folder = tempfile::tempdir().unwrap();
    let jwks = format!("--jwks={}", folder.path().display());
    let sidecar = Sidecar::start(Engine::start().address, &[&policy, &jwks]);
    sidecar.line("the complaint", |line| line["file"] == "issuer.json");
    assert!(passes(&sidecar, &signer.token(&claims("ann"))), "the first on the empty key");
    assert!(!passes(&sidecar, &signer.token(&claims("bob"))), "nobody is believed");
    let set = json!({"keys": [signer.public()]}).to_string();
    std::fs::write(folder.path().join("issuer.json"), set).unwrap();
    eventually("belief", || passes(&sidecar, &signer.token(&claims("cid"))).then_some(()));
}
