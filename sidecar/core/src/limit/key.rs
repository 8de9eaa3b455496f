//! What requests are counted by, as 128 bits.

use std::net::IpAddr;

use siphasher::sip128::{Hasher128, SipHasher13};
use std::hash::Hasher as _;
use tidegate_policy::KeyPart;

use crate::Facts;

/// A key of one rule. The client chooses what is hashed, so the hash is keyed (`SipHash` 1-3): without the seed
/// nobody can make two keys collide, neither to spend another's budget nor to flood one bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key {
    /// Picks the bucket.
    pub(crate) place: u64,
    /// Tells the keys of a bucket apart.
    pub(crate) tag: u64,
}

impl Key {
    /// The hash of the parts in their order. A part that the request lacks counts as empty.
    pub(crate) fn of(parts: &[KeyPart], seed: u64, facts: &Facts<'_>) -> Self {
        let mut hasher = SipHasher13::new_with_keys(seed, !seed);
        let hash = match parts {
            // All requests count together.
            [] => return Self { place: 0, tag: 1 },
            [part] => with_bytes(part, facts, |bytes| hasher.hash(bytes)),
            parts => {
                for part in parts {
                    // The length goes first, so that ("ab", "c") and ("a", "bc") are two keys.
                    with_bytes(part, facts, |bytes| {
                        hasher.write_u64(bytes.len() as u64);
                        hasher.write(bytes);
                    });
                }
                hasher.finish128()
            }
        };
        Self { place: hash.h1, tag: hash.h2 }
    }
}

fn with_bytes<R>(part: &KeyPart, facts: &Facts<'_>, act: impl FnOnce(&[u8]) -> R) -> R {
    match part {
        KeyPart::Header(name) => act(facts.headers.get(name.as_str()).unwrap_or_default()),
        KeyPart::Path => act(facts.path.as_bytes()),
        KeyPart::ClientIp => act(&octets(facts.client)),
    }
}

/// An IPv4 client is the same client when it comes over an IPv6 socket.
fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use crate::testing::Request;
    use tidegate_policy::HeaderName;

    fn header(name: &str) -> KeyPart {
        KeyPart::Header(HeaderName::new(name).unwrap())
    }

    #[test]
    fn parts_cannot_be_shifted_into_each_other() {
        let parts = [header("a"), header("b")];
        let one = Request::from("10.0.0.1").with("a", "xy").with("b", "z");
        let two = Request::from("10.0.0.1").with("a", "x").with("b", "yz");
        assert_ne!(Key::of(&parts, 1, &one.facts()), Key::of(&parts, 1, &two.facts()));
    }

    #[test]
    fn a_missing_part_counts_as_empty() {
        let parts = [header("a")];
        let missing = Request::from("10.0.0.1");
        let empty = Request::from("10.0.0.1").with("a", "");
        assert_eq!(Key::of(&parts, 1, &missing.facts()), Key::of(&parts, 1, &empty.facts()));
    }

    #[test]
    fn a_client_is_one_key_over_either_family_of_sockets() {
        let parts = [KeyPart::ClientIp];
        let v4 = Request::from("10.0.0.1");
        let mapped = Request::from("::ffff:10.0.0.1");
        let other = Request::from("10.0.0.2");
        assert_eq!(Key::of(&parts, 1, &v4.facts()), Key::of(&parts, 1, &mapped.facts()));
        assert_ne!(Key::of(&parts, 1, &v4.facts()), Key::of(&parts, 1, &other.facts()));
    }

    #[test]
    fn another_seed_is_another_hash() {
        let parts = [KeyPart::ClientIp];
        let request = Request::from("10.0.0.1");
        assert_ne!(Key::of(&parts, 1, &request.facts()), Key::of(&parts, 2, &request.facts()));
    }
}
