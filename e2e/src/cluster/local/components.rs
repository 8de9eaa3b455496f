//! The processes of a node and their command lines.

use std::fs::OpenOptions;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::Context;

use crate::cluster::local::config::NodeSpec;
use crate::cluster::local::layout::{self, PODS, SERVICES};
use crate::cluster::local::pki;

/// Where containerd listens, inside the node.
pub(super) const CONTAINERD: &str = "/run/containerd/containerd.sock";

/// One long-running process of a node.
pub(super) struct Component {
    program: String,
    arguments: Vec<String>,
    log: std::path::PathBuf,
}

impl Component {
    fn new(spec: &NodeSpec, name: &str, program: &Path, arguments: Vec<String>) -> Self {
        Self {
            program: program.display().to_string(),
            arguments,
            log: spec.path("log").join(format!("{name}.log")),
        }
    }

    fn kubernetes(spec: &NodeSpec, name: &str, arguments: &[String]) -> Self {
        Self::new(spec, name, &spec.binaries.join(name), arguments.to_vec())
    }

    /// Starts the process; what it prints goes to the end of its log.
    pub(super) fn start(&self) -> anyhow::Result<Child> {
        let log = OpenOptions::new().create(true).append(true).open(&self.log)?;
        Command::new(&self.program)
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", self.program))
    }
}

/// etcd, all in memory and so without waiting for a disk.
pub(super) fn etcd(spec: &NodeSpec) -> Component {
    let arguments = [
        format!("--data-dir={}", spec.path("etcd").display()),
        "--unsafe-no-fsync".to_owned(),
        "--listen-client-urls=http://127.0.0.1:2379".to_owned(),
        "--advertise-client-urls=http://127.0.0.1:2379".to_owned(),
        "--listen-peer-urls=http://127.0.0.1:2380".to_owned(),
        "--initial-advertise-peer-urls=http://127.0.0.1:2380".to_owned(),
        "--initial-cluster=default=http://127.0.0.1:2380".to_owned(),
    ];
    Component::kubernetes(spec, "etcd", &arguments)
}

/// The API server, with the authorization and admission of a kubeadm cluster.
pub(super) fn api_server(spec: &NodeSpec) -> Component {
    let key = |name: &str| pki::certificates().join(name).display().to_string();
    let arguments = [
        "--etcd-servers=http://127.0.0.1:2379".to_owned(),
        "--bind-address=0.0.0.0".to_owned(),
        "--secure-port=6443".to_owned(),
        format!("--advertise-address={}", layout::node_address(0)),
        format!("--service-cluster-ip-range={SERVICES}"),
        "--allow-privileged=true".to_owned(),
        "--authorization-mode=Node,RBAC".to_owned(),
        "--enable-admission-plugins=NodeRestriction".to_owned(),
        format!("--client-ca-file={}", key("ca.crt")),
        format!("--tls-cert-file={}", key("apiserver.crt")),
        format!("--tls-private-key-file={}", key("apiserver.key")),
        format!("--kubelet-client-certificate={}", key("apiserver-kubelet-client.crt")),
        format!("--kubelet-client-key={}", key("apiserver-kubelet-client.key")),
        "--kubelet-preferred-address-types=InternalIP".to_owned(),
        format!("--proxy-client-cert-file={}", key("front-proxy-client.crt")),
        format!("--proxy-client-key-file={}", key("front-proxy-client.key")),
        format!("--requestheader-client-ca-file={}", key("front-proxy-ca.crt")),
        "--requestheader-allowed-names=front-proxy-client".to_owned(),
        "--requestheader-extra-headers-prefix=X-Remote-Extra-".to_owned(),
        "--requestheader-group-headers=X-Remote-Group".to_owned(),
        "--requestheader-username-headers=X-Remote-User".to_owned(),
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local".to_owned(),
        format!("--service-account-key-file={}", key("sa.pub")),
        format!("--service-account-signing-key-file={}", key("sa.key")),
    ];
    Component::kubernetes(spec, "kube-apiserver", &arguments)
}

/// The controllers. At the default of 20 requests a second the last of them starts 5 s after the first.
pub(super) fn controller_manager(spec: &NodeSpec) -> Component {
    let key = |name: &str| pki::certificates().join(name).display().to_string();
    let arguments = [
        format!("--kubeconfig={}", pki::kubeconfig_of("controller-manager").display()),
        "--leader-elect=false".to_owned(),
        "--use-service-account-credentials=true".to_owned(),
        format!("--cluster-cidr={PODS}"),
        format!("--service-cluster-ip-range={SERVICES}"),
        format!("--root-ca-file={}", key("ca.crt")),
        format!("--service-account-private-key-file={}", key("sa.key")),
        format!("--cluster-signing-cert-file={}", key("ca.crt")),
        format!("--cluster-signing-key-file={}", key("ca.key")),
        "--kube-api-qps=500".to_owned(),
        "--kube-api-burst=500".to_owned(),
        "--bind-address=127.0.0.1".to_owned(),
    ];
    Component::kubernetes(spec, "kube-controller-manager", &arguments)
}

/// The scheduler.
pub(super) fn scheduler(spec: &NodeSpec) -> Component {
    let arguments = [
        format!("--kubeconfig={}", pki::kubeconfig_of("scheduler").display()),
        "--leader-elect=false".to_owned(),
        "--bind-address=127.0.0.1".to_owned(),
    ];
    Component::kubernetes(spec, "kube-scheduler", &arguments)
}

/// The container runtime.
pub(super) fn containerd(spec: &NodeSpec) -> Component {
    let config = spec.path("containerd.toml").display().to_string();
    Component::new(spec, "containerd", Path::new("containerd"), vec!["--config".to_owned(), config])
}

/// The kubelet.
pub(super) fn kubelet(spec: &NodeSpec) -> Component {
    let name = spec.name();
    let arguments = [
        format!("--config={}", spec.path("kubelet.yaml").display()),
        format!("--kubeconfig={}", pki::kubeconfig_of(&format!("kubelet-{name}")).display()),
        format!("--hostname-override={name}"),
        format!("--node-ip={}", layout::node_address(spec.index)),
        "--root-dir=/var/lib/kubelet".to_owned(),
    ];
    Component::kubernetes(spec, "kubelet", &arguments)
}

/// The Service proxy.
pub(super) fn kube_proxy(spec: &NodeSpec) -> Component {
    let arguments = [format!("--config={}", spec.path("kube-proxy.yaml").display())];
    Component::kubernetes(spec, "kube-proxy", &arguments)
}
