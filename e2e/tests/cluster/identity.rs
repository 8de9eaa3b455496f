//! Callers' tokens, signed here and judged in the pod.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::{Value, json};
use tidegate_e2e::harness::{Engine, in_namespace};

const ISSUER: &str = "https://issuer.example.com";

/// A key of an issuer.
struct Signer(Ed25519KeyPair);

impl Signer {
    fn new() -> anyhow::Result<Self> {
        let fault = |_| anyhow::anyhow!("no key could be made");
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(fault)?;
        Ok(Self(Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).map_err(|error| anyhow::anyhow!("{error}"))?))
    }

    /// The key set as an issuer publishes it.
    fn key_set(&self) -> Value {
        let x = URL_SAFE_NO_PAD.encode(self.0.public_key());
        json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "a", "x": x, "alg": "EdDSA", "use": "sig"}]})
    }

    /// The header of a request of this user.
    fn bearer(&self, user: &str) -> anyhow::Result<String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let claims = json!({"iss": ISSUER, "aud": "llm", "sub": user, "exp": now + 3600});
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message =
            format!("{}.{}", part(&json!({"alg": "EdDSA", "kid": "a", "typ": "JWT"})), part(&claims));
        let signature = URL_SAFE_NO_PAD.encode(self.0.sign(message.as_bytes()));
        Ok(format!("Bearer {message}.{signature}"))
    }
}

#[tokio::test]
async fn a_limit_counts_each_user_of_a_verified_token_and_believes_no_other() -> anyhow::Result<()> {
    in_namespace(async |lab| {
        let (ours, theirs) = (Signer::new()?, Signer::new()?);
        let policy = json!({
            "apiVersion": "tidegate.dev/v1alpha1", "kind": "RateLimitPolicy", "metadata": {"name": "users"},
            "spec": {
                "identity": {"jwt": [{
                    "issuer": ISSUER, "audiences": ["llm"], "algorithms": ["EdDSA"],
                    "jwks": {"inline": ours.key_set().to_string()},
                }]},
                "limits": [{
                    "name": "per-user", "key": [{"jwtClaim": "sub"}], "algorithm": "TokenBucket",
                    "limit": 1, "window": "1h",
                }],
            },
        });
        lab.apply(&policy.to_string()).await?;
        let pods = lab.engine(&Engine::new("llama")).await?;
        let pod = &pods[0];
        lab.until_programmed(pod).await?;
        let ann = ours.bearer("ann")?;
        let mut statuses = Vec::new();
        // Whoever is not believed is nobody, and nobody has one request too.
        for token in [&ann, &ann, &ours.bearer("bob")?, &theirs.bearer("cid")?, &theirs.bearer("dan")?] {
            statuses.push(lab.complete(pod, &[("authorization", token)]).await?.status.as_u16());
        }
        assert_eq!(statuses, [200, 429, 200, 200, 429]);
        let bad_signatures = lab.metric(pod, "tidegate_jwt_total{outcome=\"bad_signature\"}").await?;
        assert!((bad_signatures - 2.0).abs() < f64::EPSILON, "{bad_signatures}");
        Ok(())
    })
    .await
}
