//! Container images without a registry.

/// Where the images of this workspace are said to come from; no machine answers to that name.
pub const REGISTRY: &str = "tidegate.local";

/// The full reference of one of the workspace's images.
pub fn reference(name: &str) -> String {
    format!("{REGISTRY}/{name}:{}", env!("CARGO_PKG_VERSION"))
}
