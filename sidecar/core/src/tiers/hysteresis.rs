//! What keeps a tier from flapping: it trips at the ceiling, recovers only after it stayed clearly below for a
//! while, and then lets low priority back in by degrees.

use std::time::Duration;

use tidegate_policy::Recovery;

use crate::Tick;

/// A value held against a ceiling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    /// Over the ceiling.
    Over,
    /// Not over it, and not far enough below it to recover.
    Between,
    /// Below the share of the ceiling that counts as recovered.
    Calm,
}

impl Level {
    pub(crate) fn of(value: f64, ceiling: f64, recovery: Recovery) -> Self {
        if value > ceiling {
            Self::Over
        } else if value < ceiling * recovery.below_ratio.get() {
            Self::Calm
        } else {
            Self::Between
        }
    }
}

/// Whether a tier sheds, and since when.
#[derive(Debug, Clone, Default)]
pub(crate) struct Hysteresis {
    phase: Phase,
    last: Option<Trigger>,
    /// When it last began to shed.
    shed_since: Tick,
}

#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) enum Phase {
    #[default]
    Normal,
    Tripped,
    /// Calm since then, for less than the hold time.
    Recovering {
        since: Tick,
    },
    /// It has recovered, and lets more and more of low priority pass.
    Ramping {
        since: Tick,
        /// Share of the ramp that is over.
        done: f64,
    },
}

/// The last time a tier tripped.
#[derive(Debug, Clone)]
pub(crate) struct Trigger {
    pub(crate) at: Tick,
    pub(crate) reason: String,
}

impl Hysteresis {
    /// Takes the level of a new value. `reason` is asked for when it trips.
    pub(crate) fn update(
        &mut self,
        now: Tick,
        level: Level,
        recovery: Recovery,
        reason: impl FnOnce() -> String,
    ) {
        self.phase = match (self.phase, level) {
            (Phase::Normal | Phase::Recovering { .. } | Phase::Ramping { .. }, Level::Over) => {
                self.last = Some(Trigger { at: now, reason: reason() });
                if !matches!(self.phase, Phase::Recovering { .. }) {
                    self.shed_since = now;
                }
                Phase::Tripped
            }
            (Phase::Tripped, Level::Over | Level::Between) | (Phase::Recovering { .. }, Level::Between) => {
                Phase::Tripped
            }
            (Phase::Tripped, Level::Calm) => Phase::Recovering { since: now },
            (phase, _) => phase,
        };
        self.settle(now, recovery);
    }

    /// Recovers when the calm has lasted long enough and nothing was said against it.
    pub(crate) fn settle(&mut self, now: Tick, recovery: Recovery) {
        self.phase = match (self.phase, recovery.ramp_millis) {
            (Phase::Recovering { since }, ramp) if now.since(since) >= recovery.hold_millis.duration() => {
                ramp.map_or(Phase::Normal, |_| Phase::Ramping { since: now, done: 0.0 })
            }
            (Phase::Ramping { since, .. }, Some(ramp)) if now.since(since) < ramp.duration() => {
                let done = now.since(since).as_secs_f64() / ramp.duration().as_secs_f64();
                Phase::Ramping { since, done }
            }
            (Phase::Ramping { .. }, _) => Phase::Normal,
            (phase, _) => phase,
        };
    }

    /// As if it never had tripped, but for the memory of why.
    pub(crate) fn reset(&mut self) {
        self.phase = Phase::Normal;
    }

    pub(crate) fn phase(&self) -> Phase {
        self.phase
    }

    /// Whether low priority is refused altogether.
    pub(crate) fn shedding(&self) -> bool {
        matches!(self.phase, Phase::Tripped | Phase::Recovering { .. })
    }

    /// Whether anything is held back because of it.
    pub(crate) fn holding(&self) -> bool {
        self.phase != Phase::Normal
    }

    /// Since when it sheds, while it does.
    pub(crate) fn shed_since(&self) -> Tick {
        self.shed_since
    }

    /// How firmly it holds back, from 0 to 1.
    pub(crate) fn grip(&self) -> f64 {
        match self.phase {
            Phase::Normal => 0.0,
            Phase::Tripped | Phase::Recovering { .. } => 1.0,
            Phase::Ramping { done, .. } => 1.0 - done,
        }
    }

    /// The instant from which low priority passes again, if the calm lasts.
    pub(crate) fn readmits_at(&self, recovery: Recovery) -> Option<Tick> {
        match self.phase {
            Phase::Recovering { since } => Some(since + recovery.hold_millis.duration()),
            Phase::Normal | Phase::Tripped | Phase::Ramping { .. } => None,
        }
    }

