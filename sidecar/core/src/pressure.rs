//! The one pressure score, from 0 (nothing is wrong) to 1 (at or over a ceiling).

/// Share of its ceiling at which a tier begins to press.
const ONSET: f64 = 0.8;
/// Least pressure of a tier that sheds, however far below its ceiling the value is: it has not recovered yet. And
/// the highest of one that does not: one bad period of latency, which may be chance, holds the traffic where it is
/// and does not cut it.
const SHEDDING: f64 = 0.5;

/// A tier's own pressure: rises from 0 at 80 % of its ceiling to 1 at the ceiling, to 0.5 and no further while the
/// tier does not shed, and from 0.5 on while it does.
pub(crate) fn of_tier(value_and_ceiling: Option<(f64, f64)>, shedding: bool) -> f64 {
    let own = value_and_ceiling
        .map_or(0.0, |(value, ceiling)| ((value / ceiling - ONSET) / (1.0 - ONSET)).clamp(0.0, 1.0));
    // A ceiling of zero gives no number.
    let own = if own.is_nan() { 1.0 } else { own };
    if shedding { own.max(SHEDDING) } else { own.min(SHEDDING) }
}

/// The fusion of all tiers' pressures: the highest, so that it rises with each and is never below that of a tier
/// that sheds.
pub(crate) fn fuse(tiers: impl IntoIterator<Item = f64>) -> f64 {
    tiers.into_iter().fold(0.0, f64::max)
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn it_rises_from_eighty_percent_of_the_ceiling_to_the_ceiling() {
        let at = |value, shedding| of_tier(Some((value, 100.0)), shedding);
        let near = |pressure: f64, expected: f64| assert!((pressure - expected).abs() < 1e-9, "{pressure}");
        for (value, calm, shedding) in
            [(0.0, 0.0, 0.5), (80.0, 0.0, 0.5), (84.0, 0.2, 0.5), (95.0, 0.5, 0.75), (500.0, 0.5, 1.0)]
        {
            near(at(value, false), calm);
            near(at(value, true), shedding);
        }
    }

    #[test]
    fn a_tier_that_sheds_presses_even_when_its_value_is_low_or_gone() {
        assert!(of_tier(Some((1.0, 100.0)), true) >= SHEDDING);
        assert!(of_tier(None, true) >= SHEDDING);
        assert!(of_tier(None, false) <= 0.0);
    }

    proptest! {
        #[test]
        fn the_score_is_monotone_in_every_tier_and_never_below_one_that_sheds(
            tiers in proptest::collection::vec((0.0f64..300.0, any::<bool>()), 1..4),
            which in 0usize..3, rise in 0.0f64..100.0,
        ) {
            let score = |tiers: &[(f64, bool)]| {
                fuse(tiers.iter().map(|&(value, shedding)| of_tier(Some((value, 100.0)), shedding)))
            };
            let before = score(&tiers);
            prop_assert!((0.0..=1.0).contains(&before));
            prop_assert!(!tiers.iter().any(|t| t.1) || before >= SHEDDING);
            let mut risen = tiers.clone();
            let which = which % risen.len();
            risen[which].0 += rise;
            prop_assert!(score(&risen) >= before);
            risen[which].1 = true;
            prop_assert!(score(&risen) >= before);
        }
    }
}
