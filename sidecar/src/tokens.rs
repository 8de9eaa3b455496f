//! Tokens: what a request is estimated to use, and what it has used.

mod account;
mod asked;
pub mod ending;
pub mod estimate;
pub mod events;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
pub mod grpc;
pub mod json;
mod meter;
pub mod prompt;
pub mod usage;
mod usual;

pub use account::Account;
pub use asked::Asked;
pub use meter::Meter;
pub use usual::{Model, UsualOutput};
