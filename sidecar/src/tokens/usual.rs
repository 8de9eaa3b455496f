//! How long answers usually are.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Before anything is learned.
const FIRST: u32 = 256;

/// One answer moves the mean by this share of its distance.
const SHARE: u32 = 16;

/// The mean of the tokens of answers whose clients left their number open, the latest weighing most. It belongs to the
/// pod, whose engine runs one model.
#[derive(Debug)]
pub struct UsualOutput(AtomicU32);

impl Default for UsualOutput {
    fn default() -> Self {
        Self(AtomicU32::new(FIRST * SHARE))
    }
}

impl UsualOutput {
    /// Tokens to reserve for such an answer.
    pub fn get(&self) -> u32 {
        (self.0.load(Relaxed) / SHARE).max(1)
    }

    /// Such an answer had so many. Of two that come at the same instant one may be forgotten.
    pub fn learn(&self, output: u32) {
        // Kept in sixteenths: a mean of whole tokens would never come down to that of short answers.
        let sum = self.0.load(Relaxed);
        self.0.store((sum - sum / SHARE).saturating_add(output.min(u32::MAX / SHARE)), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_reserved_follows_what_is_generated() {
        let usual = UsualOutput::default();
        assert_eq!(usual.get(), 256);
        for (output, expected) in [(1000, 1000), (10, 10), (u32::MAX, u32::MAX / 16)] {
            for _ in 0..1000 {
                usual.learn(output);
            }
            assert!(usual.get().abs_diff(expected) <= expected / 10, "{} for {output}", usual.get());
        }
    }
}
