//! Verdicts on tokens, kept by each thread for itself: a signature costs as much as a whole request.
//!
//! Rejections are kept too, so that one bad token sent again and again costs no more than a good one. What is kept
//! is a hash of the token (SHA-256, so that nobody can make two tokens share a verdict), never the token.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::SystemTime;

use quick_cache::unsync::Cache;
use ring::digest::{SHA256, digest};
use tidegate_core::Claims;

use super::issuers::{Believed, Issuers, Rejection};
use crate::metrics::Identity;

/// Tokens that a thread keeps a verdict on.
const CAPACITY: usize = 4096;

type Digest = [u8; 32];
/// What became of a token.
type Judged = Arc<Result<Believed, Rejection>>;

/// The claims of a believed token.
#[derive(Debug)]
pub(super) struct Verdict(Judged);

struct Kept {
    generation: u64,
    verdicts: Cache<Digest, Judged>,
}

thread_local! {
    static KEPT: RefCell<Kept> = RefCell::new(Kept { generation: 0, verdicts: Cache::new(CAPACITY) });
}

impl Verdict {
    pub(super) fn is_believed(&self) -> bool {
        self.0.is_ok()
    }
}

impl Claims for Verdict {
    fn values(&self, claim: &str) -> &[Box<str>] {
        self.0.as_ref().as_ref().map_or(&[], |believed| believed.claimed.values(claim))
    }
}

pub(super) fn look_up(issuers: &Issuers, token: &str, metrics: &Identity) -> Verdict {
    let hash = digest(&SHA256, token.as_bytes());
    // A digest of SHA-256 has 32 bytes.
    let hash: Digest = hash.as_ref().try_into().unwrap_or_default();
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs();
    KEPT.with_borrow_mut(|kept| {
        let generation = issuers.generation();
        if kept.generation != generation {
            kept.verdicts.clear();
            kept.generation = generation;
        }
        if let Some(judged) = kept.verdicts.get(&hash) {
            match judged.as_ref() {
                Ok(believed) if now > believed.until => {}
                _ => {
                    metrics.judged("cached");
                    return Verdict(Arc::clone(judged));
                }
            }
        }
        let judged = Arc::new(issuers.verify(token));
        metrics.judged(judged.as_ref().as_ref().map_or_else(|rejection| rejection.as_str(), |_| "verified"));
        // Its time may come, and its key may become known; neither costs a signature until then.
        if !matches!(judged.as_ref(), Err(Rejection::NotYet | Rejection::UnknownKey)) {
            kept.verdicts.insert(hash, Arc::clone(&judged));
        }
        Verdict(judged)
    })
}
