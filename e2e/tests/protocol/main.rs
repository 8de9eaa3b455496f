//! The sidecar's own binary as others see it who know the protocols: the conformance suite of HTTP/2, and the servers that
//! engines are built on.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "../clients/environment.rs"]
mod environment;
mod h2spec;
#[path = "../../../sidecar/tests/wire/payloads.rs"]
mod payloads;
mod smuggling;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tidegate_e2e::cluster::process;
use tidegate_e2e::server::{Server, free_address};

/// Beside this test's own, where `make` has built it.
fn binary() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let binary = own.parent().and_then(Path::parent).unwrap().join("tidegate-sidecar");
    assert!(binary.exists(), "{} is missing: run this through `make protocol`", binary.display());
    binary
}

/// Before this engine, with its admin port.
async fn sidecar(engine: SocketAddr, folder: &Path) -> (Server, String) {
    let (listen, admin) = (free_address().unwrap(), free_address().unwrap());
    let mut command = process::command(binary());
    command.args(["run", "--engine-metrics", "1", "--log-level", "error", "--upstream", &engine.to_string()]);
    command.args(["--listen", &listen.to_string(), "--admin", &admin.to_string()]);
    let log = folder.join(format!("sidecar-{}.log", listen.port()));
    (Server::start(&mut command, listen, &log).await.unwrap(), format!("http://{admin}"))
}
