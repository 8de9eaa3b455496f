//! Input that was refused.

use std::fmt::Display;

/// Everything that is wrong, one line each: where it stands, what is wrong, and what to write instead.
#[derive(Debug, Default)]
pub(crate) struct Refused(Vec<String>);

impl Refused {
    pub(crate) fn of(line: impl Display) -> Self {
        let mut refused = Self::default();
        refused.add(line);
        refused
    }

    /// Adds one mistake. Messages from elsewhere may have several lines; each mistake gets one.
    pub(crate) fn add(&mut self, line: impl Display) {
        let line = line.to_string();
        self.0.push(line.split_whitespace().collect::<Vec<_>>().join(" "));
    }

    pub(crate) fn lines(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// The value, unless something was wrong.
    pub(crate) fn unless_empty<T>(self, value: T) -> Result<T, Self> {
        if self.0.is_empty() { Ok(value) } else { Err(self) }
    }
}
