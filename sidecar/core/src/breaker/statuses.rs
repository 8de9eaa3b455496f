//! What a status of the engine says about it.

use tidegate_policy::StatusMatch;

use super::state::Verdict;

/// Failures and backpressure. A status that is named counts as it is named, whatever its class counts as.
#[derive(Debug, Clone)]
pub(super) struct Statuses {
    failures: Set,
    backpressure: Set,
}

/// A bit for each status from 400 to 599, of which HTTP has no others that tell of trouble.
#[derive(Debug, Clone, Default)]
struct Set([u64; 4]);

impl Statuses {
    pub(super) fn new(failures: &[StatusMatch], backpressure: &[StatusMatch]) -> Self {
        let mut this = Self { failures: Set::default(), backpressure: Set::default() };
        let sides = [(failures, true), (backpressure, false)];
        let classes = sides.map(|(side, failure)| side.iter().map(move |status| (*status, failure)));
        // First the classes, then what is named.
        for (status, failure) in classes.clone().into_iter().flatten() {
            if let StatusMatch::Class(class) = status {
                (0..100).for_each(|n| this.put(u16::from(class) * 100 + n, failure));
            }
        }
        for (status, failure) in classes.into_iter().flatten() {
            if let StatusMatch::Exactly(status) = status {
                this.put(status, failure);
            }
        }
        this
    }

    /// RFC 9110 §15: a status that no class has is treated as 500.
    pub(super) fn verdict(&self, status: u16) -> Verdict {
        let status = if status >= 600 { 500 } else { status };
        if self.failures.has(status) {
            Verdict::Failure
        } else if self.backpressure.has(status) {
            Verdict::None
        } else {
            Verdict::Success
        }
    }

    fn put(&mut self, status: u16, failure: bool) {
        self.failures.set(status, failure);
        self.backpressure.set(status, !failure);
    }
}

impl Set {
    fn place(status: u16) -> Option<(usize, u64)> {
        let n = status.checked_sub(400).filter(|n| *n < 200)?;
        Some((usize::from(n / 64), 1 << (n % 64)))
    }

    fn has(&self, status: u16) -> bool {
        Self::place(status).is_some_and(|(word, bit)| self.0[word] & bit != 0)
    }

    fn set(&mut self, status: u16, member: bool) {
        if let Some((word, bit)) = Self::place(status) {
            self.0[word] = if member { self.0[word] | bit } else { self.0[word] & !bit };
        }
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use StatusMatch::{Class, Exactly};

    #[test]
    fn by_default_a_5xx_is_a_failure_but_for_a_full_queue() {
        let statuses = Statuses::new(&StatusMatch::FAILURES, &StatusMatch::BACKPRESSURE);
        for (status, expected) in [
            (200, Verdict::Success),
            (399, Verdict::Success),
            (404, Verdict::Success),
            (429, Verdict::None),
            (500, Verdict::Failure),
            (503, Verdict::None),
            (599, Verdict::Failure),
            (600, Verdict::Failure),
            (u16::MAX, Verdict::Failure),
            (0, Verdict::Success),
        ] {
            assert_eq!(statuses.verdict(status), expected, "{status}");
        }
    }

    #[test]
    fn a_status_that_is_named_counts_as_it_is_named() {
        let statuses = Statuses::new(&[Class(4), Exactly(503)], &[Class(5), Exactly(404)]);
        assert_eq!(statuses.verdict(400), Verdict::Failure);
        assert_eq!(statuses.verdict(404), Verdict::None);
        assert_eq!(statuses.verdict(500), Verdict::None);
        assert_eq!(statuses.verdict(503), Verdict::Failure);
    }
}
