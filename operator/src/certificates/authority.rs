//! The life of the certificate authority.
//!
//! ```text
//! created ── 2/3 of its life ──▶ a next one is made; the bundle holds both, the old one signs
//!                                 └─ overlap over ──▶ the next one signs; the old one stays in the bundle until it expires
//! ```
//!
//! The overlap is longer than the kubelet needs to bring a changed `ConfigMap` into every pod, so that at no time
//! a server shows a certificate that its clients cannot check.

use std::time::Duration;

use super::pair::{Pair, Seconds, validity_of};

/// How long things live.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lifetimes {
    /// Of an authority.
    pub(crate) authority: Duration,
    /// Of a serving certificate.
    pub(crate) serving: Duration,
    /// How long the next authority is announced before it signs.
    pub(crate) overlap: Duration,
}

impl Default for Lifetimes {
    fn default() -> Self {
        Self {
            authority: Duration::from_hours(3 * 365 * 24),
            serving: Duration::from_hours(90 * 24),
            overlap: Duration::from_hours(24),
        }
    }
}

/// What the Secret of the authority holds.
#[derive(Clone, PartialEq, Eq, Default)]
pub(crate) struct Authority {
    /// Signs.
    pub(crate) current: Option<Pair>,
    /// Will sign.
    pub(crate) next: Option<Pair>,
    /// Certificates (PEM) that signed and have not expired.
    pub(crate) previous: Vec<String>,
}

impl Authority {
    /// What it must be at this time. Equal to `self` when nothing is due. Authorities are made here, unless somebody
    /// else makes them: then `source` is the newest of theirs.
    pub(crate) fn advance(
        &self,
        now: Seconds,
        lifetimes: &Lifetimes,
        source: Option<&Pair>,
    ) -> Result<Self, rcgen::Error> {
        let make = || source.cloned().map_or_else(|| Pair::new_authority(now, lifetimes.authority), Ok);
        let mut then = self.clone();
        then.previous.retain(|pem| validity_of(pem).is_some_and(|validity| now < validity.until));
        then.next = then.next.filter(|pair| pair.validity().is_some_and(|validity| now < validity.until));
        // A current one that cannot be used is replaced at once: whatever it signed is of no use either.
        then.current = then.current.filter(|pair| pair.validity().is_some_and(|v| now < v.until));
        let Some(current) = then.current.clone() else {
            let replacement = match then.next.take() {
                Some(next) => next,
                None => make()?,
            };
            then.current = Some(replacement);
            return Ok(then);
        };
        match then.next.take() {
            Some(next) if is_announced(&next, now, lifetimes.overlap) => {
                then.previous.insert(0, current.certificate);
                then.current = Some(next);
            }
            Some(next) => then.next = Some(next),
            None => {
                let due = match source {
                    Some(pair) => *pair != current,
                    None => current.validity().is_some_and(|validity| validity.is_due(now)),
                };
                then.next = due.then(make).transpose()?;
            }
        }
        Ok(then)
    }

    /// Everything that clients trust, PEM.
    pub(crate) fn bundle(&self) -> String {
        let pairs = self.current.iter().chain(&self.next).map(|pair| pair.certificate.as_str());
        let all = pairs.chain(self.previous.iter().map(String::as_str));
        all.flat_map(|pem| [pem.trim_end(), "\n"]).collect()
    }
}

fn is_announced(next: &Pair, now: Seconds, overlap: Duration) -> bool {
    let overlap = i64::try_from(overlap.as_secs()).unwrap_or(i64::MAX);
    next.validity().is_some_and(|validity| now.saturating_sub(validity.from) >= overlap)
}
