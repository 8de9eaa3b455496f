//! What other programs may use of `kubectl tidegate`: the model of an inference engine that `simulate` replays
//! requests against.

pub mod engine_model;
