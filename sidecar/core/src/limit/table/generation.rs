//! Where keys lie: buckets in one piece of memory.

use super::{WAYS, tag_of};
use crate::limit::key::Key;
use crate::sync::{AtomicU64, Ordering};

/// Words of a cache line.
const LINE: usize = 8;

/// How a key lies in memory: its tag, its state, and what is left free so that it ends with a cache line.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    /// Words of state.
    words: usize,
    /// Words from one key to the next.
    pub(super) stride: usize,
    /// Keys in a cache line, less one.
    neighbours: u32,
}

/// So many buckets.
pub(super) struct Generation {
    pub(super) buckets: u32,
    words: Box<[AtomicU64]>,
    /// Where the first cache line begins.
    start: usize,
}

/// Memory that is the system's until somebody writes to it.
#[cfg(not(loom))]
pub(super) fn zeroes(n: usize) -> Box<[AtomicU64]> {
    use zerocopy::FromZeros;
    let lazy = <[AtomicU64]>::new_box_zeroed_with_elems(n);
    // Only a size that no memory holds is refused.
    lazy.unwrap_or_else(|_| (0..n).map(|_| AtomicU64::new(0)).collect())
}
#[cfg(loom)]
pub(super) fn zeroes(n: usize) -> Box<[AtomicU64]> {
    (0..n).map(|_| AtomicU64::new(0)).collect()
}

impl Layout {
    pub(super) fn new(words: usize) -> Self {
        let entry = words + 1;
        let stride = if entry > LINE { entry.next_multiple_of(LINE) } else { entry.next_power_of_two() };
        Self { words, stride, neighbours: (LINE / stride).max(1) as u32 - 1 }
    }

    /// The ways of a bucket in the order in which a key looks for itself: its home line first.
    #[inline]
    pub(super) fn ways(self, bucket: u32, key: Key) -> impl Iterator<Item = u32> + Clone {
        let home = key.place as u32 & !self.neighbours;
        (0..WAYS as u32).map(move |n| bucket * WAYS as u32 + (home.wrapping_add(n) & (WAYS as u32 - 1)))
    }
}

impl Generation {
    pub(super) fn new(buckets: u32, layout: Layout) -> Self {
        let words = zeroes(buckets as usize * WAYS * layout.stride + LINE - 1);
        // Where lines cannot be had, keys lie across them.
        let start = words.as_ptr().align_offset(8 * LINE).min(LINE - 1);
        Self { buckets, words, start }
    }

    /// The bucket of a key, by the upper bits of its hash turned so far.
    #[inline]
    pub(super) fn bucket(&self, key: Key, turn: u32) -> u32 {
        ((u128::from(key.place.rotate_left(turn)) * u128::from(self.buckets)) >> 64) as u32
    }

    /// The tag and the state of a way.
    #[inline]
    pub(super) fn entry(&self, layout: Layout, way: u32) -> Option<(&AtomicU64, &[AtomicU64])> {
        let at = self.start + way as usize * layout.stride;
        self.words.get(at..=at + layout.words)?.split_first()
    }

    #[inline]
    pub(super) fn tag(&self, layout: Layout, way: u32) -> &AtomicU64 {
        &self.words[self.start + way as usize * layout.stride]
    }

    #[inline]
    pub(super) fn find(&self, layout: Layout, key: Key, turn: u32) -> Option<u32> {
        let tag = tag_of(key);
        let mut ways = layout.ways(self.bucket(key, turn), key);
        ways.find(|way| self.tag(layout, *way).load(Ordering::SeqCst) == tag)
    }
}
