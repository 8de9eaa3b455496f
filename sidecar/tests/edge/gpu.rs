use http::StatusCode;
use tidegate_gpu::{DeviceReading, DeviceReport, GpuReport};

use crate::agent::Agent;
use crate::authority::Authority;
use crate::engine::Engine;
use crate::sidecar::{Sidecar, eventually};

fn report(readings: Vec<DeviceReading>) -> GpuReport {
    let device = |(i, reading)| DeviceReport { uuid: format!("GPU-{i}"), shared: false, reading };
    GpuReport { devices: readings.into_iter().enumerate().map(device).collect() }
}

fn memory(used_bytes: u64) -> DeviceReading {
    DeviceReading::Memory { used_bytes, total_bytes: 100, age_millis: 0 }
}

fn errors(sidecar: &Sidecar, reason: &str) -> f64 {
    sidecar.metric(&format!("tidegate_gpu_errors_total{{reason=\"{reason}\"}}")).unwrap_or_default()
}

fn start(agent: &Agent) -> Sidecar {
    let engine = Engine::start();
    let arguments = agent.arguments();
    Sidecar::start(engine.address, &arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn the_memory_of_the_fullest_of_the_pods_gpus_is_followed() {
    let agent = Agent::start(&Authority::new());
    agent.report(&report(vec![memory(30), memory(40)]));
    let sidecar = start(&agent);
    eventually("the fullest", || {
        (sidecar.metric("tidegate_gpu_memory_used_bytes") == Some(40.0)).then_some(())
    });
    assert_eq!(sidecar.metric("tidegate_gpu_memory_total_bytes"), Some(100.0));
    agent.report(&report(vec![memory(90), memory(40)]));
    eventually("the next", || (sidecar.metric("tidegate_gpu_memory_used_bytes") == Some(90.0)).then_some(()));
}

#[test]
fn a_gpu_with_errors_is_counted_and_told_once_and_leaves_the_last_reading() {
    let agent = Agent::start(&Authority::new());
    agent.report(&report(vec![memory(30), memory(40)]));
    let sidecar = start(&agent);
    eventually("a reading", || {
        (sidecar.metric("tidegate_gpu_memory_used_bytes") == Some(40.0)).then_some(())
    });
    agent.report(&report(vec![memory(30), DeviceReading::Unavailable("GPU is lost".to_owned())]));
    eventually("two errors", || (errors(&sidecar, "device") >= 2.0).then_some(()));
    assert_eq!(sidecar.metric("tidegate_gpu_memory_used_bytes"), Some(40.0));
    sidecar.line("the loss", |line| {
        line["message"] == "GPU memory is unknown"
            && line["cause"].as_str().unwrap().contains("GPU-1: GPU is lost")
    });
    // An agent that does something else for seconds is told as another loss; the same one is not told twice in a row.
    let changes: Vec<_> = sidecar
        .lines()
        .into_iter()
        .filter(|line| line["message"].as_str().is_some_and(|message| message.starts_with("GPU memory is ")))
        .map(|line| line["reason"].clone())
        .collect();
    assert!(changes.windows(2).all(|pair| pair[0] != pair[1]), "{changes:?}");
}

#[test]
fn garbage_and_refusals_of_the_agent_are_told_apart_and_recovery_is_told() {
    let agent = Agent::start(&Authority::new());
    agent.answer(StatusCode::OK, "garbage");
    let sidecar = start(&agent);
    eventually("garbage", || (errors(&sidecar, "garbled") >= 1.0).then_some(()));
    agent.answer(StatusCode::FORBIDDEN, "token is of another node");
    eventually("a refusal", || (errors(&sidecar, "refused") >= 1.0).then_some(()));
    sidecar.line("its reason", |line| line["cause"].as_str().is_some_and(|m| m.contains("another node")));
    agent.report(&report(vec![memory(1)]));
    sidecar.line("recovery", |line| line["message"] == "GPU memory is known again");
}

#[test]
fn an_agent_that_is_cut_off_is_asked_again_on_a_new_connection() {
    let agent = Agent::start(&Authority::new());
    let sidecar = start(&agent);
    eventually("a question", || (agent.questions() >= 1).then_some(()));
    agent.server.cut();
    let before = agent.questions();
    eventually("questions after the cut", || (agent.questions() >= before + 2).then_some(()));
    agent.report(&report(vec![memory(7)]));
    eventually("its answer", || {
        (sidecar.metric("tidegate_gpu_memory_used_bytes") == Some(7.0)).then_some(())
    });
}

#[test]
fn without_an_agent_the_sidecar_serves_and_says_so() {
    let engine = Engine::start();
    let folder = tempfile::tempdir().unwrap();
    let (ca, token) = (folder.path().join("ca"), folder.path().join("token"));
    std::fs::write(&ca, Authority::new().pem()).unwrap();
    std::fs::write(&token, "token").unwrap();
    let (ca, token) = (ca.display().to_string(), token.display().to_string());
    let arguments = ["--agent", "https://127.0.0.1:1", "--agent-token", &token, "--ca", &ca];
    let sidecar = Sidecar::start(engine.address, &arguments);
    eventually("two errors", || (errors(&sidecar, "unreachable") >= 2.0).then_some(()));
    sidecar.line("the loss", |line| line["message"] == "GPU memory is unknown");
    let told = sidecar.lines().iter().filter(|line| line["message"] == "GPU memory is unknown").count();
    assert_eq!(told, 1);
    assert_eq!(sidecar.admin("/ready").unwrap().status, 200);
}
