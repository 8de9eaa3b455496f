//! Tokens: what a request is estimated to use, and what it has used.

mod asked;
pub mod estimate;
pub mod json;
pub mod prompt;

pub use asked::Asked;
