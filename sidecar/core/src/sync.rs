//! Atomics and locks: the standard library's, or loom's when a model checks them.

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

#[cfg(loom)]
pub(crate) use loom::sync::{Mutex, MutexGuard};
#[cfg(not(loom))]
pub(crate) use std::sync::{Mutex, MutexGuard};

use Ordering::Relaxed;

/// A number that one thread publishes and others read, without order to anything else.
#[derive(Debug)]
pub(crate) struct AtomicF64(AtomicU64);

impl AtomicF64 {
    pub(crate) fn new(value: f64) -> Self {
        Self(AtomicU64::new(value.to_bits()))
    }

    pub(crate) fn load(&self) -> f64 {
        f64::from_bits(self.0.load(Relaxed))
    }

    pub(crate) fn store(&self, value: f64) {
        self.0.store(value.to_bits(), Relaxed);
    }
}

/// Stands between a `SeqCst` access and the next one where the proof needs their single total order. The accesses
/// give it by themselves; loom takes them for `AcqRel` and models that order for fences alone.
#[cfg(loom)]
pub(crate) fn in_total_order() {
    loom::sync::atomic::fence(Ordering::SeqCst);
}
/// Nothing: see above.
#[cfg(not(loom))]
#[inline]
pub(crate) const fn in_total_order() {}
