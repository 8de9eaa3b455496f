//! How much of everything there may be at once, so that nobody's clients cost more memory than a pod has.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::memory;

/// Caps of one worker process, all threads together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caps {
    /// Connections of clients.
    pub connections: usize,
    /// Requests in flight.
    pub requests: usize,
    /// Streams on one HTTP/2 connection.
    pub streams: u32,
    /// Bytes of a request's head.
    pub header_bytes: u32,
    /// Bytes that are read of a request's body before the decision, where a rule needs them.
    pub prefix_bytes: usize,
    /// The same of all requests together.
    pub prefix_total: usize,
    /// Addresses of clients that are told apart in metrics.
    pub client_labels: usize,
    /// Bytes of memory, none for any number.
    pub memory: Option<u64>,
}

impl Caps {
    /// Those that apply when nothing else is said.
    pub const DEFAULT: Self = Self {
        connections: 4096,
        requests: 4096,
        streams: 100,
        header_bytes: 64 * 1024,
        prefix_bytes: 64 * 1024,
        prefix_total: 16 * 1024 * 1024,
        client_labels: 0,
        memory: None,
    };

    /// Largest head of a request of HTTP/1.
    pub fn largest_head(&self) -> usize {
        usize::try_from(self.header_bytes).unwrap_or(usize::MAX)
    }
}

impl Default for Caps {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Places for connections; clones are the same places.
#[derive(Debug, Clone, Default)]
pub struct Places(Arc<AtomicUsize>);

/// A place that is taken until it is dropped.
#[derive(Debug)]
pub struct Place(Places);

impl Places {
    /// Takes a place, unless `most` are taken.
    pub fn take(&self, most: usize) -> Option<Place> {
        let place = Place(self.clone());
        memory::opened();
        // Counted first, so that threads which look at the same time do not all find the last one.
        (self.0.fetch_add(1, Ordering::Relaxed) < most).then_some(place)
    }

    /// How many are taken.
    pub fn taken(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
        memory::closed();
    }
}

/// Room for bytes that wait; clones are the same room.
#[derive(Debug, Clone, Default)]
pub struct Rooms(Arc<AtomicUsize>);

/// Room that is taken until it is dropped.
#[derive(Debug)]
pub struct Room {
    of: Rooms,
    bytes: usize,
}

impl Rooms {
    /// Room that grows with what it takes, unless `most` bytes are taken already.
    pub fn take(&self, most: usize) -> Option<Room> {
        (self.taken() < most).then(|| Room { of: self.clone(), bytes: 0 })
    }

    /// Bytes that are taken.
    pub fn taken(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Room {
    /// Takes so many more bytes.
    pub fn grow(&mut self, bytes: usize) {
        self.bytes += bytes;
        self.of.0.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.of.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_free_again_when_it_is_left_and_none_is_lost_by_asking() {
        let places = Places::default();
        let first = places.take(2);
        let second = places.take(2);
        assert!(first.is_some() && second.is_some());
        for _ in 0..3 {
            assert!(places.take(2).is_none());
        }
        drop(first);
        assert!(places.take(2).is_some());
        assert_eq!(places.taken(), 1);
    }

    #[test]
    fn room_is_taken_for_as_long_as_its_bytes_wait() {
        let rooms = Rooms::default();
        let mut first = rooms.take(10).unwrap();
        first.grow(8);
        let mut second = rooms.take(10).unwrap();
        second.grow(8);
        assert!(rooms.take(10).is_none());
        drop(first);
        assert_eq!(rooms.taken(), 8);
        assert!(rooms.take(10).is_some());
    }
}
