//! The node agent as a process: its own binary, the simulated NVML library loaded by the real NVML path, a kubelet
//! behind a unix socket and an API server that knows tokens.
#![allow(clippy::expect_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod apiserver;
mod kubelet;
mod node;
mod own;
mod process;
mod sampler;

use std::time::{Duration, Instant};

use node::{DEADLINE, GIB, Node, gpu};
use tidegate_e2e::harness::eventually;
use tidegate_gpu::{DeviceReading, DeviceReport};

/// A device with this reading, of any age.
fn memory(device: &DeviceReport) -> (u64, u64) {
    match &device.reading {
        DeviceReading::Memory { used_bytes, total_bytes, .. } => (*used_bytes, *total_bytes),
        DeviceReading::Unavailable(why) => panic!("{} has no reading: {why}", device.uuid),
    }
}

/// Why a device has no reading.
fn reason(device: &DeviceReport) -> Result<&str, &DeviceReport> {
    match &device.reading {
        DeviceReading::Unavailable(why) => Ok(why),
        DeviceReading::Memory { .. } => Err(device),
    }
}

/// The pod's devices, once each has a reading.
async fn read(node: &Node, pod: &str) -> Vec<DeviceReport> {
    let read = eventually("a reading of every device", DEADLINE, async || {
        let report = node.report(pod).await;
        let missing = report.devices.iter().find_map(|device| reason(device).ok().map(str::to_owned));
        missing.map_or(Ok(report.devices), Err)
    });
    read.await.expect("readings")
}

#[tokio::test]
async fn a_pod_is_told_about_its_own_gpus_and_no_others() {
    let node = Node::start(&[gpu("GPU-1", 0), gpu("GPU-2", 1)]).await;
    node.kubelet.give("llama", "nvidia.com/gpu", &["GPU-1"]);
    node.kubelet.give("mistral", "nvidia.com/gpu", &["GPU-2"]);
    node.kubelet.give("web", "nvidia.com/gpu", &[]);
    node.driver.write(&gpu("GPU-2", 1).used(39 * GIB));
    eventually("the other pod's GPU to fill", DEADLINE, async || {
        let devices = read(&node, "mistral").await;
        if memory(&devices[0]) == (39 * GIB, 40 * GIB) { Ok(()) } else { Err(devices) }
    })
    .await
    .expect("it fills");
    let llama = read(&node, "llama").await;
    assert_eq!(llama.len(), 1);
    assert_eq!((llama[0].uuid.as_str(), llama[0].shared, memory(&llama[0])), ("GPU-1", false, (0, 40 * GIB)));
    assert!(node.report("web").await.devices.is_empty());
}

#[tokio::test]
async fn only_pods_of_this_node_with_a_valid_token_are_answered() {
    let node = Node::start(&[gpu("GPU-1", 0)]).await;
    node.kubelet.give("llama", "nvidia.com/gpu", &["GPU-1"]);
    let cases = [
        (None, 401, "a bearer token is needed"),
        (Some("expired.node-a.s"), 401, "the token is not valid: token expired"),
        (Some("password"), 401, "not a service account token"),
        (Some("llama.node-b.s"), 403, "a pod on node node-b; this agent answers the pods of node node-a"),
        (Some("nobody.node-a.s"), 404, "lists no pod inference/nobody"),
    ];
    for (token, status, line) in cases {
        let answer = node.ask(token).await;
        assert_eq!(answer.0, status, "{token:?}: {}", answer.1);
        assert!(answer.1.contains(line) && answer.1.lines().count() == 1, "{token:?}: {}", answer.1);
    }
}

#[tokio::test]
async fn a_token_is_reviewed_once_for_many_questions() {
    let node = Node::start(&[gpu("GPU-1", 0)]).await;
    node.kubelet.give("llama", "nvidia.com/gpu", &["GPU-1"]);
    for _ in 0..10 {
        node.report("llama").await;
    }
    assert_eq!(node.apiserver.reviews(), 1);
}