    /// Calm still needed until nothing is held back; None while nothing is.
    pub(crate) fn countdown(&self, now: Tick, recovery: Recovery) -> Option<Duration> {
        let hold = recovery.hold_millis.duration();
        let ramp = recovery.ramp_millis.map_or(Duration::ZERO, tidegate_policy::Millis::duration);
        match self.phase {
            Phase::Normal => None,
            Phase::Tripped => Some(hold + ramp),
            Phase::Recovering { since } => Some((since + hold).since(now) + ramp),
            Phase::Ramping { since, .. } => Some((since + ramp).since(now)),
        }
    }

    pub(crate) fn last(&self) -> Option<&Trigger> {
        self.last.as_ref()
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tidegate_policy::{Millis, Ratio};

    const HOLD: u64 = 1000;

    fn recovery() -> Recovery {
        let hold_millis = Millis::new(HOLD).unwrap();
        Recovery { below_ratio: Ratio::new(0.9).unwrap(), hold_millis, ramp_millis: None }
    }

    fn with_ramp(millis: u64) -> Recovery {
        Recovery { ramp_millis: Millis::new(millis).ok(), ..recovery() }
    }

    fn millis(n: u64) -> Tick {
        Tick::from_nanos(n * 1_000_000)
    }

    #[test]
    fn between_the_two_thresholds_a_tripped_tier_stays_tripped_and_a_normal_one_normal() {
        let mut tier = Hysteresis::default();
        tier.update(millis(0), Level::Between, recovery(), String::new);
        assert_eq!(tier.phase(), Phase::Normal);
        tier.update(millis(1), Level::Over, recovery(), || "too much".to_owned());
        tier.update(millis(9000), Level::Between, recovery(), String::new);
        assert_eq!(tier.phase(), Phase::Tripped);
        assert_eq!(tier.last().unwrap().reason, "too much");
    }

    #[test]
    fn the_countdown_runs_while_calm_and_begins_anew_after_a_relapse() {
        let mut tier = Hysteresis::default();
        tier.update(millis(0), Level::Over, recovery(), String::new);
        assert_eq!(tier.countdown(millis(500), recovery()), Some(Duration::from_secs(1)));
        tier.update(millis(1000), Level::Calm, recovery(), String::new);
        assert_eq!(tier.countdown(millis(1400), recovery()), Some(Duration::from_millis(600)));
        tier.update(millis(1500), Level::Between, recovery(), String::new);
        tier.update(millis(1600), Level::Calm, recovery(), String::new);
        assert_eq!(tier.countdown(millis(1600), recovery()), Some(Duration::from_secs(1)));
        tier.settle(millis(2600), recovery());
        assert_eq!(tier.phase(), Phase::Normal);
    }

    #[test]
    fn after_the_hold_time_it_lets_go_by_degrees_and_a_relapse_takes_it_back_whole() {
        let recovery = with_ramp(2000);
        let mut tier = Hysteresis::default();
        tier.update(millis(0), Level::Over, recovery, String::new);
        assert_eq!(tier.countdown(millis(0), recovery), Some(Duration::from_secs(3)));
        tier.update(millis(100), Level::Calm, recovery, String::new);
        assert_eq!((tier.grip(), tier.shedding()), (1.0, true));
        tier.settle(millis(1100), recovery);
        assert_eq!((tier.grip(), tier.shedding(), tier.holding()), (1.0, false, true));
        tier.update(millis(2600), Level::Between, recovery, String::new);
        assert!((tier.grip() - 0.25).abs() < 1e-9);
        assert_eq!(tier.countdown(millis(2600), recovery), Some(Duration::from_millis(500)));
        let mut relapsed = tier.clone();
        relapsed.update(millis(2700), Level::Over, recovery, String::new);
        assert_eq!((relapsed.phase(), relapsed.grip()), (Phase::Tripped, 1.0));
        tier.settle(millis(3100), recovery);
        assert_eq!((tier.phase(), tier.countdown(millis(3100), recovery)), (Phase::Normal, None));
    }

    proptest! {
        /// Law: a tier recovers only after an uninterrupted calm of the hold time, so it trips at most once in
        /// each hold time however its value jumps.
        #[test]
        fn no_flapping(
            values in proptest::collection::vec((1u64..400, 0.0f64..2.0), 1..300), ramp in 0u64..3000,
        ) {
            let recovery = || with_ramp(ramp);
            let mut tier = Hysteresis::default();
            let (mut now, mut calm_since, mut last_trip) = (0, None, None::<u64>);
            for (gap, value) in values {
                now += gap;
                let level = Level::of(value, 1.0, recovery());
                let before = tier.shedding();
                calm_since = if level == Level::Calm { calm_since.or(Some(now)) } else { None };
                tier.update(millis(now), level, recovery(), String::new);
                if before && !tier.shedding() {
                    prop_assert!(calm_since.is_some_and(|since| now - since >= HOLD));
                }
                if !before && tier.shedding() {
                    prop_assert!(last_trip.is_none_or(|at| now - at >= HOLD));
                    last_trip = Some(now);
                }
            }
        }
    }
}
