//! Container images without a registry or a container engine.
//!
//! An image is a docker-archive of one layer: programs, the shared libraries they name, and the few files that a program
//! without a shell needs. `ctr images import`, `docker load` and `kind load image-archive` all read it.

use std::path::PathBuf;

use crate::cluster::progress::Progress;

pub mod archive;
pub(super) mod libraries;
mod oci;
pub mod optimised;
pub mod product;
pub mod release;
mod sbom;
pub mod support;

/// First part of every image's name: no registry of that name exists, so nothing can be pulled by mistake.
pub const PREFIX: &str = "tidegate.local";

/// Version of the product's images: the workspace's.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Image of the test pods: busybox with a shell and its applets.
pub const BUSYBOX: &str = "tidegate.local/busybox:1";

/// Tag under which the product's images are there once more, for upgrades of the chart.
pub const NEXT: &str = "next";

/// The full name of one of the product's images.
pub fn reference(name: &str) -> String {
    format!("{PREFIX}/{name}:{VERSION}")
}

/// Builds the programs and the images of the product and the simulators; returns the archives.
pub async fn build(progress: &Progress) -> anyhow::Result<Vec<PathBuf>> {
    product::build(progress).await
}
