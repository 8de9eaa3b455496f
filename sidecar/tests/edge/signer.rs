//! Keys that sign callers' tokens, and what a sidecar makes of those.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
    KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384,
    RSA_PSS_SHA512, RsaEncoding, RsaKeyPair, RsaPublicKeyComponents,
};
use serde_json::{Value, json};

use crate::engine::Engine;
use crate::sidecar::Sidecar;

pub(crate) const ISSUER: &str = "https://issuer.example.com";

/// A key of these tests alone: nobody else signs with it, and it takes long to make one.
const RSA_KEY: &[u8] = include_bytes!("rsa_2048.pk8");

/// A key that signs, and the member of a key set that tells its public half.
pub(crate) struct Signer {
    id: String,
    algorithm: &'static str,
    pair: Pair,
}

enum Pair {
    Edwards(Ed25519KeyPair),
    /// With the name of its curve.
    Elliptic(&'static str, EcdsaKeyPair),
    Rsa(&'static dyn RsaEncoding, RsaKeyPair),
}

impl Signer {
    /// With a key of its own, or that of all RSA algorithms.
    pub(crate) fn of(algorithm: &'static str, id: &str) -> Self {
        let random = SystemRandom::new();
        let rsa = |encoding| Pair::Rsa(encoding, RsaKeyPair::from_pkcs8(RSA_KEY).unwrap());
        let elliptic = |curve, algorithm| {
            let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
            Pair::Elliptic(curve, EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random).unwrap())
        };
        let pair = match algorithm {
            "EdDSA" => {
                let pkcs8 = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
                Pair::Edwards(Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap())
            }
            "ES256" => elliptic("P-256", &ECDSA_P256_SHA256_FIXED_SIGNING),
            "ES384" => elliptic("P-384", &ECDSA_P384_SHA384_FIXED_SIGNING),
            "RS256" => rsa(&RSA_PKCS1_SHA256),
            "RS384" => rsa(&RSA_PKCS1_SHA384),
            "RS512" => rsa(&RSA_PKCS1_SHA512),
            "PS256" => rsa(&RSA_PSS_SHA256),
            "PS384" => rsa(&RSA_PSS_SHA384),
            "PS512" => rsa(&RSA_PSS_SHA512),
            other => panic!("{other}"),
        };
        Self { id: id.to_owned(), algorithm, pair }
    }

    pub(crate) fn ed25519(id: &str) -> Self {
        Self::of("EdDSA", id)
    }

    pub(crate) fn p256(id: &str) -> Self {
        Self::of("ES256", id)
    }

    pub(crate) fn algorithm(&self) -> &'static str {
        self.algorithm
    }

    pub(crate) fn public(&self) -> Value {
        let id = &self.id;
        match &self.pair {
            Pair::Edwards(pair) => {
                let x = URL_SAFE_NO_PAD.encode(pair.public_key());
                json!({"kty": "OKP", "crv": "Ed25519", "kid": id, "x": x, "alg": "EdDSA", "use": "sig"})
            }
            Pair::Elliptic(curve, pair) => {
                // Behind a byte for its form: x and y, of the same length.
                let point = &pair.public_key().as_ref()[1..];
                let (x, y) = point.split_at(point.len() / 2);
                let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
                json!({"kty": "EC", "crv": curve, "kid": id, "x": x, "y": y})
            }
            Pair::Rsa(_, pair) => {
                let RsaPublicKeyComponents::<Vec<u8>> { n, e } = pair.public().into();
                let (n, e) = (URL_SAFE_NO_PAD.encode(n), URL_SAFE_NO_PAD.encode(e));
                json!({"kty": "RSA", "kid": id, "n": n, "e": e})
            }
        }
    }

    pub(crate) fn token(&self, claims: &Value) -> String {
        self.token_that_says(self.algorithm, claims)
    }

    /// A token whose header names this algorithm, whatever it is signed with.
    pub(crate) fn token_that_says(&self, algorithm: &str, claims: &Value) -> String {
        let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let header = json!({"alg": algorithm, "kid": self.id, "typ": "JWT"});
        let message = format!("{}.{}", part(header), part(claims.clone()));
        let random = SystemRandom::new();
        let signature = match &self.pair {
            Pair::Edwards(pair) => pair.sign(message.as_bytes()).as_ref().to_vec(),
            Pair::Elliptic(_, pair) => pair.sign(&random, message.as_bytes()).unwrap().as_ref().to_vec(),
            Pair::Rsa(encoding, pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(*encoding, &random, message.as_bytes(), &mut signature).unwrap();
                signature
            }
        };
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

pub(crate) fn claims(user: &str) -> Value {
    json!({"iss": ISSUER, "aud": ["other", "llm"], "sub": user, "exp": now() + 3600})
}

/// One request each hour for each `sub`, under issuers with these keys.
pub(crate) fn policy(keys: &Value) -> String {
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

pub(crate) fn start(keys: &Value) -> (Sidecar, tempfile::NamedTempFile) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), policy(keys)).unwrap();
    let engine = Engine::start();
    let argument = format!("--policy-file={}", file.path().display());
    // Each thread keeps verdicts for itself; with one of them it is known which are kept.
    (Sidecar::start(engine.address, &[&argument, "--workers=1"]), file)
}

pub(crate) fn inline(signers: &[&Signer]) -> Value {
    let keys: Vec<_> = signers.iter().map(|signer| signer.public()).collect();
    json!({"inline": json!({"keys": keys}).to_string()})
}

/// Whether the key of this token still had its one request.
pub(crate) fn passes(sidecar: &Sidecar, token: &str) -> bool {
    let authorization = format!("Bearer {token}");
    sidecar.request("/v1/models", &[("authorization", &authorization)]).unwrap().status == 200
}

pub(crate) fn judged(sidecar: &Sidecar, outcome: &str) -> u64 {
    sidecar.metric(&format!("tidegate_jwt_total{{outcome=\"{outcome}\"}}")).unwrap_or_default() as u64
}
