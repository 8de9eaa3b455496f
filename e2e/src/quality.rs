//! Protection quality: admission policies against a model of an inference engine, in virtual time.

pub mod fit;
