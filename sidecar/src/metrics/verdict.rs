//! What became of requests at their arrival, and the labels by which they are counted.

use tidegate_core::Cause;
use tidegate_policy::PriorityClass;
use tidegate_policy::report::TierName;

/// What became of a request at its arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It went to the engine.
    Admitted,
    /// It was answered with a refusal.
    Refused,
    /// It went to the breaker's fallback.
    Fallback,
    /// Its path is not judged.
    Unlimited,
    /// It went to the engine; a policy in `Shadow` mode would have refused it.
    ShadowRefused,
}

/// Labels of `tidegate_requests_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Labels {
    /// The verdict.
    pub verdict: Verdict,
    /// The kind of rule behind a refusal.
    pub cause: Option<Cause>,
    /// The class the request was judged by.
    pub class: Option<PriorityClass>,
}

const VERDICTS: [Verdict; 5] =
    [Verdict::Admitted, Verdict::Refused, Verdict::Fallback, Verdict::Unlimited, Verdict::ShadowRefused];
const CAUSES: [Option<Cause>; 10] = [
    None,
    Some(Cause::Tier(TierName::Qps)),
    Some(Cause::Tier(TierName::GpuMemory)),
    Some(Cause::Tier(TierName::Latency)),
    Some(Cause::Pressure),
    Some(Cause::Limit),
    Some(Cause::Breaker),
    Some(Cause::Concurrency),
    Some(Cause::QueueFull),
    Some(Cause::QueueTimeout),
];
const CLASSES: [Option<PriorityClass>; 4] =
    [None, Some(PriorityClass::Low), Some(PriorityClass::Medium), Some(PriorityClass::High)];
/// As many labels as there can be.
pub(super) const COMBINATIONS: usize = VERDICTS.len() * CAUSES.len() * CLASSES.len();

impl Labels {
    /// Its place among all.
    pub(super) fn index(self) -> usize {
        let cause = match self.cause {
            None => 0,
            Some(Cause::Tier(TierName::Qps)) => 1,
            Some(Cause::Tier(TierName::GpuMemory)) => 2,
            Some(Cause::Tier(TierName::Latency)) => 3,
            Some(Cause::Pressure) => 4,
            Some(Cause::Limit) => 5,
            Some(Cause::Breaker) => 6,
            Some(Cause::Concurrency) => 7,
            Some(Cause::QueueFull) => 8,
            Some(Cause::QueueTimeout) => 9,
        };
        let class = self.class.map_or(0, |class| class as usize + 1);
        (self.verdict as usize * CAUSES.len() + cause) * CLASSES.len() + class
    }

    /// Each that can be, in the order of their places.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        VERDICTS.into_iter().flat_map(|verdict| {
            CAUSES
                .into_iter()
                .flat_map(move |cause| CLASSES.into_iter().map(move |class| Self { verdict, cause, class }))
        })
    }
}

impl Verdict {
    /// As in metrics and the decision log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Admitted => "admitted",
            Self::Refused => "refused",
            Self::Fallback => "fallback",
            Self::Unlimited => "unlimited",
            Self::ShadowRefused => "shadow_refused",
        }
    }
}

/// That of a class by its number.
pub(super) const fn class_name(class: usize) -> &'static str {
    match class {
        0 => "low",
        1 => "medium",
        _ => "high",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_combination_of_labels_has_its_own_counter() {
        let mut seen: Vec<usize> = Labels::all().map(Labels::index).collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..COMBINATIONS).collect::<Vec<_>>());
    }
}
