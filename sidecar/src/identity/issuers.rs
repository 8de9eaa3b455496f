//! Whose tokens are believed, and what makes one believed.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Validation, decode, decode_header};
use serde_json::{Map, Value};
use tidegate_policy::{JwtAlgorithm, JwtIssuer, JwtKeys, KeyPart, PolicyDocument, Subject};
use tokio::sync::Notify;
use tracing::warn;

use super::api_keys::Place;
use super::client_ip::Proxies;
use super::key_set::KeySet;
use super::{Claimed, signature};

/// A longer token is not looked at.
const LONGEST_TOKEN: usize = 8 * 1024;
/// More values of one claim are not looked at.
const MOST_VALUES: usize = 64;

/// Numbers every state of issuers and keys in this process, so that what was cached under an earlier one is not
/// used under a later one.
static GENERATIONS: AtomicU64 = AtomicU64::new(1);

/// The issuers of the policy in force.
#[derive(Debug)]
pub struct Issuers {
    all: Vec<Issuer>,
    /// The claims that rules look at. Others are not kept.
    wanted: Vec<Box<str>>,
    generation: AtomicU64,
    /// Whose word on the address of a client is taken.
    pub(super) proxies: Option<Proxies>,
    /// Where clients show API keys.
    pub(super) api_keys: Option<Place>,
    /// Rings when a token names a key that is not known.
    pub(super) missing: Arc<Notify>,
}

/// One issuer.
#[derive(Debug)]
pub(super) struct Issuer {
    pub(super) policy: JwtIssuer,
    validation: Validation,
    pub(super) keys: ArcSwap<KeySet>,
}

/// Why a token is not believed. The words are those of the metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rejection {
    /// It is no token, or of another form than policies allow.
    Malformed,
    /// No issuer has the key that it names, or any.
    UnknownKey,
    /// The signature is not its issuer's.
    BadSignature,
    /// Its time is over.
    Expired,
    /// Its time has not come yet.
    NotYet,
    /// Its issuer or audience is another.
    NotForUs,
}

/// A token that is believed.
#[derive(Debug)]
pub(super) struct Believed {
    pub(super) claimed: Claimed,
    /// Seconds since the epoch after which it is not any more.
    pub(super) until: u64,
}

impl Rejection {
    /// As in the metric.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::UnknownKey => "unknown_key",
            Self::BadSignature => "bad_signature",
            Self::Expired => "expired",
            Self::NotYet => "not_yet",
            Self::NotForUs => "not_for_us",
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Issuers {
    /// The issuers of a document. Keys that were read for one before stay known.
    pub fn new(document: &PolicyDocument, before: Option<&Self>) -> Self {
        signature::install();
        let issuers = document.identity.iter().flat_map(|identity| &identity.jwt);
        let this = Self {
            all: issuers.map(|policy| Issuer::new(policy, before)).collect(),
            wanted: wanted(document),
            generation: AtomicU64::new(next_generation()),
            proxies: document
                .identity
                .as_ref()
                .and_then(|identity| identity.client_ip.as_ref())
                .map(Proxies::new),
            api_keys: document
                .identity
                .as_ref()
                .and_then(|identity| identity.api_keys.as_ref())
                .map(Place::new),
            missing: before.map_or_else(Arc::default, |before| Arc::clone(&before.missing)),
        };
        if this.all.iter().any(Issuer::is_unread) {
            this.missing.notify_one();
        }
        this
    }

    /// Whether nobody is believed.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Issuer> {
        self.all.iter()
    }

    /// Puts keys in force that were read for `issuer`.
    pub(super) fn rotate(&self, issuer: &Issuer, keys: KeySet) {
        issuer.keys.store(Arc::new(keys));
        self.generation.store(next_generation(), Ordering::Release);
    }

