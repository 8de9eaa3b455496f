//! Which policy acts on which pod, and what a pod looks like with a sidecar: without a client.
//!
//! ```text
//!  watch events ──▶ index ──▶ documents, status, notices          pod being created ──▶ inject ──▶ patch
//!                    │
//!                    ├─ compile   one policy, or what is wrong with it
//!                    ├─ merge     the policies of one pod
//!                    ├─ siblings  what a new pod is given of what others have learned
//!                    └─ explain   why a pod obeys what it obeys
//! ```

pub mod compile;
pub mod explain;
pub mod index;
pub mod inject;
pub mod key;
pub mod merge;
pub mod pod;
mod quantity;
pub mod service;
mod siblings;
pub mod status;
pub mod target;
