//! The ways to pods and Services: from this machine, and on nodes of our own image from node to node.

use anyhow::Context;
use k8s_openapi::api::core::v1::Node;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};

use crate::cluster::kind::docker::Docker;
use crate::cluster::{cni, process, readiness};

/// Range of the Services' addresses, kind's default.
pub(super) const SERVICES: &str = "10.96.0.0/16";
/// Range of the pods' addresses, kind's default.
pub(super) const PODS: &str = "10.244.0.0/16";
/// Writes what the container network of a node is.
const WRITE: &str = r#"printf %s "$1" > /etc/cni/net.d/10-ptp.conflist"#;

/// A node and the addresses that lead to it.
struct Place {
    name: String,
    address: String,
    pods: String,
}

/// Tests talk to pods and Services by their addresses: this machine routes them through the nodes.
pub(super) async fn route_to_pods(client: &Client, docker: &Docker) -> anyhow::Result<()> {
    for (position, place) in places(client, docker).await?.iter().enumerate() {
        let services = (position == 0).then_some(SERVICES);
        for range in [Some(place.pods.as_str()), services].into_iter().flatten() {
            process::run("ip", &["route", "replace", range, "via", &place.address])
                .await
                .context("cannot route to the pods: run this as root, on the machine of the Docker engine")?;
        }
    }
    Ok(())
}

/// What the network plugin of kind's own nodes does. Services come first: a connection to one that nobody proxies yet is
/// lost, and tried again only after many seconds.
pub(super) async fn connect(client: &Client, docker: &Docker, nodes: usize) -> anyhow::Result<()> {
    readiness::of_service_proxy(client, nodes).await?;
    let places = places(client, docker).await?;
    for place in &places {
        let config = cni::config(&place.pods);
        docker.run(&["exec", &place.name, "sh", "-c", WRITE, "sh", &config]).await?;
        for other in places.iter().filter(|other| other.name != place.name) {
            let route = ["ip", "route", "replace", &other.pods, "via", &other.address];
            docker.run(&[&["exec", &place.name], route.as_slice()].concat()).await?;
        }
    }
    for place in &places {
        readiness::of_node(client, &place.name).await?;
    }
    readiness::of_dns(client).await
}

/// The nodes, by name: the control plane's is the first.
async fn places(client: &Client, docker: &Docker) -> anyhow::Result<Vec<Place>> {
    let mut places = Vec::new();
    for node in Api::<Node>::all(client.clone()).list(&ListParams::default()).await? {
        let name = node.name_any();
        let address = docker.address_of(&name).await?;
        let pods = node.spec.and_then(|spec| spec.pod_cidr);
        let pods = pods.with_context(|| format!("node {name} has no range of pod addresses"))?;
        places.push(Place { name, address, pods });
    }
    Ok(places)
}
