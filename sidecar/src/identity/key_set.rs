//! The public keys of an issuer.

use anyhow::{Context, Result, bail};
use jsonwebtoken::jwk::{Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use ring::digest::{SHA256, digest};
use serde::Deserialize;
use serde_json::Value;

/// More keys than any issuer rotates through.
const MOST_KEYS: usize = 64;

/// A JSON Web Key Set (RFC 7517).
#[derive(Debug, Default)]
pub(super) struct KeySet {
    keys: Vec<Key>,
    /// SHA-256 of the text that it is from.
    of: Option<[u8; 32]>,
}

#[derive(Debug)]
struct Key {
    id: Option<String>,
    /// The only algorithm it may be used with, when the set says one.
    algorithm: Option<Algorithm>,
    public: DecodingKey,
}

#[derive(Deserialize)]
struct Members {
    keys: Vec<Value>,
}

impl KeySet {
    /// Parses a set. Keys of a kind that is not known are passed over, as RFC 7517, 5 asks; a set without any that
    /// can be used is refused.
    pub(super) fn parse(json: &[u8]) -> Result<Self> {
        let members: Members = serde_json::from_slice(json).context("not a JSON Web Key Set")?;
        if members.keys.len() > MOST_KEYS {
            bail!("{} keys are too many: at most {MOST_KEYS}", members.keys.len());
        }
        let keys: Vec<Key> = members.keys.into_iter().filter_map(Key::new).collect();
        if keys.is_empty() {
            bail!("no key that can check a signature: RSA, P-256, P-384 and Ed25519 are known");
        }
        Ok(Self { keys, of: hash(json) })
    }

    /// Whether no token can be judged.
    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whether it is from this text.
    pub(super) fn is_of(&self, json: &[u8]) -> bool {
        self.of.is_some() && self.of == hash(json)
    }

    /// The keys that may have signed a token with this header.
    pub(super) fn candidates(
        &self,
        id: Option<&str>,
        algorithm: Algorithm,
    ) -> impl Iterator<Item = &DecodingKey> {
        self.keys.iter().filter(move |key| key.may_sign(id, algorithm)).map(|key| &key.public)
    }

    /// Whether a token that names this key can be judged.
    pub(super) fn has(&self, id: Option<&str>) -> bool {
        id.is_none_or(|id| self.keys.iter().any(|key| key.id.as_deref().is_none_or(|own| own == id)))
    }
}

fn hash(json: &[u8]) -> Option<[u8; 32]> {
    digest(&SHA256, json).as_ref().try_into().ok()
}

impl Key {
    fn new(member: Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(member).ok()?;
        if matches!(&jwk.common.public_key_use, Some(purpose) if *purpose != PublicKeyUse::Signature) {
            return None;
        }
        let key = DecodingKey::from_jwk(&jwk).ok()?;
        let asymmetric = key.family() != jsonwebtoken::AlgorithmFamily::Hmac;
        // A key that is meant for something else, such as encryption, has an algorithm that is no signature.
        let algorithm = jwk.common.key_algorithm.map(|own| own.to_string().parse()).transpose().ok()?;
        asymmetric.then_some(Self { id: jwk.common.key_id, algorithm, public: key })
    }

    fn may_sign(&self, id: Option<&str>, algorithm: Algorithm) -> bool {
        let named = match (id, self.id.as_deref()) {
            (Some(id), Some(own)) => id == own,
            (None, _) | (_, None) => true,
        };
        let meant = self.algorithm.is_none_or(|own| own == algorithm);
        named && meant && self.public.family() == algorithm.family()
    }
}
