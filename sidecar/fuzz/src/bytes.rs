//! Choices out of bytes.

/// A source of choices that ends; after its end every choice is the first.
#[derive(Debug)]
pub(crate) struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }

    /// Less than `n`.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        usize::from(self.byte()) % n.max(1)
    }

    /// Any number, small ones and the largest more often than others.
    pub(crate) fn number(&mut self) -> u64 {
        match self.byte() {
            byte @ 0..=199 => u64::from(byte),
            200..=219 => u64::from(self.byte()) << 20,
            220..=239 => u64::from(self.byte()) << 40,
            240..=250 => u64::from(self.byte()) << 56,
            _ => u64::MAX,
        }
    }
}