#[tokio::test]
async fn replicas_and_mig_devices_are_read_and_an_unknown_id_says_that_it_is_one() {
    let cut = gpu("GPU-2", 1).mig("MIG-7", 10 * GIB, 4 * GIB);
    let node = Node::start(&[gpu("GPU-1", 0).used(GIB), cut]).await;
    node.kubelet.give("sliced", "nvidia.com/gpu.shared", &["GPU-1::3"]);
    node.kubelet.give("mig", "nvidia.com/mig-1g.10gb", &["MIG-7"]);
    node.kubelet.give("other", "nvidia.com/gpu", &["nvidia0"]);
    let sliced = read(&node, "sliced").await;
    assert_eq!(
        (sliced[0].uuid.as_str(), sliced[0].shared, memory(&sliced[0])),
        ("GPU-1", true, (GIB, 40 * GIB))
    );
    let mig = read(&node, "mig").await;
    assert_eq!((mig[0].uuid.as_str(), mig[0].shared, memory(&mig[0])), ("MIG-7", false, (4 * GIB, 10 * GIB)));
    let other = node.report("other").await.devices;
    assert_eq!(other[0].uuid, "nvidia0");
    assert!(reason(&other[0]).expect("no reading").contains("not a UUID of NVML"), "{other:?}");
}

#[tokio::test]
async fn a_gpu_that_fails_says_why_hides_no_other_and_comes_back() {
    let node = Node::start(&[gpu("GPU-1", 0), gpu("GPU-2", 1), gpu("GPU-3", 2)]).await;
    node.kubelet.give("llama", "nvidia.com/gpu", &["GPU-1", "GPU-2", "GPU-3"]);
    read(&node, "llama").await;
    node.driver.write(&gpu("GPU-1", 0).failing("NVML_ERROR_GPU_IS_LOST"));
    node.driver.write(&gpu("GPU-2", 1).failing("NVML_ERROR_UNKNOWN"));
    node.driver.write(&gpu("GPU-3", 2).used(7 * GIB));
    eventually("two reasons and a reading", DEADLINE, async || {
        let devices = node.report("llama").await.devices;
        let told = [reason(&devices[0]).unwrap_or(""), reason(&devices[1]).unwrap_or("")];
        let as_told = told[0].contains("fell off the bus") && told[1].contains("internal driver error");
        if as_told && memory(&devices[2]).0 == 7 * GIB { Ok(()) } else { Err(devices) }
    })
    .await
    .expect("each says its own");
    // At the end of the round whose readings were told already.
    eventually("the metrics", DEADLINE, async || {
        let metrics = node.metrics().await;
        let errors = ["GpuLost", "Unknown"]
            .map(|reason| format!("tidegate_agent_nvml_errors_total{{reason=\"{reason}\"}}"));
        let told = errors.iter().all(|line| metrics.contains(line));
        if told && metrics.contains("tidegate_agent_devices 1\n") { Ok(()) } else { Err(metrics) }
    })
    .await
    .expect("one device is left");
    node.driver.write(&gpu("GPU-1", 0).used(GIB));
    node.driver.write(&gpu("GPU-2", 1));
    assert_eq!(memory(&read(&node, "llama").await[0]).0, GIB);
}

#[tokio::test]
async fn while_the_kubelet_restarts_the_last_list_answers_and_then_the_new_one() {
    let node = Node::start(&[gpu("GPU-1", 0), gpu("GPU-2", 1)]).await;
    node.kubelet.give("llama", "nvidia.com/gpu", &["GPU-1"]);
    read(&node, "llama").await;
    node.kubelet.stop();
    eventually("a list that could not be had", DEADLINE, async || {
        assert_eq!(memory(&node.report("llama").await.devices[0]), (0, 40 * GIB));
        let (status, text) = node.ask(Some("new.node-a.s")).await;
        if status == 503 { Ok(()) } else { Err(text) }
    })
    .await
    .expect("a kubelet that is away");
    node.kubelet.give("new", "nvidia.com/gpu", &["GPU-2"]);
    node.kubelet.start_again();
    eventually("the pod that came meanwhile", DEADLINE, async || {
        let (status, text) = node.ask(Some("new.node-a.s")).await;
        if status == 200 { Ok(()) } else { Err(text) }
    })
    .await
    .expect("the new list");
    assert_eq!(memory(&read(&node, "llama").await[0]), (0, 40 * GIB));
}

