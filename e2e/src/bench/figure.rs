//! One number of the report, with what was promised of it.

use serde::{Deserialize, Serialize};

/// Medians of paired rounds are known to about this.
const NOISE: f64 = 0.02;

/// One figure of the benchmarks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// What was measured.
    pub name: String,
    /// Nothing when it could not be measured.
    pub value: Option<f64>,
    /// Of the value.
    pub unit: String,
    /// Promised is this or less.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_most: Option<f64>,
    /// Promised is this or more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_least: Option<f64>,
    /// How it was measured, or why it could not be.
    pub note: String,
}

impl Figure {
    /// Whether it is as promised. None without a promise.
    pub fn holds(&self) -> Option<bool> {
        match (self.value, self.at_most, self.at_least) {
            (_, None, None) => None,
            (None, ..) => Some(false),
            (Some(value), Some(bound), _) => Some(value <= bound),
            (Some(value), None, Some(bound)) => Some(value >= bound),
        }
    }

    /// What was promised, for people.
    pub fn bound(&self) -> String {
        match (self.at_most, self.at_least) {
            (Some(bound), _) => format!("≤ {bound}"),
            (_, Some(bound)) => format!("≥ {bound}"),
            _ => String::new(),
        }
    }

    /// A ratio to a peer, measured in paired rounds: promised up to their noise.
    pub fn ratio(name: impl Into<String>, rounds: &[f64], bound: f64) -> Self {
        let value = Some(median(rounds)).filter(|value| value.is_finite());
        let note = format!("median of {} rounds, promised is {bound:.2} ± {NOISE}", rounds.len());
        Self {
            name: name.into(),
            value,
            unit: String::new(),
            at_most: Some(bound + NOISE),
            at_least: None,
            note,
        }
    }

    /// A value with a bound of its own.
    pub fn at_most(
        name: impl Into<String>,
        value: f64,
        unit: &str,
        bound: f64,
        note: impl Into<String>,
    ) -> Self {
        Self { at_most: Some(bound), ..Self::told(name, value, unit, note) }
    }

    /// A value that nothing is promised of.
    pub fn told(name: impl Into<String>, value: f64, unit: &str, note: impl Into<String>) -> Self {
        let value = Some(value).filter(|value| value.is_finite());
        Self {
            name: name.into(),
            value,
            unit: unit.to_owned(),
            at_most: None,
            at_least: None,
            note: note.into(),
        }
    }
}

/// The middle of the values; not a number when there are none.
pub fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => f64::midpoint(values[n / 2 - 1], values[n / 2]),
    }
}

/// The value that this share of them does not exceed.
pub fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let rank = (share * values.len() as f64).ceil() as usize;
    values.get(rank.clamp(1, values.len().max(1)) - 1).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_quantiles_are_ranks() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median(&[4.0, 1.0]) - 2.5).abs() < 1e-9);
        let mut values: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert!((quantile(&mut values, 0.99) - 99.0).abs() < 1e-9);
        assert!(quantile(&mut [], 0.5).is_nan());
    }

    #[test]
    fn a_ratio_may_be_above_its_promise_by_the_noise_and_no_more() {
        assert_eq!(Figure::ratio("a", &[1.02, 1.01], 1.0).holds(), Some(true));
        assert_eq!(Figure::ratio("a", &[1.03], 1.0).holds(), Some(false));
        assert_eq!(Figure::ratio("a", &[], 1.0).holds(), Some(false));
    }
}
