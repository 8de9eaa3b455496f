//! What end-to-end tests share: a client, namespaces of their own, engines to guard, waits for conditions.
//!
//! ```text
//!  in_namespace ──▶ Lab { client, namespace } ──▶ apply, engine, status, complete …
//!       └── on failure: pods, events and logs of the namespace are printed, then it is deleted all the same
//! ```
//!
//! The tests run on the machine of the cluster and talk to pods by their addresses, past every Service, as an
//! inference gateway does.

mod diagnosis;
mod engine;
mod faults;
mod http;
mod http2;
mod lab;
pub mod release;
pub mod tls;
mod traffic;
mod wait;

pub use engine::{CONTROL_PORT, ENGINE_PORT, Engine};
pub use faults::{Cut, Frozen};
pub use http::{Answer, Http};
pub use http2::Http2;
pub use lab::{Lab, RELEASE_NAMESPACE, admin_url, alone, apply, engine_url, in_namespace, is_ready, pod_ip};
pub use traffic::{Client, Tally, Traffic};
pub use wait::{PATIENCE, eventually, holds};
