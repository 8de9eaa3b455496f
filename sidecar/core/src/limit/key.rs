//! What requests are counted by, as 128 bits.

use std::net::IpAddr;

use tidegate_policy::{HeaderName, KeyPart};

use super::hash::{Hasher, Hashing};
use crate::Facts;

/// A key of one rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key {
    /// Picks the bucket.
    pub(crate) place: u64,
    /// Tells the keys of a bucket apart.
    pub(crate) tag: u64,
}

impl Key {
    /// The hash of one string, or of none, which is another than the empty string's.
    pub(crate) fn of_bytes(bytes: Option<&[u8]>, hasher: &Hasher) -> Self {
        let hashing = hasher.begin();
        Self::from(match bytes {
            Some(bytes) => hashing.write(bytes),
            None => hashing,
        })
    }

    fn from(hashing: Hashing<'_>) -> Self {
        let [place, tag] = hashing.finish();
        Self { place, tag }
    }

    /// The hash of the parts in their order. A part that the request lacks counts as empty.
    #[inline]
    pub(crate) fn of(parts: &[KeyPart], hasher: &Hasher, facts: &Facts<'_>) -> Self {
        // Most keys are one of these two, and need no walk over parts.
        match parts {
            [KeyPart::Header(name)] => Self::from(hasher.begin().write(header(name, facts))),
            [KeyPart::ClientIp] => Self::from(hasher.begin().write_number(number(facts.client))),
            _ => Self::of_any(parts, hasher, facts),
        }
    }

    #[inline(never)]
    fn of_any(parts: &[KeyPart], hasher: &Hasher, facts: &Facts<'_>) -> Self {
        Self::from(parts.iter().fold(hasher.begin(), |hashing, part| match part {
            KeyPart::Header(name) => hashing.write(header(name, facts)),
            KeyPart::Method => hashing.write(facts.method.as_bytes()),
            KeyPart::Path => hashing.write(facts.path.as_bytes()),
            KeyPart::Model => hashing.write(facts.model.unwrap_or_default().as_bytes()),
            KeyPart::ClientIp => hashing.write_number(number(facts.client)),
            KeyPart::JwtClaim(claim) => write_all(hashing, facts.claims.values(claim)),
        }))
    }
}

#[inline]
fn header<'a>(name: &HeaderName, facts: &Facts<'a>) -> &'a [u8] {
    facts.headers.get(name.as_str()).unwrap_or_default()
}

fn write_all<'a>(hashing: Hashing<'a>, values: &[Box<str>]) -> Hashing<'a> {
    let hashing = hashing.write_number(values.len() as u128);
    values.iter().fold(hashing, |hashing, value| hashing.write(value.as_bytes()))
}

/// An IPv4 client is the same client when it comes over an IPv6 socket.
fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => 0xFFFF_0000_0000 | u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use crate::testing::Request;

    fn header(name: &str) -> KeyPart {
        KeyPart::Header(HeaderName::new(name).unwrap())
    }

    #[test]
    fn parts_cannot_be_shifted_into_each_other() {
        let parts = [header("a"), header("b")];
        let one = Request::from("10.0.0.1").with("a", "xy").with("b", "z");
        let two = Request::from("10.0.0.1").with("a", "x").with("b", "yz");
        assert_ne!(
            Key::of(&parts, &Hasher::new(1), &one.facts()),
            Key::of(&parts, &Hasher::new(1), &two.facts())
        );
    }

    #[test]
    fn a_missing_part_counts_as_empty() {
        let parts = [header("a")];
        let missing = Request::from("10.0.0.1");
        let empty = Request::from("10.0.0.1").with("a", "");
        assert_eq!(
            Key::of(&parts, &Hasher::new(1), &missing.facts()),
            Key::of(&parts, &Hasher::new(1), &empty.facts())
        );
    }

    #[test]
    fn a_client_is_one_key_over_either_family_of_sockets() {
        let parts = [KeyPart::ClientIp];
        let v4 = Request::from("10.0.0.1");
        let mapped = Request::from("::ffff:10.0.0.1");
        let other = Request::from("10.0.0.2");
        assert_eq!(
            Key::of(&parts, &Hasher::new(1), &v4.facts()),
            Key::of(&parts, &Hasher::new(1), &mapped.facts())
        );
        assert_ne!(
            Key::of(&parts, &Hasher::new(1), &v4.facts()),
            Key::of(&parts, &Hasher::new(1), &other.facts())
        );
    }

    #[test]
    fn a_claim_counts_by_all_its_values() {
        let parts = [KeyPart::JwtClaim("groups".to_owned())];
        let key = |values: &[&str]| {
            Key::of(&parts, &Hasher::new(1), &Request::from("10.0.0.1").claiming("groups", values).facts())
        };
        assert_eq!(key(&["a", "b"]), key(&["a", "b"]));
        assert_ne!(key(&["a", "b"]), key(&["ab"]));
        assert_ne!(key(&["a", ""]), key(&["a"]));
        assert_eq!(key(&[]), Key::of(&parts, &Hasher::new(1), &Request::from("10.0.0.1").facts()));
    }

    #[test]
    fn another_seed_is_another_hash() {
        let parts = [KeyPart::ClientIp];
        let request = Request::from("10.0.0.1");
        assert_ne!(
            Key::of(&parts, &Hasher::new(1), &request.facts()),
            Key::of(&parts, &Hasher::new(2), &request.facts())
        );
    }
}
