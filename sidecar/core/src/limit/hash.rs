//! A keyed hash with a proof.
//!
//! Clients choose what is hashed, so nobody without the seed may be able to make two keys collide, neither to spend
//! another's budget nor to flood one bucket. The vector multiply-shift scheme (Dietzfelbinger 1996; Thorup, "High
//! Speed Hashing for Integers and Strings", 2015) gives just that, with one multiplication for each eight bytes and
//! none of them waiting for another: the upper half of `b + Σ aᵢ·wordᵢ` modulo 2¹²⁸ is strongly universal, so that any
//! two different inputs have two independent, evenly spread hashes of 64 bits. Two such sums make 128 bits.
//!
//! There are secrets for so many words; what is longer is first made short by two polynomials modulo the prime
//! 2⁶¹ − 1, at two secret points (Carter and Wegman 1979): of n more words at most 2n of the 2⁶¹ points make two
//! inputs equal.

use std::sync::Arc;

use crate::spread::split_mix;

/// Words that have secrets of their own: half a kilobyte.
const WORDS: usize = 64;
const PRIME: u64 = (1 << 61) - 1;

/// What the hash is keyed with. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Hasher(Arc<Secrets>);

struct Secrets {
    /// One row for each word, and two for what is beyond them.
    rows: [[u128; 2]; WORDS + 2],
    begin: [u128; 2],
    points: [u64; 2],
}

/// A hash on its way.
#[derive(Clone, Copy)]
pub(crate) struct Hashing<'a> {
    secrets: &'a Secrets,
    /// Words so far.
    words: usize,
    sums: [u128; 2],
    /// Of the words beyond those that have secrets.
    rest: [u64; 2],
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
        let mut wide = || u128::from(next()) << 64 | u128::from(next());
        let begin = [wide(), wide()];
        Self(Arc::new(Secrets { rows: std::array::from_fn(|_| [wide(), wide()]), begin, points }))
    }

    /// The hash of nothing yet.
    #[inline]
    pub(crate) fn begin(&self) -> Hashing<'_> {
        // The rest begins with one, so that words of zero count too.
        Hashing { secrets: &self.0, words: 0, sums: self.0.begin, rest: [1, 1] }
    }
}

impl Hashing<'_> {
    /// Adds a string. Its length goes first, so that ("ab", "c") and ("a", "bc") are two inputs; and as one more than
    /// it is, since a word of zero is as good as none.
    #[inline]
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.add(bytes.len() as u64 + 1);
        let (words, rest) = bytes.as_chunks();
        for word in words {
            self.add(u64::from_le_bytes(*word));
        }
        match (bytes.last_chunk(), rest) {
            (_, []) => {}
            // Some bytes for the second time.
            (Some(last), _) => self.add(u64::from_le_bytes(*last)),
            (None, rest) => self.add(short(rest)),
        }
    }

    /// Adds a number, of the same size in all inputs that are told apart.
    #[inline]
    pub(crate) fn write_number(&mut self, number: u128) {
        self.add(number as u64);
        self.add((number >> 64) as u64);
    }

    /// Two hashes of everything that was added.
    #[inline]
    pub(crate) fn finish(mut self) -> [u64; 2] {
        if self.words > WORDS {
            self.take_row(WORDS, self.rest[0]);
            self.take_row(WORDS + 1, self.rest[1]);
        }
        self.sums.map(|sum| (sum >> 64) as u64)
    }

    #[inline]
    fn add(&mut self, word: u64) {
        if self.words < WORDS {
            self.take_row(self.words, word);
        } else {
            self.add_to_rest(word & u64::from(u32::MAX));
            self.add_to_rest(word >> 32);
        }
        self.words += 1;
    }

    #[inline]
    fn take_row(&mut self, row: usize, word: u64) {
        for (sum, secret) in self.sums.iter_mut().zip(self.secrets.rows[row]) {
            *sum = sum.wrapping_add(secret.wrapping_mul(u128::from(word)));
        }
    }

    fn add_to_rest(&mut self, word: u64) {
        for (sum, point) in self.rest.iter_mut().zip(self.secrets.points) {
            let product = u128::from(*sum) * u128::from(point) + u128::from(word);
            // 2⁶¹ is one, modulo the prime.
            let folded = (product as u64 & PRIME) + (product >> 61) as u64;
            *sum = if folded >= PRIME { folded - PRIME } else { folded };
        }
    }
}

/// One to seven bytes as a word: with their number they are known from it.
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
            hashing.write(part);
        }
        hashing.finish()
    }

    #[test]
    fn a_polynomial_is_that_of_wide_integers() {
        let hasher = Hasher::new(3);
        for word in [0, 1, u64::from(u32::MAX)] {
            let mut hashing = Hashing { rest: [PRIME - 1; 2], ..hasher.begin() };
            let mut expected = hashing.rest.map(u128::from);
            for _ in 0..1000 {
                hashing.add_to_rest(word);
                for (sum, point) in expected.iter_mut().zip(hasher.0.points) {
                    *sum = (*sum * u128::from(point) + u128::from(word)) % u128::from(PRIME);
                }
                assert_eq!(hashing.rest.map(u128::from), expected);
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
