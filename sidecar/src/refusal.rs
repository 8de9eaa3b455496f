//! The one place that renders what a client gets instead of the engine's answer.
