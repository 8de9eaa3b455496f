//! Callers' tokens: signed here with keys of this test's own, believed or not by the real sidecar.

use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256,
    RSA_PSS_SHA256, RsaKeyPair, RsaPublicKeyComponents,
};
use serde_json::{Value, json};

use crate::authority::Authority;
use crate::engine::Engine;
use crate::operator::plain;
use crate::server::{Body, Server, Service};
use crate::sidecar::{Sidecar, eventually};
use crate::support::Peer;

const ISSUER: &str = "https://issuer.example.com";

/// A key of these tests alone: nobody else signs with it, and it takes long to make one.
const RSA_KEY: &[u8] = include_bytes!("rsa_2048.pk8");

/// A key that signs, and the member of a key set that tells its public half.
enum Signer {
    Ed25519(String, Ed25519KeyPair),
    P256(String, EcdsaKeyPair),
    /// With the name of the algorithm: RS256 or PS256.
    Rsa(&'static str, RsaKeyPair),
}

impl Signer {
    fn rsa(algorithm: &'static str) -> Self {
        Self::Rsa(algorithm, RsaKeyPair::from_pkcs8(RSA_KEY).unwrap())
    }

    fn ed25519(id: &str) -> Self {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Self::Ed25519(id.to_owned(), Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap())
    }

    fn p256(id: &str) -> Self {
        let (algorithm, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        Self::P256(id.to_owned(), EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random).unwrap())
    }

    fn public(&self) -> Value {
        match self {
            Self::Ed25519(id, pair) => {
                let x = URL_SAFE_NO_PAD.encode(pair.public_key());
                json!({"kty": "OKP", "crv": "Ed25519", "kid": id, "x": x, "alg": "EdDSA", "use": "sig"})
            }
            Self::P256(id, pair) => {
                let [x, y] = [&pair.public_key().as_ref()[1..33], &pair.public_key().as_ref()[33..]];
                let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
                json!({"kty": "EC", "crv": "P-256", "kid": id, "x": x, "y": y})
            }
            Self::Rsa(id, pair) => {
                let RsaPublicKeyComponents::<Vec<u8>> { n, e } = pair.public().into();
                let (n, e) = (URL_SAFE_NO_PAD.encode(n), URL_SAFE_NO_PAD.encode(e));
                json!({"kty": "RSA", "kid": id, "n": n, "e": e})
            }
        }
    }

    fn token(&self, claims: &Value) -> String {
        let (id, algorithm) = match self {
            Self::Ed25519(id, _) => (id, "EdDSA"),
            Self::P256(id, _) => (id, "ES256"),
            Self::Rsa(algorithm, _) => (&(*algorithm).to_owned(), *algorithm),
        };
        let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let header = json!({"alg": algorithm, "kid": id, "typ": "JWT"});
        let message = format!("{}.{}", part(header), part(claims.clone()));
        let signature = match self {
            Self::Ed25519(_, pair) => pair.sign(message.as_bytes()).as_ref().to_vec(),
            Self::P256(_, pair) => {
                pair.sign(&SystemRandom::new(), message.as_bytes()).unwrap().as_ref().to_vec()
            }
            Self::Rsa(algorithm, pair) => {
                let padding: &dyn ring::signature::RsaEncoding =
                    if *algorithm == "PS256" { &RSA_PSS_SHA256 } else { &RSA_PKCS1_SHA256 };
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(padding, &SystemRandom::new(), message.as_bytes(), &mut signature).unwrap();
                signature
            }
        };
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn claims(user: &str) -> Value {
    json!({"iss": ISSUER, "aud": ["other", "llm"], "sub": user, "exp": now() + 3600})
}

/// One request each hour for each `sub`, under issuers with these keys.
fn policy(keys: &Value) -> String {
    json!({
        "apiVersion": "policy.tidegate.dev/v1", "revision": "r1",
        "identity": {"policy": "a/b", "jwt": [{
            "issuer": ISSUER, "audiences": ["llm"], "algorithms": ["EdDSA", "ES256", "RS256"], "keys": keys,
        }]},
        "limits": [{
            "policy": "a/b", "name": "per-user", "mode": "Enforce", "key": [{"jwtClaim": "sub"}],
            "algorithm": {"tokenBucket": {"burst": 1}}, "limit": 1, "windowMillis": 3_600_000,
        }],
    })
    .to_string()
}

fn start(keys: &Value) -> (Sidecar, tempfile::NamedTempFile) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), policy(keys)).unwrap();
    let engine = Engine::start();
    let argument = format!("--policy-file={}", file.path().display());
    // Each thread keeps verdicts for itself; with one of them it is known which are kept.
    (Sidecar::start(engine.address, &[&argument, "--workers=1"]), file)
}

