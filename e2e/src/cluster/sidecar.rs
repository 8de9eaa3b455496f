//! How the sidecar is built where its size counts: for images and measurements.

use tokio::process::Command;

use crate::cluster::process;

/// With the C library in it, of which it needs a tenth; at any address, and without a page written for that.
const LINKED: [&str; 4] = ["-C", "target-feature=+crt-static", "-C", "link-arg=-Wl,-z,pack-relative-relocs"];

/// Compiles `tidegate-sidecar` in this profile.
pub fn build(profile: &str) -> Command {
    let mut command = process::command(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["rustc", "--quiet", "--locked", "--profile", profile]);
    command.args(["-p", "tidegate-sidecar", "--bin", "tidegate-sidecar", "--"]).args(LINKED);
    command
}
