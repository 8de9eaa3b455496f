//! A measured figure, with what was promised.

use serde::Serialize;

/// One figure of the report.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Figure {
    pub(crate) name: String,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) at_most: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) at_least: Option<f64>,
    /// How it was measured, or why it could not be.
    pub(crate) note: String,
}

impl Figure {
    pub(crate) fn new(name: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self { name: name.into(), value, unit, at_most: None, at_least: None, note: String::new() }
    }

    /// Promised is this or less.
    pub(crate) fn at_most(mut self, bound: f64) -> Self {
        self.at_most = Some(bound);
        self
    }

    /// Promised is this or more.
    pub(crate) fn at_least(mut self, bound: f64) -> Self {
        self.at_least = Some(bound);
        self
    }

    pub(crate) fn note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }

    fn verdict(&self) -> &'static str {
        match (self.at_most, self.at_least) {
            (None, None) => "",
            // A figure that is not a number has not been measured.
            _ if self.value.is_nan() => "FAIL",
            (Some(bound), _) if self.value > bound => "FAIL",
            (_, Some(bound)) if self.value < bound => "FAIL",
            _ => "PASS",
        }
    }

    /// To programs on standard output, to people on standard error.
    pub(crate) fn tell(&self) {
        match serde_json::to_string(self) {
            Ok(json) => println!("{json}"),
            Err(error) => panic!("{error}"),
        }
        let bound = match (self.at_most, self.at_least) {
            (Some(bound), _) => format!("<= {bound}"),
            (_, Some(bound)) => format!(">= {bound}"),
            _ => String::new(),
        };
        eprintln!(
            "{:62} {:>10.2} {:14} {bound:>10} {:4}  {}",
            self.name,
            self.value,
            self.unit,
            self.verdict(),
            self.note
        );
    }
}

/// The value at a share of sorted values.
pub(crate) fn quantile<T: Copy>(sorted: &[T], share: f64) -> Option<T> {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1).min(sorted.len().saturating_sub(1))).copied()
}

/// The median of any values; NaN of none.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    quantile(&values, 0.5).unwrap_or(f64::NAN)
}
