//! Names of the stages of an inference engine's pipeline.

use serde::{Deserialize, Serialize};

use crate::ScalarError;

/// A stage of an inference engine's pipeline, in lower case, such as `prefill` or `attention`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Stage(String);

impl Stage {
    /// So many of them can have breakers.
    pub const MOST: usize = 8;
    /// Length of the longest name, in bytes.
    const LONGEST: usize = 63;

    /// Takes any letter case; refuses what could not be part of a rule's name.
    ///
    /// # Errors
    /// The name is empty or longer than 63 bytes, or has anything but letters, digits, `-`, `_` and `.`, or does not
    /// begin with a letter or digit.
    pub fn new(name: &str) -> Result<Self, ScalarError> {
        let begins = name.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric());
        let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if begins && name.len() <= Self::LONGEST && name.bytes().all(known) {
            Ok(Self(name.to_ascii_lowercase()))
        } else {
            Err(ScalarError(format!(
                "{name:?} is not the name of a stage: write up to 63 letters, digits, '-', '_' and '.', such as \"attention\""
            )))
        }
    }

    /// The name in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Stage {
    type Error = ScalarError;
    fn try_from(name: String) -> Result<Self, Self::Error> {
        Self::new(&name)
    }
}

impl From<Stage> for String {
    fn from(stage: Stage) -> Self {
        stage.0
    }
}
