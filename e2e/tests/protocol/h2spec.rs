//! The conformance suite h2spec against the sidecar.

use tidegate_e2e::cluster::{binaries, process, progress::Progress};
use tidegate_e2e::server::{Server, free_address};

use crate::sidecar;
use crate::smuggling::go_backend;

/// It is no breach: on a port where HTTP/1 is spoken too, what does not begin as HTTP/2 is answered in HTTP/1.
const ANSWERED_IN_HTTP_1: &str = "Sends invalid connection preface";

#[tokio::test]
async fn h2spec_finds_nothing_but_that_http_1_is_spoken_on_the_same_port() {
    let folder = tempfile::tempdir().unwrap();
    // It answers when it has the whole request: an answer that crosses with a mistake hides it.
    let (address, seen) = (free_address().unwrap(), folder.path().join("seen"));
    let mut engine = process::command(go_backend().await);
    let engine = Server::start(engine.arg(address.port().to_string()), address, &seen).await.unwrap();
    let (sidecar, _) = sidecar(engine.address, folder.path()).await;
    let suite = binaries::h2spec(&Progress::start()).await.unwrap();
    let mut command = process::command(suite);
    let said = process::output(command.args(["-p", &sidecar.address.port().to_string()])).await.unwrap();
    let summary = said.lines().find(|line| line.contains(" tests, ")).unwrap();
    println!("{summary}");
    let count = |what: &str| {
        let part = summary.split(", ").find_map(|part| part.strip_suffix(what));
        part.unwrap().trim().parse::<u32>().unwrap()
    };
    let failures: Vec<&str> = said.lines().filter(|line| line.trim_start().starts_with("× ")).collect();
    assert!(count(" tests") >= 140, "{summary}");
    assert!(count(" failed") <= 1 && said.contains(ANSWERED_IN_HTTP_1), "{summary}: {failures:?}");
    sidecar.stop().await.unwrap();
    engine.stop().await.unwrap();
}
