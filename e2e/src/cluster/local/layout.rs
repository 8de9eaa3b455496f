//! Names, addresses and paths of the local cluster. All are fixed, so that whatever a killed run left can be found.

use std::path::PathBuf;

/// Everything of the local cluster on this machine's file system lies below this directory.
pub(super) const BASE: &str = "/var/lib/tidegate-e2e";
/// The bridge that joins the nodes and this machine.
pub(super) const BRIDGE: &str = "tidegate0";
/// Addresses of the nodes' network, without the last number.
const NODE_NETWORK: &str = "172.31.241";
/// Range of the Services' addresses.
pub(super) const SERVICES: &str = "10.96.0.0/16";
/// Address of the cluster's DNS; `coredns.yaml` says the same.
pub(super) const DNS: &str = "10.96.0.10";
/// Range of the pods' addresses.
pub(super) const PODS: &str = "10.244.0.0/16";
/// Name of the cgroup below which the nodes live, in every hierarchy.
pub(super) const CGROUP: &str = "tidegate-e2e";
/// Where a node finds the simulated GPU driver; a directory of its own on each node.
pub(super) const DRIVER: &str = "/var/lib/tidegate-e2e/driver";
/// The reference that containerd gives a pod's sandbox.
pub(super) const PAUSE_IMAGE: &str = "tidegate.local/pause:1";

/// State of the running cluster, on a tmpfs: etcd's and containerd's writes cost no disk.
pub(super) fn run() -> PathBuf {
    PathBuf::from(BASE).join("local")
}

/// Directory of one node's state.
pub(super) fn node_dir(index: u8) -> PathBuf {
    run().join(node_name(index))
}

/// Host name of a node and name of its network namespace, as kind would name it.
pub(super) fn node_name(index: u8) -> String {
    match index {
        0 => "tidegate-control-plane".to_owned(),
        1 => "tidegate-worker".to_owned(),
        n => format!("tidegate-worker{n}"),
    }
}

/// Name of this machine's end of a node's link.
pub(super) fn link(index: u8) -> String {
    format!("tidegate-n{index}")
}

/// Address of this machine on the nodes' network.
pub(super) fn host_address() -> String {
    format!("{NODE_NETWORK}.1")
}

/// Address of a node.
pub(super) fn node_address(index: u8) -> String {
    format!("{NODE_NETWORK}.{}", 10 + u16::from(index))
}

/// Range of the addresses of a node's pods.
pub(super) fn pod_range(index: u8) -> String {
    format!("10.244.{index}.0/24")
}
