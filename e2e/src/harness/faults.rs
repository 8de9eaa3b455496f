//! Processes of the cluster, killed and stopped as a crash or an overloaded machine would. The nodes have to share this
//! machine's kernel.

use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use rustix::process::{Pid, Signal, kill_process};

use super::lab::Lab;

impl Lab {
    /// SIGKILL to the worker process of a pod's sidecar.
    pub fn kill_worker(&self, pod: &Pod) -> anyhow::Result<()> {
        kill(worker_of(pod)?)
    }

    /// SIGKILL to the first process of a pod's sidecar, with which its container ends.
    pub fn kill_sidecar(&self, pod: &Pod) -> anyhow::Result<()> {
        let parent = parent_of(worker_of(pod)?).context("a worker without a parent")?;
        kill(parent)
    }

    /// SIGKILL to a pod's engine, with which its container ends.
    pub fn kill_engine(&self, pod: &Pod) -> anyhow::Result<()> {
        let engine = process_of(pod, |words| words.contains(&"engine"));
        kill(engine.with_context(|| format!("no engine of pod {} on this machine", pod.name_any()))?)
    }
}

/// A process that does nothing until this is dropped, as if its machine were overloaded.
#[derive(Debug)]
pub struct Frozen(Vec<Pid>);

impl Frozen {
    /// The operator's process in a pod.
    pub fn operator(pod: &Pod) -> anyhow::Result<Self> {
        Self::stop(operator_of(pod).into_iter().collect())
    }

    /// The API server of this machine's cluster.
    pub fn api_server() -> anyhow::Result<Self> {
        Self::program("kube-apiserver")
    }

    /// The kubelets of this machine's cluster.
    pub fn kubelets() -> anyhow::Result<Self> {
        Self::program("kubelet")
    }

    fn program(name: &str) -> anyhow::Result<Self> {
        let is = |pid: &Pid| words(&command_line(*pid))[0].rsplit('/').next() == Some(name);
        Self::stop(processes().filter(is).collect())
    }

    /// The cluster's etcd.
    pub fn etcd() -> anyhow::Result<Self> {
        Self::stop(processes().filter(|pid| words(&command_line(*pid))[0].ends_with("etcd")).collect())
    }

    /// For so long.
    pub async fn last(self, length: Duration) {
        tokio::time::sleep(length).await;
    }

    fn stop(pids: Vec<Pid>) -> anyhow::Result<Self> {
        anyhow::ensure!(!pids.is_empty(), "there is no such process on this machine");
        let frozen = Self(pids);
        frozen.0.iter().try_for_each(|&pid| kill_process(pid, Signal::STOP)).context("stopping a process")?;
        Ok(frozen)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        for &pid in &self.0 {
            let _ended_meanwhile = kill_process(pid, Signal::CONT);
        }
    }
}

/// Nothing reaches the policy streams of an operator until this is dropped: packets vanish, and nobody is told.
#[derive(Debug)]
pub struct Cut {
    /// The network of the operator's pod.
    namespace: File,
}

/// Rules of the cut, a table of its own.
const CUT: &str = "table inet tidegate_cut";
/// Of the policy stream.
const STREAM_PORT: u16 = 8444;

impl Cut {
    /// The operator's pod.
    pub fn operator(pod: &Pod) -> anyhow::Result<Self> {
        let pid = operator_of(pod).with_context(|| format!("no operator in {}", pod.name_any()))?;
        let path = format!("/proc/{}/ns/net", pid.as_raw_nonzero());
        let cut = Self { namespace: File::open(&path).context(path)? };
        let chain = |hook: &str, side: &str| {
            format!("chain {hook} {{ type filter hook {hook} priority -10; tcp {side} {STREAM_PORT} drop; }}")
        };
        cut.nft(&format!("{CUT} {{ {}; {}; }}", chain("input", "dport"), chain("output", "sport")))?;
        Ok(cut)
    }

    /// For so long.
    pub async fn last(self, length: Duration) {
        tokio::time::sleep(length).await;
    }

    /// The network lives as long as it is held open, also when its pod is gone meanwhile.
    fn nft(&self, rules: &str) -> anyhow::Result<()> {
        let network = format!("--net=/proc/{}/fd/{}", std::process::id(), self.namespace.as_raw_fd());
        let output = Command::new("nsenter").args([&network, "nft", rules]).output().context("nsenter")?;
        let said = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(output.status.success(), "nft {rules}: {said}");
        Ok(())
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        let _with_its_pod = self.nft(&format!("delete {CUT}"));
    }
}

fn operator_of(pod: &Pod) -> Option<Pid> {
    process_of(pod, |words| words[0].ends_with("tidegate-operator"))
}

fn kill(pid: Pid) -> anyhow::Result<()> {
    kill_process(pid, Signal::KILL).context("killing a process")
}

fn worker_of(pod: &Pod) -> anyhow::Result<Pid> {
    let worker =
        process_of(pod, |words| words[0].contains("tidegate-sidecar") && words.get(1) == Some(&"worker"));
    worker.with_context(|| format!("no worker of pod {} on this machine", pod.name_any()))
}

/// The first process in a pod's cgroups whose command line is wanted.
fn process_of(pod: &Pod, wanted: impl Fn(&[&str]) -> bool) -> Option<Pid> {
    let uid = pod.metadata.uid.as_deref()?;
    let systemd_uid = uid.replace('-', "_");
    processes().find(|&pid| {
        let cgroup = read(pid, "cgroup");
        (cgroup.contains(uid) || cgroup.contains(&systemd_uid)) && wanted(&words(&command_line(pid)))
    })
}

fn processes() -> impl Iterator<Item = Pid> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?))
}

fn parent_of(pid: Pid) -> Option<Pid> {
    let status = read(pid, "status");
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    Pid::from_raw(parent.trim().parse().ok()?)
}

fn command_line(pid: Pid) -> String {
    read(pid, "cmdline")
}

/// Never empty.
fn words(command_line: &str) -> Vec<&str> {
    command_line.split('\0').collect()
}

fn read(pid: Pid, file: &str) -> String {
    std::fs::read_to_string(format!("/proc/{}/{file}", pid.as_raw_nonzero())).unwrap_or_default()
}