    /// Checks a token against every issuer.
    pub(super) fn verify(&self, token: &str) -> Result<Believed, Rejection> {
        if token.len() > LONGEST_TOKEN {
            return Err(Rejection::Malformed);
        }
        let header = decode_header(token).map_err(|_| Rejection::Malformed)?;
        let id = header.kid.as_deref();
        let mut rejection = Rejection::UnknownKey;
        for issuer in &self.all {
            match issuer.verify(token, id, header.alg) {
                Ok(claims) => return Ok(self.believe(&claims, issuer)),
                // The first issuer that has the key knows best what is wrong.
                Err(reason) if rejection == Rejection::UnknownKey => rejection = reason,
                Err(_) => {}
            }
        }
        if rejection == Rejection::UnknownKey && self.all.iter().any(|issuer| issuer.lacks(id)) {
            self.missing.notify_one();
        }
        Err(rejection)
    }

    fn believe(&self, claims: &Value, issuer: &Issuer) -> Believed {
        let expires = claims.get("exp").and_then(Value::as_f64).unwrap_or(0.0) as u64;
        let kept = self.wanted.iter().map(|name| (name.clone(), values(claims, name)));
        Believed {
            claimed: Claimed(kept.filter(|(_, values)| !values.is_empty()).collect()),
            until: expires.saturating_add(issuer.validation.leeway),
        }
    }
}

impl Issuer {
    fn new(policy: &JwtIssuer, before: Option<&Issuers>) -> Self {
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.leeway = policy.leeway_millis.map_or(0, |leeway| leeway.get().div_ceil(1000));
        validation.validate_nbf = true;
        validation.set_issuer(&[&policy.issuer]);
        validation.validate_aud = !policy.audiences.is_empty();
        let mut required = vec!["exp", "iss"];
        if validation.validate_aud {
            validation.set_audience(&policy.audiences);
            required.push("aud");
        }
        validation.set_required_spec_claims(&required);
        let known = before.into_iter().flat_map(|before| &before.all);
        let known =
            known.filter(|issuer| issuer.policy.keys == policy.keys).map(|issuer| issuer.keys.load_full());
        let inline = || match &policy.keys {
            JwtKeys::Inline(json) => Arc::new(KeySet::parse(json.as_bytes()).unwrap_or_else(|error| {
                let (issuer, cause) = (&policy.issuer, format!("{error:#}"));
                warn!(issuer, cause, "no token of this issuer is believed: its keys are of no use");
                KeySet::default()
            })),
            JwtKeys::Remote { .. } | JwtKeys::File(_) => Arc::default(),
        };
        let keys = known.last().unwrap_or_else(inline);
        Self { policy: policy.clone(), validation, keys: ArcSwap::new(keys) }
    }

    fn verify(&self, token: &str, id: Option<&str>, algorithm: Algorithm) -> Result<Value, Rejection> {
        if !self.policy.algorithms.iter().any(|allowed| of_policy(*allowed) == algorithm) {
            return Err(Rejection::UnknownKey);
        }
        let validation = Validation { algorithms: vec![algorithm], ..self.validation.clone() };
        let keys = self.keys.load();
        let mut rejection = Rejection::UnknownKey;
        for key in keys.candidates(id, algorithm) {
            match decode::<Map<String, Value>>(token, key, &validation) {
                Ok(data) => return Ok(Value::Object(data.claims)),
                Err(error) => rejection = reason(error.kind()),
            }
        }
        Err(rejection)
    }

    /// Whether its keys are read somewhere and never were.
    pub(super) fn is_unread(&self) -> bool {
        matches!(self.policy.keys, JwtKeys::Remote { .. }) && self.keys.load().is_empty()
    }

    /// Whether its keys are read somewhere and a key of this name is not among them.
    fn lacks(&self, id: Option<&str>) -> bool {
        matches!(self.policy.keys, JwtKeys::Remote { .. }) && !self.keys.load().has(id)
    }
}

