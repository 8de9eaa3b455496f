//! Where keys lie: buckets in one piece of memory.

use super::{EMPTY, WAYS, tag_of};
use crate::limit::key::Key;
use crate::sync::{AtomicU64, Ordering};

/// Words of a cache line.
const LINE: usize = 8;

/// How a key lies in memory: its tag, its state, and what is left free so that it ends with a cache line.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    /// Words of the tag and the state.
    entry: usize,
    /// Words from one key to the next.
    pub(super) stride: usize,
}

/// So many buckets.
pub(super) struct Generation {
    pub(super) buckets: u32,
    layout: Layout,
    words: Box<[AtomicU64]>,
    /// Where the first cache line begins.
    start: usize,
}

/// A key where it was found.
pub(super) struct Entry<'a> {
    pub(super) way: u32,
    pub(super) tag: &'a AtomicU64,
    /// What the tag was.
    pub(super) known: u64,
    pub(super) state: &'a [AtomicU64],
}

impl Entry<'_> {
    /// Whether it is the key's.
    #[inline]
    pub(super) fn is_of(&self, key: Key) -> bool {
        self.known == tag_of(key)
    }
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
    /// As many keys in a cache line as there is room for.
    pub(super) fn packed(words: usize) -> Self {
        let entry = words + 1;
        let stride = if entry > LINE { entry.next_multiple_of(LINE) } else { entry.next_power_of_two() };
        Self { entry, stride }
    }

    /// A line for each key: threads that have keys of their own do not meet in one.
    pub(super) fn apart(words: usize) -> Self {
        Self { entry: words + 1, stride: (words + 1).next_multiple_of(LINE) }
    }
}

/// The ways of a bucket in the order in which a key looks for itself: its own first, then the others of its cache
/// line, of which there are one, two, four or eight, then those of the other lines.
#[inline]
fn ways(key: Key) -> impl Iterator<Item = usize> + Clone {
    let home = key.place as usize & (WAYS - 1);
    (0..WAYS).map(move |n| home ^ n)
}

impl Generation {
    pub(super) fn new(buckets: u32, layout: Layout) -> Self {
        let words = zeroes(buckets as usize * WAYS * layout.stride + LINE - 1);
        // Where lines cannot be had, keys lie across them.
        let start = words.as_ptr().align_offset(8 * LINE).min(LINE - 1);
        Self { buckets, layout, words, start }
    }

    /// The bucket of a key, by the upper bits of its hash turned so far.
    #[inline]
    fn bucket(&self, key: Key, turn: u32) -> u32 {
        ((u128::from(key.place.rotate_left(turn)) * u128::from(self.buckets)) >> 64) as u32
    }

    /// The ways where a key may be.
    #[inline]
    pub(super) fn ways(&self, key: Key, turn: u32) -> impl Iterator<Item = u32> + Clone {
        let first = self.bucket(key, turn) * WAYS as u32;
        ways(key).map(move |way| first + way as u32)
    }

    /// The tag and the state of a way.
    #[inline]
    pub(super) fn entry(&self, way: u32) -> Option<(&AtomicU64, &[AtomicU64])> {
        let at = self.start + way as usize * self.layout.stride;
        self.words.get(at..at + self.layout.entry)?.split_first()
    }

    /// Whoever is at home where the key is.
    #[inline]
    pub(super) fn at_home(&self, key: Key) -> Option<Entry<'_>> {
        let way = self.home(key);
        let (tag, state) = self.entry(way)?;
        Some(Entry { way, tag, known: tag.load(Ordering::SeqCst), state })
    }

    /// The way where a key looks for itself first.
    #[inline]
    fn home(&self, key: Key) -> u32 {
        self.bucket(key, 0) * WAYS as u32 + (key.place as u32 & (WAYS as u32 - 1))
    }

    #[inline]
    pub(super) fn tag(&self, way: u32) -> &AtomicU64 {
        &self.words[self.start + way as usize * self.layout.stride]
    }

    #[inline(never)]
    pub(super) fn find(&self, key: Key, turn: u32) -> Option<Entry<'_>> {
        let wanted = tag_of(key);
        for way in self.ways(key, turn) {
            let (tag, state) = self.entry(way)?;
            let known = tag.load(Ordering::SeqCst);
            if known == wanted {
                return Some(Entry { way, tag, known, state });
            }
            // A key takes the first way on its way that is empty, and none becomes empty again.
            if known == EMPTY {
                return None;
            }
        }
        None
    }

    /// Has the memory sent where a key looks for itself first. A load of which nobody waits for the result is the one
    /// way to say so.
    #[inline]
    pub(super) fn send_for(&self, key: Key) {
        if let Some(word) = self.words.get(self.start + self.home(key) as usize * self.layout.stride) {
            _ = word.load(Ordering::Relaxed);
        }
    }
}
