//! API keys: a folder with one entry for each, as the kubelet mounts a Secret.
//!
//! An entry is a key as it is, or a JSON object with the key, or with its SHA-256, and what is said of its client. That
//! is asked for as claims of tokens are: the policy that gives a tenant its limit and a tier its class holds for both.
//!
//! No key is kept, compared or told. What is kept is a tag of its hash under a secret of this process: how long a look-up
//! takes tells nothing about a key, since nobody outside can say which tags are near each other.

mod entry;
mod folder;

use std::collections::HashMap;
use std::sync::Arc;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName};
use ring::digest::{SHA256, digest};
use ring::hmac;
use ring::rand::SystemRandom;

use super::{Claimed, bearer_of};
use entry::{Digest, LONGEST_KEY};

pub use folder::follow;

/// Values of one field that are looked at.
const MOST_VALUES: usize = 4;

/// The keys that are known.
#[derive(Debug, Default)]
pub struct ApiKeys {
    /// None without keys.
    secret: Option<hmac::Key>,
    known: HashMap<Digest, Arc<Claimed>>,
}

/// Where a policy looks for keys.
#[derive(Debug)]
pub(super) struct Place {
    headers: Vec<HeaderName>,
    pub(super) required: bool,
    pub(super) strips: bool,
}

/// What becomes of the keys of a request.
pub(super) enum Found {
    Known(Arc<Claimed>),
    Unknown,
    None,
}

impl ApiKeys {
    /// Of these keys.
    fn new(keys: impl IntoIterator<Item = (Digest, Claimed)>) -> anyhow::Result<Self> {
        let random = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new());
        let secret = random.map_err(|_| anyhow::anyhow!("the system has no random numbers"))?;
        let known = keys.into_iter().map(|(digest, client)| (tag(&secret, &digest), Arc::new(client)));
        Ok(Self { known: known.collect(), secret: Some(secret) })
    }

    /// How many are known.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Whose key this is.
    fn client(&self, key: &[u8]) -> Option<&Arc<Claimed>> {
        let secret = self.secret.as_ref().filter(|_| key.len() <= LONGEST_KEY)?;
        self.known.get(&tag(secret, &hashed(key)))
    }
}

impl Place {
    pub(super) fn new(policy: &tidegate_policy::ApiKeys) -> Self {
        let names = policy.headers.iter().filter_map(|name| name.as_str().parse().ok());
        Self { headers: names.collect(), required: policy.required, strips: policy.strip_headers }
    }

    /// The first key of a request that is known.
    pub(super) fn look_up(&self, keys: &ApiKeys, headers: &HeaderMap) -> Found {
        let mut found = Found::None;
        for name in &self.headers {
            for value in headers.get_all(name).iter().take(MOST_VALUES) {
                let key = if *name == AUTHORIZATION {
                    bearer_of(value).map(str::as_bytes)
                } else {
                    Some(value.as_bytes().trim_ascii())
                };
                let Some(key) = key.filter(|key| !key.is_empty()) else { continue };
                if let Some(client) = keys.client(key) {
                    return Found::Known(Arc::clone(client));
                }
                found = Found::Unknown;
            }
        }
        found
    }

    /// Takes the fields out in which keys are.
    pub(super) fn remove_from(&self, headers: &mut HeaderMap) {
        for name in &self.headers {
            headers.remove(name);
        }
    }
}

fn hashed(key: &[u8]) -> Digest {
    // A digest of SHA-256 has 32 bytes.
    digest(&SHA256, key).as_ref().try_into().unwrap_or_default()
}

fn tag(secret: &hmac::Key, digest: &Digest) -> Digest {
    hmac::sign(secret, digest).as_ref().try_into().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_a_key_nor_its_hash_is_kept() {
        let digest = hashed(b"sk-0123456789abcdef");
        let keys = ApiKeys::new([(digest, Claimed::default())]).unwrap();
        assert!(
            keys.client(b"sk-0123456789abcdef").is_some() && keys.client(b"sk-0123456789abcdeg").is_none()
        );
        assert!(!keys.known.contains_key(&digest));
        let told = format!("{keys:?}");
        assert!(!told.contains("sk-0") && !told.contains(&format!("{digest:?}")), "{told}");
        assert!(ApiKeys::default().client(b"").is_none());
    }
}
