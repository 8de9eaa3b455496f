//! Growing pauses between attempts.

use std::time::Duration;

/// Doubles from `first` to `last`.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    last: Duration,
    next: Duration,
}

impl Backoff {
    /// Starts with `first` and never exceeds `last`.
    pub const fn new(first: Duration, last: Duration) -> Self {
        Self { first, last, next: first }
    }

    /// The pause before the next attempt.
    pub fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(self.last);
        pause
    }

    /// A pause of 50 % to 100 % of [`pause`](Self::pause), by `random`: the sidecars that one server lost do not
    /// come back together.
    pub fn jittered_pause(&mut self, random: u64) -> Duration {
        let share = (random % 1001) as u32;
        let half = self.pause() / 2;
        half + half * share / 1000
    }

    /// The pause before the first attempt after something that was well was lost: anything up to `span`, by `random`.
    /// What a server lost at one instant comes back spread over it, also when the server is there again at once.
    pub fn spread(span: Duration, random: u64) -> Duration {
        span * (random % 1001) as u32 / 1000
    }

    /// An attempt succeeded.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

/// A number that differs between processes and calls; for spreading, not for secrets.
pub fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_millis(10);
    const LAST: Duration = Duration::from_secs(1);

    #[test]
    fn pauses_double_up_to_the_last_and_begin_anew_after_a_success() {
        let mut backoff = Backoff::new(FIRST, LAST);
        let millis: Vec<u128> = (0..9).map(|_| backoff.pause().as_millis()).collect();
        assert_eq!(millis, [10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
        backoff.reset();
        assert_eq!(backoff.pause(), FIRST);
    }

    #[test]
    fn jitter_stays_between_half_and_whole() {
        for random in (0..5000).chain([u64::MAX]) {
            let pause = Backoff::new(LAST, LAST).jittered_pause(random);
            assert!((LAST / 2..=LAST).contains(&pause), "{pause:?} for {random}");
        }
    }

    #[test]
    fn random_numbers_differ() {
        assert_ne!(random(), random());
    }
}
