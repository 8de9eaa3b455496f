//! A keyed hash with a proof.
//!
//! Clients choose what is hashed, so nobody without the seed may be able to make two keys collide, neither to spend
//! another's budget nor to flood one bucket. Two steps give just that, whatever the keys are and however many.
//!
//! The first is NH, the compression of UMAC (Black, Halevi, Krawczyk, Krovetz, Rogaway, "UMAC: Fast and Secure Message
//! Authentication", 1999): `Σ (word₂ᵢ + secret₂ᵢ) · (word₂ᵢ₊₁ + secret₂ᵢ₊₁)` modulo 2¹²⁸, where the words are added
//! modulo 2⁶⁴: one multiplication for each sixteen bytes, and none of them waits for another. Two different inputs of
//! the same length have the same sum for at most one in 2⁶⁴ secrets, two of different lengths for at most one in 2⁶³.
//!
//! The second is the vector multiply-shift scheme (Dietzfelbinger 1996; Thorup, "High Speed Hashing for Integers and
//! Strings", 2015), twice, on the two halves of the sum: the upper half of `a·high + b·low + c` modulo 2¹²⁸ is strongly
//! universal. So two different sums have two independent, evenly spread hashes of 64 bits each. The first of them picks
//! the bucket, and is mixed once more, one to one, so that neighbouring inputs do not lie at equal distances.
//!
//! Together: of n keys any two are taken for one with a probability of at most n² ÷ 2⁶⁴, which is one in a million for
//! four millions of them, and less than the chance to guess the seed by trying as often.
//!
//! There are secrets for so many words; what is longer is first made short by two polynomials modulo the prime
//! 2⁶¹ − 1, at two secret points (Carter and Wegman 1979): of n more words at most 2n of the 2⁶¹ points make two
//! inputs equal.

use std::sync::Arc;

use crate::spread::split_mix;

/// Pairs of words that have secrets of their own: half a kilobyte.
const PAIRS: usize = 32;
const PRIME: u64 = (1 << 61) - 1;

/// What the hash is keyed with. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Hasher(Arc<Secrets>);

struct Secrets {
    pairs: [[u64; 2]; PAIRS],
    /// For the two polynomials of what is beyond them.
    rest: [u64; 2],
    /// Factors of the upper and the lower half of the sum, and what is added, for each of two hashes.
    ends: [[u128; 3]; 2],
    points: [u64; 2],
}

/// A hash on its way. Handed on by value, so that it can stay in registers.
#[derive(Clone, Copy)]
pub(crate) struct Hashing<'a> {
    secrets: &'a Secrets,
    /// Secrets that were not used yet.
    pairs: &'a [[u64; 2]],
    sum: u128,
    /// Of the words beyond those that have secrets; none so far.
    rest: Option<[u64; 2]>,
}

impl std::fmt::Debug for Hasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hasher").finish_non_exhaustive()
    }
}

impl Hasher {
    pub(crate) fn new(seed: u64) -> Self {
        let mut n = 0;
        let mut next = || {
            n += 1;
            split_mix(seed ^ split_mix(n))
        };
        let points = [next(), next()].map(|point| point % (PRIME - 1) + 1);
        let pairs = std::array::from_fn(|_| [next(), next()]);
        let rest = [next(), next()];
        let mut wide = || u128::from(next()) << 64 | u128::from(next());
        let ends = std::array::from_fn(|_| [wide(), wide(), wide()]);
        Self(Arc::new(Secrets { pairs, rest, ends, points }))
    }

    /// The hash of nothing yet.
    #[inline]
    pub(crate) fn begin(&self) -> Hashing<'_> {
        Hashing { secrets: &self.0, pairs: &self.0.pairs, sum: 0, rest: None }
    }
}

