use rustix::process::{Pid, Signal, kill_process};

use crate::engine::Engine;
use crate::sidecar::{Sidecar, eventually, get};

pub(crate) fn kill(worker: i32) {
    kill_process(Pid::from_raw(worker).unwrap(), Signal::KILL).unwrap();
}

#[test]
fn a_crashed_worker_is_replaced_at_once_and_its_successor_keeps_counting() {
    let engine = Engine::start();
    let sidecar = Sidecar::start(engine.address, &[]);
    assert_eq!(sidecar.request("/", &[]).unwrap().status, 200);
    for restarts in 1..=3 {
        let before = sidecar.workers();
        kill(before[0]);
        eventually("death", || (sidecar.workers() != before).then_some(()));
        let answer = eventually("an answer", || sidecar.request("/", &[]));
        assert_eq!(answer.status, 200);
        sidecar.await_live();
        assert_eq!(sidecar.metric("tidegate_worker_restarts_total"), Some(f64::from(restarts)));
    }
    // How long the kernel takes to start a process is the machine's; what the supervisor waits before is its own.
    let deaths = sidecar.lines().into_iter().filter(|line| line["message"] == "worker died");
    let pauses: Vec<u64> = deaths.map(|line| line["pause_ms"].as_u64().unwrap()).collect();
    // It doubles with each death, unless a worker has lived for ten seconds before.
    assert!(pauses.len() == 3 && pauses[0] == 10 && pauses.iter().all(|pause| *pause <= 40), "{pauses:?}");
}

#[test]
fn connections_wait_in_the_kernel_while_there_is_no_worker() {
    let engine = Engine::start();
    let sidecar = Sidecar::start(engine.address, &[]);
    for _ in 0..3 {
        let before = sidecar.workers();
        kill(before[0]);
        // Sent before the next worker can be there: refused would be an error here, and there is no second try.
        let answer = eventually("the kernel to notice", || {
            (sidecar.workers() != before).then(|| get(sidecar.data, "/", &[]))
        });
        assert_eq!(answer.map(|answer| answer.status), Some(200));
    }
}

#[test]
fn orphans_and_dead_workers_leave_no_zombies() {
    let engine = Engine::start();
    let sidecar = Sidecar::start(engine.address, &[]);
    let first = sidecar.workers()[0];
    kill(first);
    eventually("one other worker", || {
        matches!(sidecar.workers()[..], [other] if other != first).then_some(())
    });
    assert!(!std::path::Path::new(&format!("/proc/{first}")).exists());
}

#[test]
fn sigterm_and_sigint_end_both_processes() {
    for signal in [Signal::TERM, Signal::INT] {
        let engine = Engine::start();
        let mut sidecar = Sidecar::start(engine.address, &[]);
        let worker = sidecar.workers()[0];
        sidecar.signal(signal);
        assert_eq!(sidecar.await_exit().code(), Some(0));
        assert!(!std::path::Path::new(&format!("/proc/{worker}")).exists());
    }
}

#[test]
fn sigterm_lets_requests_in_flight_end() {
    let engine = Engine::start();
    let mut sidecar = Sidecar::start(engine.address, &[]);
    engine.close_gate();
    let data = sidecar.data;
    let request = std::thread::spawn(move || get(data, "/", &[]));
    eventually("the request at the engine", || (engine.waiting() == 1).then_some(()));
    sidecar.signal(Signal::TERM);
    sidecar.line("the end's beginning", |line| line["message"] == "ending");
    engine.open_gate();
    assert_eq!(request.join().unwrap().unwrap().status, 200);
    assert_eq!(sidecar.await_exit().code(), Some(0));
}

#[test]
fn a_worker_dies_with_its_supervisor() {
    let engine = Engine::start();
    let sidecar = Sidecar::start(engine.address, &[]);
    let worker = sidecar.workers()[0];
    drop(sidecar);
    eventually("the worker's death", || {
        (!std::path::Path::new(&format!("/proc/{worker}")).exists()).then_some(())
    });
}

#[test]
fn a_worker_whose_supervisor_is_gone_already_does_not_start() {
    // Not this process: it was gone before the worker could ask to die with it.
    let gone = ["worker", "--supervisor", "1999999999", "--data-socket", "77", "--admin-socket", "78"];
    let mut command = std::process::Command::new(crate::sidecar::BINARY);
    let output = command.args(gone).args(["--restarts", "0", "--guard", "8000"]).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("the supervisor is gone"), "{stderr}");
}
