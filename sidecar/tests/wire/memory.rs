//! Memory is limited, whatever clients do.

use std::net::TcpStream;

use crate::sidecar::{Sidecar, eventually};
use crate::start;
use crate::support::{Engine, Peer, ok};

/// What the sidecar of these tests may have.
const LIMIT: u64 = 64 << 20;

/// Enough for half as much again, if each made the sidecar keep as much as it can.
const STUCK: usize = 500;

pub(crate) fn resident(sidecar: &Sidecar) -> u64 {
    let worker = sidecar.workers()[0];
    let text = std::fs::read_to_string(format!("/proc/{worker}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
}

fn told(sidecar: &Sidecar, reason: &str) -> f64 {
    sidecar.metric(&format!("tidegate_protocol_refused_total{{reason=\"{reason}\"}}")).unwrap()
}

fn start_limited(engine: &Engine) -> Sidecar {
    start(engine.address, &["--max-memory-bytes", &LIMIT.to_string()])
}

fn connect(sidecar: &Sidecar) -> Peer {
    Peer::new(TcpStream::connect(sidecar.data).unwrap())
}

#[test]
fn heads_that_do_not_end_fill_no_more_memory_than_there_is_and_are_given_up_soon() {
    let engine = Engine::answering(|_| ok("good"));
    let sidecar = start_limited(&engine);
    let mut stuck: Vec<Peer> = (0..STUCK).map(|_| connect(&sidecar)).collect();
    let head = format!("GET /{}", "x".repeat(60_000));
    for peer in &mut stuck {
        peer.send(&head);
    }
    let mut most = 0;
    // Before they are given up they have to be accepted.
    eventually("they are given up and none of them is left", || {
        most = most.max(resident(&sidecar));
        let given_up = told(&sidecar, "head_timeout") > 0.0;
        (given_up && sidecar.metric("tidegate_connections") == Some(0.0)).then_some(())
    });
    assert!(most < LIMIT, "{most} bytes are resident");
    // Tight where the heads came before all connections were taken, full where they came after.
    let scarce =
        |line: &serde_json::Value| line["message"].as_str().is_some_and(|m| m.starts_with("memory is "));
    sidecar.line("a word about it", scarce);
    eventually("room again", || {
        let mut good = connect(&sidecar);
        good.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        (good.response().status == 200).then_some(())
    });
}
