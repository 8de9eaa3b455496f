//! Why a document was refused.

use std::fmt;

/// One mistake: where it stands, what stands there, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct DocumentError {
    path: String,
    message: String,
}

impl DocumentError {
    pub(crate) fn at(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into() }
    }

    /// The place in the document, such as `limits[2].windowMillis`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What stands there and what to write instead, in one line.
    pub fn message(&self) -> &str {
        &self.message
    }
}

/// All mistakes of a document, at least one; displayed one to a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentErrors(Vec<DocumentError>);

impl DocumentErrors {
    /// The mistakes, unless there is none.
    pub(crate) fn unless_empty(errors: Vec<DocumentError>) -> Result<(), Self> {
        if errors.is_empty() { Ok(()) } else { Err(Self(errors)) }
    }

    /// One by one.
    pub fn as_slice(&self) -> &[DocumentError] {
        &self.0
    }

    /// All in one line, for logs and conditions.
    pub fn in_one_line(&self) -> String {
        self.0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    }
}

impl From<DocumentError> for DocumentErrors {
    fn from(error: DocumentError) -> Self {
        Self(vec![error])
    }
}

impl fmt::Display for DocumentErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            write!(f, "{}{error}", if i == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl std::error::Error for DocumentErrors {}