fn inline(signers: &[&Signer]) -> Value {
    let keys: Vec<_> = signers.iter().map(|signer| signer.public()).collect();
    json!({"inline": json!({"keys": keys}).to_string()})
}

/// Whether the key of this token still had its one request.
fn passes(sidecar: &Sidecar, token: &str) -> bool {
    let authorization = format!("Bearer {token}");
    sidecar.request("/v1/models", &[("authorization", &authorization)]).unwrap().status == 200
}

fn judged(sidecar: &Sidecar, outcome: &str) -> u64 {
    sidecar.metric(&format!("tidegate_jwt_total{{outcome=\"{outcome}\"}}")).unwrap_or_default() as u64
}

#[test]
fn a_limit_counts_by_the_claim_of_a_verified_token() {
    let (edwards, elliptic) = (Signer::ed25519("a"), Signer::p256("b"));
    let (sidecar, _file) = start(&inline(&[&edwards, &elliptic]));
    let ann = edwards.token(&claims("ann"));
    assert!(passes(&sidecar, &ann));
    assert!(!passes(&sidecar, &ann), "her request is spent");
    assert!(!passes(&sidecar, &elliptic.token(&claims("ann"))), "and she is the same with another token");
    assert!(passes(&sidecar, &elliptic.token(&claims("bob"))));
    assert_eq!((judged(&sidecar, "verified"), judged(&sidecar, "cached")), (3, 1));
}

#[test]
fn an_rsa_signature_is_believed_in_the_form_that_the_policy_allows() {
    let (allowed, other) = (Signer::rsa("RS256"), Signer::rsa("PS256"));
    let (sidecar, _file) = start(&inline(&[&allowed, &other]));
    assert!(passes(&sidecar, "anonymous"), "the one request of the empty key is spent");
    assert!(passes(&sidecar, &allowed.token(&claims("ann"))));
    assert!(!passes(&sidecar, &other.token(&claims("bob"))), "PS256 with the same key");
    assert_eq!((judged(&sidecar, "verified"), judged(&sidecar, "unknown_key")), (1, 1));
}

#[test]
fn a_token_is_believed_for_as_long_as_clocks_may_differ_and_from_then_on_not_from_the_cache_either() {
    let signer = Signer::ed25519("a");
    let mut document: Value = serde_json::from_str(&policy(&inline(&[&signer]))).unwrap();
    document["identity"]["jwt"][0]["leewayMillis"] = json!(60_000);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), document.to_string()).unwrap();
    let argument = format!("--policy-file={}", file.path().display());
    let sidecar = Sidecar::start(Engine::start().address, &[&argument, "--workers=1"]);
    let until = |user: &str, exp: u64| {
        let mut claims = claims(user);
        claims["exp"] = json!(exp);
        signer.token(&claims)
    };
    assert!(passes(&sidecar, &until("ann", now() - 20)), "expired by less than clocks may differ");
    assert_eq!((judged(&sidecar, "verified"), judged(&sidecar, "expired")), (1, 0));
    // The leeway of this one ends in a moment, and it is shown again and again until then.
    let ending = until("bob", now() - 57);
    eventually("its end", || {
        passes(&sidecar, &ending);
        (judged(&sidecar, "expired") > 0).then_some(())
    });
    assert!(judged(&sidecar, "verified") <= 2, "its signature is checked once");
}

