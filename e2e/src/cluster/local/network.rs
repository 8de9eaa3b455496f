//! The nodes' network: a bridge, a network namespace and a link per node, and routes so that this machine reaches pods and
//! Services directly.

use std::fs;

use crate::cluster::local::layout::{self, BRIDGE, PODS, SERVICES};
use crate::cluster::process::{run, succeeds, try_run};
use crate::cluster::routes;

/// Rules of this machine's firewall, each with the chain it goes into.
///
/// A Docker engine drops what is forwarded and applies that to bridged frames as well, hence the two ACCEPTs. A packet for a
/// Service that comes here has missed a kube-proxy that is not ready yet: refused it is tried again at once, lost only after
/// many seconds.
const RULES: [&[&str]; 3] = [
    &["FORWARD", "-i", BRIDGE, "-j", "ACCEPT"],
    &["FORWARD", "-o", BRIDGE, "-j", "ACCEPT"],
    &["FORWARD", "-i", BRIDGE, "-d", SERVICES, "-j", "REJECT"],
];

/// Makes the network for nodes `0..=workers`.
pub(super) async fn create(workers: u8) -> anyhow::Result<()> {
    routes::refuse_foreign(&[SERVICES, PODS]).await?;
    run("ip", &["link", "add", BRIDGE, "type", "bridge"]).await?;
    run("ip", &["addr", "add", &format!("{}/24", layout::host_address()), "dev", BRIDGE]).await?;
    run("ip", &["link", "set", BRIDGE, "up"]).await?;
    fs::write(format!("/proc/sys/net/ipv4/conf/{BRIDGE}/forwarding"), "1")?;
    for rule in RULES {
        run("iptables", &[&["-w", "-I"], rule].concat()).await?;
    }
    for index in 0..=workers {
        create_node(index, workers).await?;
    }
    run("ip", &["route", "replace", SERVICES, "via", &layout::node_address(0), "dev", BRIDGE]).await?;
    Ok(())
}

async fn create_node(index: u8, workers: u8) -> anyhow::Result<()> {
    let (node, link, address) = (layout::node_name(index), layout::link(index), layout::node_address(index));
    run("ip", &["netns", "add", &node]).await?;
    run("ip", &["link", "add", &link, "type", "veth", "peer", "name", "eth0", "netns", &node]).await?;
    run("ip", &["link", "set", &link, "master", BRIDGE, "up"]).await?;
    let inside = async |args: &[&str]| run("ip", &[&["-n", node.as_str()], args].concat()).await;
    inside(&["link", "set", "lo", "up"]).await?;
    inside(&["link", "set", "eth0", "up"]).await?;
    inside(&["addr", "add", &format!("{address}/24"), "dev", "eth0"]).await?;
    inside(&["route", "add", "default", "via", &layout::host_address()]).await?;
    for other in (0..=workers).filter(|&other| other != index) {
        inside(&["route", "replace", &layout::pod_range(other), "via", &layout::node_address(other)]).await?;
    }
    run("ip", &["route", "replace", &layout::pod_range(index), "via", &address, "dev", BRIDGE]).await?;
    Ok(())
}

/// Removes whatever there is of the network; the routes go with the bridge.
pub(super) async fn remove() {
    for node in namespaces() {
        try_run("ip", &["netns", "del", &node]).await;
    }
    for index in 0..=8 {
        if exists(&layout::link(index)) {
            try_run("ip", &["link", "del", &layout::link(index)]).await;
        }
    }
    for rule in RULES {
        while succeeds("iptables", &[&["-w", "-D"], rule].concat()).await {}
    }
    if exists(BRIDGE) {
        try_run("ip", &["link", "del", BRIDGE]).await;
    }
}

/// Whether there is anything of the network.
pub(super) fn is_there() -> bool {
    exists(BRIDGE) || !namespaces().is_empty()
}

fn exists(link: &str) -> bool {
    fs::exists(format!("/sys/class/net/{link}")).unwrap_or(false)
}

fn namespaces() -> Vec<String> {
    (0..=8)
        .map(layout::node_name)
        .filter(|node| fs::exists(format!("/run/netns/{node}")).unwrap_or(false))
        .collect()
}
