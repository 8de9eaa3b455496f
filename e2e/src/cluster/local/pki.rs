//! Certificates, keys and kubeconfigs of the cluster, made by kubeadm's phases.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::cluster::binaries::KUBERNETES;
use crate::cluster::local::layout::{self, PODS, SERVICES};
use crate::cluster::process;

/// Directory of the certificates and keys.
pub(super) fn certificates() -> PathBuf {
    layout::run().join("pki")
}

/// The kubeconfig of a component: `controller-manager`, `scheduler`, `kube-proxy` or `kubelet-<node>`.
pub(super) fn kubeconfig_of(component: &str) -> PathBuf {
    layout::run().join("conf").join(format!("{component}.conf"))
}

/// The kubeconfig of the cluster's administrator.
pub(super) fn admin_kubeconfig() -> PathBuf {
    layout::run().join("kubeconfig")
}

/// Makes everything for nodes `0..=workers`.
pub(super) async fn create(binaries: &Path, workers: u8) -> anyhow::Result<()> {
    let config = layout::run().join("kubeadm.yaml");
    let conf = layout::run().join("conf");
    fs::create_dir_all(&conf)?;
    fs::write(&config, kubeadm_config())?;
    let [config, conf] = [&config, &conf].map(|path| path.display().to_string());
    let program = binaries.join("kubeadm").display().to_string();
    process::run(&program, &["init", "phase", "certs", "all", "--config", &config]).await?;
    let node_configs = (1..=workers).map(|index| {
        let node = layout::node_name(index);
        user_config(
            &program,
            &config,
            format!("system:node:{node}"),
            Some("system:nodes"),
            format!("kubelet-{node}"),
        )
    });
    let phase = ["init", "phase", "kubeconfig", "all", "--config", &config, "--kubeconfig-dir", &conf];
    futures::try_join!(
        process::run(&program, &phase),
        user_config(&program, &config, "system:kube-proxy".to_owned(), None, "kube-proxy".to_owned()),
        futures::future::try_join_all(node_configs),
    )?;
    fs::rename(kubeconfig_of("kubelet"), kubeconfig_of(&format!("kubelet-{}", layout::node_name(0))))?;
    fs::copy(kubeconfig_of("super-admin"), admin_kubeconfig())
        .context("kubeadm wrote no super-admin.conf")?;
    Ok(())
}

async fn user_config(
    program: &str,
    config: &str,
    user: String,
    group: Option<&str>,
    component: String,
) -> anyhow::Result<()> {
    let mut command = process::command(program);
    command.args(["kubeconfig", "user", "--config", config, "--client-name", &user]);
    command.args(group.into_iter().flat_map(|group| ["--org", group]));
    let text = process::output(&mut command).await?;
    fs::write(kubeconfig_of(&component), text)
        .with_context(|| format!("cannot write the kubeconfig of {component}"))
}

fn kubeadm_config() -> String {
    let (address, host) = (layout::node_address(0), layout::host_address());
    let (certificates, node) = (certificates().display().to_string(), layout::node_name(0));
    format!(
        "apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
localAPIEndpoint: {{advertiseAddress: {address}, bindPort: 6443}}
nodeRegistration: {{name: {node}}}
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
clusterName: tidegate
kubernetesVersion: {KUBERNETES}
certificatesDir: {certificates}
controlPlaneEndpoint: {address}:6443
encryptionAlgorithm: ECDSA-P256
networking: {{serviceSubnet: {SERVICES}, podSubnet: {PODS}}}
apiServer: {{certSANs: [127.0.0.1, localhost, {host}, {address}]}}
"
    )
}
