use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::engine::Engine;
use crate::sidecar::{Sidecar, eventually, get};

pub(crate) fn kill(worker: i32) {
    kill_process(Pid::from_raw(worker).unwrap(), Signal::KILL).unwrap();
}

#[test]
fn orphans_and_dead_workers_leave_no_zombies() {
    let engine = Engine::start();
    let sidecar = Sidecar::start(engine.address, &[]);
    let first = sidecar.workers()[0];
    kill(first);
    eventually("one other worker", || {
        (sidecar.workers().len() == 1 && sidecar.workers()[0] != first).then_some(())
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
fn a_worker_dies_with_its_supervisor() {
    let engine = Engine::start();
    let sidecar = Sidecar::start(engine.address, &[]);
    let worker = sidecar.workers()[0];
    drop(sidecar);
    eventually("the worker's death", || {
        (!std::path::Path::new(&format!("/proc/{worker}")).exists()).then_some(())
    });
}
