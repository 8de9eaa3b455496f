//! Configuration files of a node: container network, containerd, kubelet, kube-proxy, resolver.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::cluster::cni;
use crate::cluster::local::layout::{self, CGROUP, DNS, PAUSE_IMAGE, PODS};
use crate::cluster::local::pki;

/// What a node's PID 1 has to know; it gets it as a file, because it starts with nothing else.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct NodeSpec {
    /// Position in the cluster; 0 is the control plane.
    pub index: u8,
    /// Directory with the Kubernetes programs.
    pub binaries: PathBuf,
    /// docker-archives to load before the kubelet starts.
    pub first_images: Vec<PathBuf>,
    /// docker-archives to load beside it.
    pub more_images: Vec<PathBuf>,
    /// cgroups to join.
    pub cgroups: Vec<PathBuf>,
}

impl NodeSpec {
    /// The node's host name.
    pub(super) fn name(&self) -> String {
        layout::node_name(self.index)
    }

    /// The node's directory.
    pub(super) fn directory(&self) -> PathBuf {
        layout::node_dir(self.index)
    }

    /// A file or directory of the node.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory().join(name)
    }

    /// Writes the specification and every configuration file.
    pub(super) fn write(&self, workers: u8) -> anyhow::Result<()> {
        for directory in
            ["cni", "containerd", "kubelet", "log", "pods", "containers", "cni-state", "driver", "loaded"]
        {
            fs::create_dir_all(self.path(directory))?;
        }
        open_to_all(&self.path("driver"))?;
        fs::write(self.path("cni/10-ptp.conflist"), cni::config(&layout::pod_range(self.index)))?;
        fs::write(self.path("containerd.toml"), self.containerd())?;
        fs::write(self.path("kubelet.yaml"), self.kubelet())?;
        fs::write(self.path("kube-proxy.yaml"), self.kube_proxy())?;
        fs::write(self.path("resolv.conf"), "")?;
        fs::write(self.path("hosts"), hosts(workers))?;
        fs::write(self.path("node.json"), serde_json::to_vec_pretty(self)?)?;
        Ok(())
    }

    /// `restrict_oom_score_adj`: a machine whose bounding set lacks `CAP_SYS_RESOURCE` may not lower the score.
    fn containerd(&self) -> String {
        let directory = self.directory().display().to_string();
        format!(
            r#"version = 2
root = "{directory}/containerd"
state = "/run/containerd"
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "{directory}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  disable_hugetlb_controller = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{directory}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
"#
        )
    }

    /// `syncFrequency`: a changed `ConfigMap` reaches mounted volumes at a pod's next sync, a minute later by default.
    fn kubelet(&self) -> String {
        let (cgroup, directory) =
            (format!("/{CGROUP}/{}", self.name()), self.directory().display().to_string());
        let certificates = pki::certificates().display().to_string();
        format!(
            r#"apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
cgroupDriver: cgroupfs
cgroupRoot: {cgroup}
failCgroupV1: false
failSwapOn: false
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
authentication: {{anonymous: {{enabled: false}}, webhook: {{enabled: true}}, x509: {{clientCAFile: {certificates}/ca.crt}}}}
authorization: {{mode: Webhook}}
clusterDNS: [{DNS}]
clusterDomain: cluster.local
resolvConf: {directory}/resolv.conf
imageGCHighThresholdPercent: 100
evictionHard: {{nodefs.available: "0%", imagefs.available: "0%", nodefs.inodesFree: "0%", memory.available: 50Mi}}
syncFrequency: 10s
nodeStatusUpdateFrequency: 5s
volumePluginDir: /var/lib/kubelet/volumeplugins
maxPods: 200
"#
        )
    }

    /// The global connection-tracking limits are this machine's own and stay as they are.
    fn kube_proxy(&self) -> String {
        let (name, config) = (self.name(), pki::kubeconfig_of("kube-proxy").display().to_string());
        format!(
            r"apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: iptables
clusterCIDR: {PODS}
clientConnection: {{kubeconfig: {config}}}
hostnameOverride: {name}
iptables: {{minSyncPeriod: 100ms}}
conntrack: {{maxPerCore: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}}
"
        )
    }
}

fn hosts(workers: u8) -> String {
    (0..=workers).fold("127.0.0.1 localhost\n".to_owned(), |text, index| {
        format!("{text}{} {}\n", layout::node_address(index), layout::node_name(index))
    })
}

/// The simulated driver is written by pods of any user.
fn open_to_all(directory: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(directory, fs::Permissions::from_mode(0o1777))
}
