//! What the cluster's administrator chose, and what is known of a namespace.

use std::collections::BTreeMap;

use super::{ContainerBounds, Interception};

/// How sidecars are made in this cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SidecarSettings {
    /// Version written on injected pods.
    pub version: String,
    /// Image of both injected containers.
    pub image: String,
    /// `Always`, `IfNotPresent` or `Never`.
    pub image_pull_policy: String,
    /// Names of Secrets in each pod's own namespace by which that image is pulled.
    pub pull_secrets: Vec<String>,
    /// Where the policy stream is: `https://host:port`.
    pub operator_url: String,
    /// Where the node's GPU agent is; none when there is no agent.
    pub agent_url: Option<String>,
    /// `error`, `warn`, `info`, `debug` or `trace`.
    pub log_level: String,
    /// Port that guarded traffic is redirected to.
    pub proxy_port: u16,
    /// Port of `/metrics`, `/ready`, probes and drain.
    pub admin_port: u16,
    /// How guarded traffic comes to the sidecar, where the pod does not say.
    pub interception: Interception,
    /// Where sidecars send traces; none when they trace nothing.
    pub tracing: Option<SidecarTracing>,
    /// Resources of the injected containers.
    pub resources: SidecarResources,
}

/// Traces of injected sidecars.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SidecarTracing {
    /// A collector that takes OTLP over HTTP.
    pub endpoint: String,
    /// Share of the requests that are traced, of those whose caller says nothing about it.
    pub ratio: String,
}

/// Resources of the injected containers, as Kubernetes quantities.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SidecarResources {
    /// CPU request. Always there: without one the kernel starves the proxy first.
    pub cpu_request: String,
    /// CPU limit; none by default, because throttling the proxy delays every request.
    pub cpu_limit: Option<String>,
    /// Memory request.
    pub memory_request: String,
    /// Memory limit.
    pub memory_limit: String,
    /// CPU request and limit in a pod of `QoS` class Guaranteed, which must have both and equal.
    pub guaranteed_cpu: String,
}

impl Default for SidecarResources {
    fn default() -> Self {
        Self {
            cpu_request: "50m".to_owned(),
            cpu_limit: None,
            memory_request: "32Mi".to_owned(),
            memory_limit: "128Mi".to_owned(),
            guaranteed_cpu: "500m".to_owned(),
        }
    }
}

/// What is known of a pod's namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NamespaceFacts {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotations; only those of meshes are read.
    pub annotations: BTreeMap<String, String>,
    /// What its `LimitRange`s ask of each container.
    pub bounds: ContainerBounds,
}
