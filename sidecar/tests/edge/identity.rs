//! Callers' tokens: signed here with keys of this test's own, believed or not by the real sidecar.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::engine::Engine;
use crate::sidecar::{Sidecar, eventually};
use crate::signer::{Signer, claims, inline, judged, now, passes, policy, start};
use crate::support::Peer;

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
    let (allowed, other) = (Signer::of("RS256", "a"), Signer::of("PS256", "b"));
    let (sidecar, _file) = start(&inline(&[&allowed, &other]));
    assert!(passes(&sidecar, "anonymous"), "the one request of the empty key is spent");
    assert!(passes(&sidecar, &allowed.token(&claims("ann"))));
    assert!(!passes(&sidecar, &other.token(&claims("bob"))), "PS256 with the same key");
    assert_eq!((judged(&sidecar, "verified"), judged(&sidecar, "unknown_key")), (1, 1));
}

#[test]
fn every_algorithm_is_believed_where_it_is_pinned_and_nowhere_else() {
    let algorithms = ["EdDSA", "ES256", "ES384", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512"];
    let signers = algorithms.map(|algorithm| Signer::of(algorithm, algorithm));
    let keys = inline(&signers.each_ref());
    let mut document: Value = serde_json::from_str(&policy(&keys)).unwrap();
    // As many issuers as a policy may have, with the keys of all and one algorithm each.
    let pinned = &algorithms[1..];
    let issuers =
        pinned.iter().map(|algorithm| json!({"issuer": algorithm, "algorithms": [algorithm], "keys": keys}));
    document["identity"]["jwt"] = issuers.collect();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), document.to_string()).unwrap();
    let argument = format!("--policy-file={}", file.path().display());
    let sidecar = Sidecar::start(Engine::start().address, &[&argument, "--workers=1"]);
    assert!(passes(&sidecar, "anonymous"), "the one request of the empty key is spent");
    let judged_as = |token: &str| {
        let outcomes = ["verified", "unknown_key", "bad_signature", "not_for_us"];
        let before = outcomes.map(|outcome| judged(&sidecar, outcome));
        let is_believed = passes(&sidecar, token);
        let now = outcomes.map(|outcome| judged(&sidecar, outcome));
        let changed = (0..outcomes.len()).find(|at| now[*at] != before[*at]).unwrap();
        assert_eq!(is_believed, outcomes[changed] == "verified");
        outcomes[changed]
    };
    for issuer in pinned {
        for signer in &signers {
            let own = signer.algorithm();
            let claims = json!({"iss": issuer, "sub": format!("{own} for {issuer}"), "exp": now() + 3600});
            // By its own name it is asked for by another issuer, which is not this one.
            let expected = match own {
                _ if own == *issuer => "verified",
                "EdDSA" => "unknown_key",
                _ => "not_for_us",
            };
            assert_eq!(judged_as(&signer.token(&claims)), expected, "{own} for {issuer}");
            if own == *issuer {
                continue;
            }
            // By the name of another a key of its kind is found, and does not fit.
            let is_of_a_kind = own.starts_with('E') == issuer.starts_with('E') && own != "EdDSA";
            let expected = if is_of_a_kind { "bad_signature" } else { "unknown_key" };
            let lie = signer.token_that_says(issuer, &claims);
            assert_eq!(judged_as(&lie), expected, "{own} that says {issuer}");
        }
    }
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
