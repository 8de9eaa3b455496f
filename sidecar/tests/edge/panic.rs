//! A defect, of which the sidecar has none that a request could reach: the clock of its machine fails, which the standard
//! library answers with a panic.

use std::net::TcpStream;
use std::process::Command;

use crate::engine::Engine;
use crate::sidecar::{Sidecar, eventually};
use crate::support::Peer;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn a_panic_ends_its_own_request_and_no_other_on_its_thread_and_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let library = folder.path().join("clock_fails.so").display().to_string();
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/edge/clock_fails.c");
    let compiled = Command::new("cc").args(["-shared", "-fPIC", "-o", &library, source]).status();
    assert!(compiled.expect("the compiler that building needs too").success());
    let engine = Engine::start();
    let upstream = engine.address.to_string();
    let arguments = ["--upstream", &upstream, "--workers", "1", "--engine-metrics", "1"];
    let sidecar = Sidecar::run_with(&[("LD_PRELOAD", &library)], &arguments);
    let connect = || {
        let mut peer = Peer::new(TcpStream::connect(sidecar.data).unwrap());
        peer.send(GET);
        assert_eq!(peer.response().status, 200);
        peer
    };
    let mut beside = connect();
    for panics in 1..=3_u32 {
        let mut unlucky = connect();
        engine.close_gate();
        beside.send(GET);
        eventually("a request in flight", || (engine.waiting() == 1).then_some(()));
        // The next time that this thread looks at the clock is to see when this request arrived.
        unlucky.send("GET / HTTP/1.1\r\nHost: a\r\nclock-fails-in: 1\r\n\r\n");
        assert!(unlucky.rest().is_empty(), "it has no answer");
        eventually("the count", || {
            (sidecar.metric("tidegate_request_panics_total") == Some(f64::from(panics))).then_some(())
        });
        engine.open_gate();
        assert_eq!(beside.response().status, 200, "who was served beside it still is");
    }
    eventually("nothing is left of them", || {
        (sidecar.metric("tidegate_connections") == Some(1.0)
            && sidecar.metric("tidegate_in_flight") == Some(0.0))
        .then_some(())
    });
    assert_eq!(sidecar.metric("tidegate_worker_restarts_total"), Some(0.0));
    let told = |line: &serde_json::Value| line["message"].as_str().unwrap().starts_with("panic: ");
    assert_eq!(sidecar.lines().iter().filter(|line| told(line)).count(), 3);
}