#[test]
fn no_token_that_is_not_its_issuers_is_believed() {
    let (ours, theirs) = (Signer::ed25519("a"), Signer::ed25519("a"));
    let (sidecar, _file) = start(&inline(&[&ours]));
    let good = ours.token(&claims("ann"));
    let (message, signature) = good.rsplit_once('.').unwrap();
    let with = |change: Value| {
        let mut claims = claims("ann");
        claims.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        ours.token(&claims)
    };
    let unsigned = |algorithm: &str| {
        let header = URL_SAFE_NO_PAD.encode(json!({"alg": algorithm}).to_string());
        format!("{header}.{}.{signature}", message.split_once('.').unwrap().1)
    };
    // The public key is known to all: whoever takes it for a secret believes everybody.
    let public = ours.public();
    let symmetric = |secret: &[u8]| {
        let header = URL_SAFE_NO_PAD.encode(json!({"alg": "HS256", "kid": "a"}).to_string());
        let forged = format!("{header}.{}", message.split_once('.').unwrap().1);
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret);
        let tag = ring::hmac::sign(&key, forged.as_bytes());
        format!("{forged}.{}", URL_SAFE_NO_PAD.encode(tag))
    };
    let cases = [
        (symmetric(public["x"].as_str().unwrap().as_bytes()), "unknown_key"),
        (symmetric(&URL_SAFE_NO_PAD.decode(public["x"].as_str().unwrap()).unwrap()), "unknown_key"),
        (symmetric(public.to_string().as_bytes()), "unknown_key"),
        (theirs.token(&claims("ann")), "bad_signature"),
        (format!("{message}.{}", URL_SAFE_NO_PAD.encode([0; 64])), "bad_signature"),
        (with(json!({"exp": now() - 10})), "expired"),
        (with(json!({"nbf": now() + 600})), "not_yet"),
        (with(json!({"iss": "https://other.example.com"})), "not_for_us"),
        (with(json!({"aud": "other"})), "not_for_us"),
        (Signer::ed25519("unknown").token(&claims("ann")), "unknown_key"),
        (unsigned("none"), "malformed"),
        (unsigned("HS256"), "unknown_key"),
        ("garbage".to_owned(), "malformed"),
        ("x".repeat(9000), "malformed"),
    ];
    // Whoever is not believed shares the empty key, whose one request this is.
    assert!(passes(&sidecar, "anonymous"));
    for (token, outcome) in cases {
        let before = judged(&sidecar, outcome);
        assert!(!passes(&sidecar, &token), "{outcome}: {token}");
        assert_eq!(judged(&sidecar, outcome), before + 1, "{outcome}: {token}");
    }
    assert!(passes(&sidecar, &good));
}

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

