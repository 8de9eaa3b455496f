//! Which policy acts on which pod, and what a pod looks like with a sidecar: without a client.

pub mod inject;
