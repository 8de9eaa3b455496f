//! Where keys lie: buckets in one piece of memory.

use super::{EMPTY, WAYS, tag_of};
use crate::limit::key::Key;
use crate::sync::{AtomicU64, Ordering};

/// Words of a cache line.
const LINE: usize = 8;

/// How the tags and the states of keys lie in memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    /// Words of a state.
    state: usize,
    /// Words from one state to the next.
    pub(super) stride: usize,
    /// Words from one tag to the next: as many where each lies before its state, or one.
    pub(super) tags: usize,
}

/// So many buckets.
pub(super) struct Generation {
    pub(super) buckets: u32,
    layout: Layout,
    words: Box<[AtomicU64]>,
    /// Where the first tag lies, at the beginning of a cache line.
    tags: usize,
    /// Where the first state lies.
    states: usize,
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
    /// Each tag before its state, as many of both in a cache line as there is room for: one line tells all of a key.
    pub(super) fn beside(words: usize) -> Self {
        let entry = words + 1;
        let stride = if entry > LINE { entry.next_multiple_of(LINE) } else { entry.next_power_of_two() };
        Self { state: words, stride, tags: stride }
    }

    /// Tags by themselves: whoever looks for a key reads no line that another thread writes to.
    pub(super) fn aside(words: usize) -> Self {
        Self { state: words, stride: words, tags: 1 }
    }

    /// The same with a line for each state: threads that have keys of their own do not meet in one.
    pub(super) fn apart(words: usize) -> Self {
        Self { state: words, stride: words.next_multiple_of(LINE), tags: 1 }
    }

    /// From the first tag to the first state, of so many ways.
    fn lead(self, ways: usize) -> usize {
        if self.tags == 1 { ways.next_multiple_of(LINE) } else { 1 }
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
        let ways = buckets as usize * WAYS;
        let words = zeroes(layout.lead(ways) + ways * layout.stride + LINE - 1);
        // Where lines cannot be had, keys lie across them.
        let tags = words.as_ptr().align_offset(8 * LINE).min(LINE - 1);
        Self { buckets, layout, words, tags, states: tags + layout.lead(ways) }
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
        let tag = self.words.get(self.tags + way as usize * self.layout.tags)?;
        let at = self.states + way as usize * self.layout.stride;
        Some((tag, self.words.get(at..at + self.layout.state)?))
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
        &self.words[self.tags + way as usize * self.layout.tags]
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
        _ = self.tag(self.home(key)).load(Ordering::Relaxed);
    }
}
