//! Killing the worker of a pod's sidecar, as a crash would.

use anyhow::Context;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use rustix::process::{Pid, Signal, kill_process};

use super::lab::Lab;

impl Lab {
    /// SIGKILL to the worker process of a pod's sidecar. The node has to share this machine's kernel.
    pub fn kill_worker(&self, pod: &Pod) -> anyhow::Result<()> {
        let uid = pod.metadata.uid.clone().context("a pod without uid")?;
        let pid = worker_of(&uid)
            .with_context(|| format!("no worker of pod {} on this machine", pod.name_any()))?;
        kill_process(pid, Signal::KILL).context("killing the worker")
    }
}

fn worker_of(uid: &str) -> Option<Pid> {
    let systemd_uid = uid.replace('-', "_");
    let processes = std::fs::read_dir("/proc").ok()?.flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let read =
        |pid: i32, file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let mut workers = pids.filter(|&pid| {
        let cgroup = read(pid, "cgroup");
        let command = read(pid, "cmdline");
        (cgroup.contains(uid) || cgroup.contains(&systemd_uid))
            && command.contains("tidegate-sidecar\0")
            && command.split('\0').nth(1) == Some("worker")
    });
    workers.next().and_then(Pid::from_raw)
}
