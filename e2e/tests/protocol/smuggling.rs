//! Payloads of request smuggling, judged by the servers that engines are built on: what one of them reads behind the
//! sidecar is what the sidecar has judged, request by request.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tidegate_e2e::cluster::{binaries, packages, process, progress::Progress};
use tidegate_e2e::harness::{Http, eventually};
use tidegate_e2e::server::{Server, free_address};
use tokio::process::Command;

use crate::environment::{environment, node};
use crate::payloads::{Expect, all as payloads};
use crate::sidecar;

/// Far beyond what an answer takes on a loaded machine.
const PATIENCE: Duration = Duration::from_mins(1);
/// Behind every payload: a request that is its own only if the payload ended where it should. It ends the connection.
const MARKER: &[u8] = b"GET /marker HTTP/1.1\r\nHost: marker\r\nConnection: close\r\n\r\n";

/// Sends everything and reads until the connection ends, which a server does not do that waits for more. Behind what
/// passes it ends in any case.
fn exchange(address: SocketAddr, payload: &[u8], expect: Expect) {
    let mut stream = TcpStream::connect(address).unwrap();
    let patience = if expect == Expect::Passed { PATIENCE } else { Duration::from_secs(3) };
    stream.set_read_timeout(Some(patience)).unwrap();
    // A server that refuses early may have closed already.
    let _ = stream.write_all(payload);
    let _ = stream.read_to_end(&mut Vec::new());
}

/// The sum of all series of requests that were let through.
async fn admitted(admin: &str) -> u64 {
    let text = Http::default().get(&format!("{admin}/metrics")).await.unwrap().body;
    let series =
        text.lines().filter(|line| line.starts_with("tidegate_requests_total{decision=\"admitted\""));
    series.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u64).sum()
}

/// Sends all payloads through a sidecar to this server, whose lines begin with method and target of each request that
/// it has read.
async fn judged_by(server: Server, seen: &Path, folder: &Path) {
    let (sidecar, admin) = sidecar(server.address, folder).await;
    let payloads = payloads();
    assert!(payloads.len() >= 60, "{} payloads", payloads.len());
    let passed = payloads.iter().filter(|(_, _, expect)| *expect == Expect::Passed).count();
    let address = sidecar.address;
    let sent = tokio::task::spawn_blocking(move || {
        for (_, payload, expect) in payloads {
            exchange(address, &[&payload, MARKER].concat(), expect);
        }
    });
    sent.await.unwrap();
    let markers = |text: &str| text.lines().filter(|line| line.split(' ').nth(1) == Some("/marker")).count();
    // A server may write its line after its answer.
    let text = eventually("a line for each payload that passes", PATIENCE, async || {
        let text = std::fs::read_to_string(seen).map_err(|error| error.to_string())?;
        if markers(&text) >= passed { Ok(text) } else { Err(text) }
    });
    let text = text.await.unwrap();
    let targets: Vec<&str> = text.lines().filter_map(|line| line.split(' ').nth(1)).collect();
    let smuggled: Vec<&&str> = targets.iter().filter(|target| target.contains("smuggled")).collect();
    assert!(smuggled.is_empty(), "{smuggled:?} in {text}");
    assert_eq!(markers(&text), passed, "each payload that passes ends where its marker begins: {text}");
    let admitted = admitted(&admin).await;
    assert!(targets.len() as u64 <= admitted, "{admitted} requests were judged: {text}");
    sidecar.stop().await.unwrap();
    server.stop().await.unwrap();
}

/// A server that takes its port as an argument and writes what it sees to its output.
async fn judged_by_program(mut command: Command) {
    let folder = tempfile::tempdir().unwrap();
    let (address, seen) = (free_address().unwrap(), folder.path().join("seen"));
    let server = Server::start(command.arg(address.port().to_string()), address, &seen).await.unwrap();
    judged_by(server, &seen, folder.path()).await;
}

/// The server in Go, built.
pub(crate) async fn go_backend() -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/protocol/backend.go");
    binaries::go_file(&source, &Progress::start()).await.unwrap()
}

#[tokio::test]
async fn nothing_can_be_smuggled_to_go() {
    judged_by_program(process::command(go_backend().await)).await;
}

#[tokio::test]
async fn nothing_can_be_smuggled_to_node() {
    let mut command = node(&environment().await);
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/protocol/backend.mjs"));
    judged_by_program(command).await;
}

#[tokio::test]
async fn nothing_can_be_smuggled_to_nginx() {
    packages::ensure(&Progress::start(), &[("nginx", "nginx")]).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (address, home) = (free_address().unwrap(), folder.path().display().to_string());
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {home}/{name};\n"))
        .concat();
    let text = format!(
        "daemon off;\nmaster_process off;\npid {home}/pid;\nerror_log stderr;\nevents {{}}\nhttp {{\n\
        log_format seen '$request_method $request_uri $status';\naccess_log {home}/seen seen;\n{temporary}\
        server {{ listen {address}; location / {{ return 200 ok; }} }}\n}}\n"
    );
    std::fs::write(folder.path().join("nginx.conf"), text).unwrap();
    let mut command = process::command(packages::program("nginx").unwrap());
    command.args(["-p", &home, "-c", "nginx.conf"]);
    let server = Server::start(&mut command, address, &folder.path().join("log")).await.unwrap();
    judged_by(server, &folder.path().join("seen"), folder.path()).await;
}