#[test]
fn a_flood_of_tokens_takes_no_more_memory_than_the_verdicts_that_are_kept() {
    let signer = Signer::ed25519("a");
    let (sidecar, _file) = start(&inline(&[&signer]));
    let believed = |numbers: std::ops::Range<usize>| {
        let mut client = Peer::new(std::net::TcpStream::connect(sidecar.data).unwrap());
        for number in numbers {
            let token = signer.token(&claims(&format!("{number}{}", "x".repeat(5000))));
            client.send(&format!("GET / HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\n\r\n"));
            assert_eq!(client.response().status, 200);
        }
    };
    let worker = sidecar.workers()[0];
    let size = || {
        let status = std::fs::read_to_string(format!("/proc/{worker}/status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    believed(0..4200);
    let full = size();
    believed(4200..6600);
    // So many verdicts more, of 5 KB each, would be 12 MiB.
    let now = size();
    assert!(now < full + 6 * 1024, "{full} KiB became {now} KiB");
    assert_eq!(judged(&sidecar, "verified"), 6600);
}

#[test]
fn plans_hold_by_the_claim_of_a_verified_token_and_of_no_other() {
    let signer = Signer::ed25519("a");
    let mut document: Value = serde_json::from_str(&policy(&inline(&[&signer]))).unwrap();
    let plan = |name: &str, is: Value, most: u64| {
        json!({"policy": "a/b", "name": name, "mode": "Enforce", "key": [{"jwtClaim": "sub"}],
            "when": [{"of": {"jwtClaim": "tier"}, "is": is}], "algorithm": {"tokenBucket": {"burst": most}},
            "limit": most, "windowMillis": 3_600_000})
    };
    document["limits"] = json!([
        plan("plan-platinum", json!({"in": ["platinum"]}), 5),
        plan("plan-gold", json!({"in": ["gold"]}), 3),
        plan("plan-silver", json!({"notIn": ["platinum", "gold"]}), 1),
    ]);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), document.to_string()).unwrap();
    let argument = format!("--policy-file={}", file.path().display());
    let sidecar = Sidecar::start(Engine::start().address, &[&argument]);
    let passed = |user: &str, tier: &str, signer: &Signer| {
        let mut claims = claims(user);
        claims["tier"] = json!(tier);
        let token = signer.token(&claims);
        (0..9).take_while(|_| passes(&sidecar, &token)).count()
    };
    assert_eq!(passed("ann", "platinum", &signer), 5);
    assert_eq!(passed("bob", "gold", &signer), 3);
    assert_eq!(passed("cid", "silver", &signer), 1);
    assert_eq!(passed("dan", "bronze", &signer), 1, "the default plan");
    assert_eq!(passed("eve", "platinum", &Signer::ed25519("a")), 1, "a forged token names no plan");
}

#[test]
fn the_claim_of_a_verified_token_gives_high_and_no_header_and_no_other_token_does() {
    let signer = Signer::ed25519("a");
    let mut document: Value = serde_json::from_str(&policy(&inline(&[&signer]))).unwrap();
    document["limits"] = json!([]);
    document["priority"] = json!({"default": "Medium", "highAllowedFrom": [], "from": [
        {"jwtClaim": "tier", "map": {"platinum": "High", "gold": "Medium", "silver": "Low"}},
        {"header": "x-priority"}]});
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), document.to_string()).unwrap();
    let argument = format!("--policy-file={}", file.path().display());
    let sidecar = Sidecar::start(Engine::start().address, &[&argument]);
    let token = |tier: &str, signer: &Signer| {
        let mut claims = claims("ann");
        claims["tier"] = json!(tier);
        signer.token(&claims)
    };
    let forged = token("platinum", &Signer::ed25519("a"));
    for (token, asked, class) in [
        (token("platinum", &signer), "", "high"),
        (token("gold", &signer), "high", "medium"),
        (token("silver", &signer), "high", "low"),
        (token("bronze", &signer), "high", "medium"),
        (token("bronze", &signer), "low", "low"),
        (forged.clone(), "", "medium"),
        (forged, "low", "low"),
    ] {
        let series = format!(r#"tidegate_requests_total{{decision="admitted",cause="",priority="{class}"}}"#);
        let before = sidecar.metric(&series).unwrap_or_default();
        let authorization = format!("Bearer {token}");
        let headers = [("authorization", authorization.as_str()), ("x-priority", asked)];
        assert_eq!(sidecar.request("/v1/models", &headers).unwrap().status, 200);
        eventually(&series, || sidecar.metric(&series).filter(|count| *count > before));
        assert_eq!(sidecar.metric(&series), Some(before + 1.0), "{asked:?}: {class}");
    }
}

#[test]
fn a_client_behind_a_trusted_proxy_is_known_by_its_own_address() {
    let document = |proxies: &str| {
        json!({
            "apiVersion": "policy.tidegate.dev/v1", "revision": "r1",
            "identity": {"policy": "a/b", "clientIp": {"trustedProxies": [proxies], "from": "XForwardedFor"}},
            "limits": [{
                "policy": "a/b", "name": "per-client", "mode": "Enforce", "key": ["clientIp"],
                "algorithm": {"tokenBucket": {"burst": 1}}, "limit": 1, "windowMillis": 3_600_000,
            }],
        })
    };
    for (proxies, trusted) in [("127.0.0.0/8", true), ("10.0.0.0/8", false)] {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), document(proxies).to_string()).unwrap();
        let argument = format!("--policy-file={}", file.path().display());
        let sidecar = Sidecar::start(Engine::start().address, &[&argument]);
        let status =
            |forwarded| sidecar.request("/v1/models", &[("x-forwarded-for", forwarded)]).unwrap().status;
        let asked = ["203.0.113.1", "6.6.6.6, 203.0.113.1", "203.0.113.2"].map(status);
        assert_eq!(asked, if trusted { [200, 429, 200] } else { [200, 429, 429] }, "{proxies}");
        if trusted {
            let line = sidecar.line("the refusal", |line| line["verdict"] == "refused");
            assert_eq!(line["client_ip"], "203.0.113.1");
        }
    }
}