impl Hashing<'_> {
    /// Adds a string. Its length goes first, so that ("ab", "c") and ("a", "bc") are two inputs; and as one more than
    /// it is, so that the empty string is another input than none.
    #[inline]
    pub(crate) fn write(mut self, bytes: &[u8]) -> Self {
        let length = bytes.len() as u64 + 1;
        // Some bytes for the second time.
        if let (Some(first), Some(last), 16..=24) = (bytes.first_chunk(), bytes.last_chunk(), bytes.len())
            && let Some(([one, other], behind)) = self.pairs.split_first_chunk()
        {
            self.pairs = behind;
            self.multiply(*one, [length, u64::from_le_bytes(*first)]);
            self.multiply(*other, halves(u128::from_le_bytes(*last)));
            return self;
        }
        self.write_any(bytes)
    }

    /// The same for a string of any length.
    #[inline(never)]
    fn write_any(mut self, bytes: &[u8]) -> Self {
        let length = bytes.len() as u64 + 1;
        let Some((first, mut rest)) = bytes.split_first_chunk() else {
            self.add([length, short(bytes)]);
            return self;
        };
        self.add([length, u64::from_le_bytes(*first)]);
        while rest.len() > 16 {
            let Some((sixteen, behind)) = rest.split_first_chunk() else { break };
            self.add(halves(u128::from_le_bytes(*sixteen)));
            rest = behind;
        }
        match (rest, bytes.last_chunk(), bytes.last_chunk()) {
            ([], ..) => {}
            (_, Some(sixteen), _) => self.add(halves(u128::from_le_bytes(*sixteen))),
            (_, None, eight) => self.add([eight.map_or(0, |eight| u64::from_le_bytes(*eight)), 0]),
        }
        self
    }

    /// Adds a number, of the same size in all inputs that are told apart.
    #[inline]
    pub(crate) fn write_number(mut self, number: u128) -> Self {
        self.add(halves(number));
        self
    }

    /// Two hashes of everything that was added.
    #[inline]
    pub(crate) fn finish(mut self) -> [u64; 2] {
        if let Some(rest) = self.rest {
            self.multiply(self.secrets.rest, rest);
        }
        let [low, high] = halves(self.sum).map(u128::from);
        let [one, other] = self.secrets.ends.map(|[a, b, c]| {
            let sum = a.wrapping_mul(high).wrapping_add(b.wrapping_mul(low)).wrapping_add(c);
            (sum >> 64) as u64
        });
        [mixed(one), other]
    }

    #[inline]
    fn add(&mut self, words: [u64; 2]) {
        if let Some((secrets, behind)) = self.pairs.split_first() {
            self.pairs = behind;
            self.multiply(*secrets, words);
        } else {
            *self = self.add_beyond(words);
        }
    }

    #[inline]
    fn multiply(&mut self, secrets: [u64; 2], words: [u64; 2]) {
        let [one, other] = [0, 1].map(|i| u128::from(words[i].wrapping_add(secrets[i])));
        self.sum = self.sum.wrapping_add(one * other);
    }

    #[cold]
    #[inline(never)]
    fn add_beyond(mut self, words: [u64; 2]) -> Self {
        // The rest begins with one, so that words of zero count too.
        let mut rest = self.rest.unwrap_or([1, 1]);
        for word in words {
            self.add_to_rest(&mut rest, word & u64::from(u32::MAX));
            self.add_to_rest(&mut rest, word >> 32);
        }
        self.rest = Some(rest);
        self
    }

    fn add_to_rest(&self, rest: &mut [u64; 2], word: u64) {
        for (sum, point) in rest.iter_mut().zip(self.secrets.points) {
            let product = u128::from(*sum) * u128::from(point) + u128::from(word);
            // 2⁶¹ is one, modulo the prime.
            let folded = (product as u64 & PRIME) + (product >> 61) as u64;
            *sum = if folded >= PRIME { folded - PRIME } else { folded };
        }
    }
}

/// The lower half, then the upper one.
#[inline]
fn halves(number: u128) -> [u64; 2] {
    [number as u64, (number >> 64) as u64]
}

/// One to one: what is evenly spread stays so. But sums of neighbouring inputs are at equal distances, and of those
/// nobody should say that they look like chance.
#[inline]
fn mixed(hash: u64) -> u64 {
    let hash = (hash ^ hash >> 32).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    hash ^ hash >> 32
}

/// Up to seven bytes as a word: with their number they are known from it.
#[inline]
fn short(bytes: &[u8]) -> u64 {
    match (bytes.first_chunk(), bytes.last_chunk()) {
        (Some(first), Some(last)) => {
            u64::from(u32::from_le_bytes(*first)) | u64::from(u32::from_le_bytes(*last)) << 32
        }
        _ => bytes.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)),
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    fn hash(seed: u64, parts: &[&[u8]]) -> [u64; 2] {
        let hasher = Hasher::new(seed);
        let mut hashing = hasher.begin();
        for part in parts {
            hashing = hashing.write(part);
        }
        hashing.finish()
    }

    #[test]
    fn a_polynomial_is_that_of_wide_integers() {
        let hasher = Hasher::new(3);
        for word in [0, 1, u64::from(u32::MAX)] {
            let (hashing, mut rest) = (hasher.begin(), [PRIME - 1; 2]);
            let mut expected = rest.map(u128::from);
            for _ in 0..1000 {
                hashing.add_to_rest(&mut rest, word);
                for (sum, point) in expected.iter_mut().zip(hasher.0.points) {
                    *sum = (*sum * u128::from(point) + u128::from(word)) % u128::from(PRIME);
                }
                assert_eq!(rest.map(u128::from), expected);
            }
        }
    }

    #[test]
    fn neighbouring_keys_spread_over_buckets() {
        for shift in [0, 20, 57] {
            let mut buckets = [0u32; 128];
            for n in 0..12_800 {
                let key = format!("sk-user-{n:06}");
                buckets[(hash(7, &[key.as_bytes()])[0] >> shift) as usize % 128] += 1;
            }
            assert!(buckets.iter().all(|n| (30..230).contains(n)), "{buckets:?}");
        }
    }

    #[test]
    fn strings_of_zeroes_differ_by_their_length() {
        let hashes: HashSet<_> = (0..2000).map(|n| hash(1, &[&vec![0; n]])).collect();
        assert_eq!(hashes.len(), 2000);
    }

    #[test]
    fn every_byte_of_a_string_counts_however_long_it_is() {
        for length in (0..40).chain(500..530).chain([5000]) {
            let string = vec![7; length];
            let mut hashes = HashSet::from([hash(1, &[&string])]);
            for i in 0..length {
                let mut other = string.clone();
                other[i] = 8;
                assert!(hashes.insert(hash(1, &[&other])), "byte {i} of {length}");
            }
        }
    }

    proptest! {
        #[test]
        fn different_inputs_have_different_hashes(
            seed in any::<u64>(),
            one in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..20), 0..4),
            other in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..20), 0..4),
        ) {
            let of = |parts: &[Vec<u8>]| hash(seed, &parts.iter().map(Vec::as_slice).collect::<Vec<_>>());
            prop_assert_eq!(one == other, of(&one) == of(&other));
            prop_assert_eq!(one == other, of(&one)[1] == of(&other)[1]);
        }
    }
}