#[tokio::test]
async fn a_missing_nvml_is_one_line_in_the_answer_in_readiness_and_in_the_log() {
    let node = Node::without_library().await;
    node.kubelet.give("llama", "nvidia.com/gpu", &["GPU-1"]);
    let line = eventually("the reason", DEADLINE, async || {
        let devices = node.report("llama").await.devices;
        match reason(&devices[0]) {
            Ok(why) if why.starts_with("NVML is not available from") => Ok(why.to_owned()),
            _ => Err(devices),
        }
    });
    let line = line.await.expect("a reason");
    assert!(line.contains("libnvidia-ml.so.1 (tried again every 30s)") && !line.contains('\n'), "{line}");
    let (status, text) = node.health("/readyz").await;
    assert_eq!(status, 200, "{text}");
    assert!(text.contains("nvml: NVML is not available"), "{text}");
    let metrics = node.metrics().await;
    assert!(metrics.contains("tidegate_agent_nvml_up 0\n"), "{metrics}");
    assert!(metrics.contains("reason=\"LibraryNotFound\""), "{metrics}");
    let lines = eventually("the reason in the log", DEADLINE, async || {
        match node.log().iter().filter(|line| line.contains("NVML is not available")).count() {
            0 => Err(node.log()),
            lines => Ok(lines),
        }
    });
    assert_eq!(lines.await.expect("a line"), 1);
}

#[tokio::test]
async fn a_hanging_driver_makes_readings_old_and_no_answer_slow() {
    let node = Node::start(&[gpu("GPU-1", 0)]).await;
    node.kubelet.give("llama", "nvidia.com/gpu", &["GPU-1"]);
    read(&node, "llama").await;
    node.driver.write(&gpu("GPU-1", 0).hanging(Duration::from_mins(10)));
    eventually("the reading to be two seconds old", DEADLINE, async || {
        let report = tokio::time::timeout(DEADLINE, node.report("llama")).await;
        let devices = report.expect("the answer waits for NVML").devices;
        match devices[0].reading {
            DeviceReading::Memory { age_millis, .. } if age_millis >= 2000 => Ok(()),
            _ => Err(devices),
        }
    })
    .await
    .expect("an old reading");
    assert!(node.stop().await.success(), "a hanging driver does not hold up the end");
}

#[tokio::test]
async fn the_agent_is_ready_when_its_certificate_has_come_and_takes_up_the_next() {
    let node = Node::without_certificate(&[gpu("GPU-1", 0)]).await;
    let (status, text) = node.health("/readyz").await;
    assert_eq!(status, 503);
    assert!(text.starts_with("no serving certificate in "), "{text}");
    assert_eq!(node.health("/healthz").await.0, 200);
    node.kubelet.give("llama", "nvidia.com/gpu", &["GPU-1"]);
    for _ in 0..2 {
        node.renew_certificate();
        eventually("the new certificate to be served", DEADLINE, async || {
            node.try_ask(Some("llama.node-a.s")).await.map_err(|error| format!("{error:#}"))
        })
        .await
        .expect("an answer that the new CA vouches for");
    }
    assert_eq!(node.health("/readyz").await.0, 200);
}

#[tokio::test]
async fn an_agent_that_is_told_to_stop_ends_at_once_with_success() {
    let node = Node::start(&[gpu("GPU-1", 0)]).await;
    let started = Instant::now();
    assert!(node.stop().await.success());
    assert!(started.elapsed() < DEADLINE, "{:?}", started.elapsed());
}

#[test]
fn a_garbage_flag_is_one_line_and_exit_code_64() {
    let output = process::run(&["--node-name=node-a", "--interval=often"]);
    assert_eq!(output.status.code(), Some(64));
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.contains("is not a time such as 2s or 500ms"), "{text}");
}
