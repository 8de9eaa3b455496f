//! Guarded ports that a name leads to, without redirection.

use std::net::TcpListener;
use std::process;

use crate::engine::Engine;
use crate::sidecar::{Sidecar, get};

const ONE_A_DAY: &str = r#"{"apiVersion":"policy.tidegate.dev/v1","revision":"1","limits":[{"policy":"a/b",
    "name":"one","mode":"Enforce","key":[],"algorithm":"fixedWindow","limit":1,"windowMillis":86400000}]}"#;

/// Two of the ports that no kernel gives away by itself.
fn free_ports() -> [u16; 2] {
    let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let first = 10_000 + u16::try_from(process::id() % 10_000).unwrap();
    let mut ports = (first..30_000).filter(free);
    [ports.next().unwrap(), ports.next().unwrap()]
}

#[test]
fn each_name_leads_to_its_own_engine_and_is_judged() {
    let (chat, embeddings) = (Engine::start(), Engine::start());
    let (chat_port, embeddings_port) = (chat.address.port(), embeddings.address.port());
    let [first, second] = free_ports();
    let folder = tempfile::tempdir().unwrap();
    let policy = folder.path().join("policy.json");
    std::fs::write(&policy, ONE_A_DAY).unwrap();
    let sidecar = Sidecar::run(&[
        &format!("--guard={chat_port},{embeddings_port}"),
        &format!("--named-port={first}:{chat_port},{second}:{embeddings_port}"),
        &format!("--policy-file={}", policy.display()),
    ]);
    assert_eq!(sidecar.data.port(), first);
    embeddings.close_gate();
    let answer = get(sidecar.data, "/v1/chat/completions", &[]).unwrap();
    assert_eq!(answer.status, 200, "it went to the engine whose gate is open");
    let answer = get(([127, 0, 0, 1], second).into(), "/v1/embeddings", &[]).unwrap();
    assert_eq!(answer.status, 429, "the other port is judged by the same limits");
    assert_eq!(embeddings.waiting(), 0);
}