fn reason(kind: &ErrorKind) -> Rejection {
    match kind {
        ErrorKind::InvalidSignature | ErrorKind::InvalidAlgorithm => Rejection::BadSignature,
        ErrorKind::ExpiredSignature => Rejection::Expired,
        ErrorKind::ImmatureSignature => Rejection::NotYet,
        ErrorKind::InvalidIssuer | ErrorKind::InvalidAudience => Rejection::NotForUs,
        _ => Rejection::Malformed,
    }
}

const fn of_policy(algorithm: JwtAlgorithm) -> Algorithm {
    match algorithm {
        JwtAlgorithm::RS256 => Algorithm::RS256,
        JwtAlgorithm::RS384 => Algorithm::RS384,
        JwtAlgorithm::RS512 => Algorithm::RS512,
        JwtAlgorithm::PS256 => Algorithm::PS256,
        JwtAlgorithm::PS384 => Algorithm::PS384,
        JwtAlgorithm::PS512 => Algorithm::PS512,
        JwtAlgorithm::ES256 => Algorithm::ES256,
        JwtAlgorithm::ES384 => Algorithm::ES384,
        JwtAlgorithm::EdDSA => Algorithm::EdDSA,
    }
}

fn next_generation() -> u64 {
    GENERATIONS.fetch_add(1, Ordering::Relaxed)
}

/// The claims that keys, conditions and priorities of a document ask for.
fn wanted(document: &PolicyDocument) -> Vec<Box<str>> {
    let limits = document.limits.iter().flat_map(|limit| &limit.key);
    let tenants = document.queue.iter().flat_map(|queue| &queue.tenant);
    let groups = document.breaker.iter().filter_map(|breaker| breaker.per.as_ref()).flat_map(|per| &per.key);
    let keys = limits.chain(tenants).chain(groups).filter_map(|part| match part {
        KeyPart::JwtClaim(claim) => Some(claim.as_str()),
        _ => None,
    });
    let conditions = document.limits.iter().flat_map(|limit| &limit.when);
    let conditions = conditions.filter_map(|condition| match &condition.of {
        Subject::JwtClaim(claim) => Some(claim.as_str()),
        _ => None,
    });
    let priorities = document.priority.from.iter().filter_map(|source| source.jwt_claim.as_deref());
    let mut wanted: Vec<Box<str>> = keys.chain(conditions).chain(priorities).map(Box::from).collect();
    wanted.sort();
    wanted.dedup();
    wanted
}

/// The values of a claim: of a list each, of an object none. A name that begins with a slash is a JSON Pointer (RFC
/// 6901) into nested claims.
fn values(claims: &Value, name: &str) -> Vec<Box<str>> {
    let value = if name.starts_with('/') { claims.pointer(name) } else { claims.get(name) };
    value.map(values_of).unwrap_or_default()
}

/// Of a list each, of an object none.
pub(super) fn values_of(value: &Value) -> Vec<Box<str>> {
    match value {
        Value::Array(all) => all.iter().take(MOST_VALUES).filter_map(scalar).collect(),
        one => scalar(one).into_iter().collect(),
    }
}

fn scalar(value: &Value) -> Option<Box<str>> {
    match value {
        Value::String(text) => Some(text.as_str().into()),
        Value::Number(number) => Some(number.to_string().into()),
        Value::Bool(truth) => Some(truth.to_string().into()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_claim_is_found_by_its_name_or_by_a_pointer_into_nested_ones() {
        let claims = json!({
            "sub": "ann", "https://a/b": 7, "admin": true, "none": null, "a/b": {"m~n": ["x", {}, "y"]},
        });
        for (name, expected) in [
            ("sub", &["ann"][..]),
            ("https://a/b", &["7"]),
            ("/admin", &["true"]),
            ("/a~1b/m~0n", &["x", "y"]),
            ("/a~1b/m~0n/2", &["y"]),
            ("a/b", &[]),
            ("none", &[]),
            ("/missing/too", &[]),
        ] {
            let found = values(&claims, name);
            assert_eq!(found.iter().map(AsRef::as_ref).collect::<Vec<&str>>(), expected, "{name}");
        }
    }
}
