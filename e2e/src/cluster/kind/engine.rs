//! A Docker engine of the cluster's own, for a machine where none answers: Debian's.
//!
//! Its processes and those of the nodes live in one cgroup, its mounts in a mount namespace of its own, its files in one
//! directory; it makes one bridge and no rule of the firewall. So ending the cgroup and removing bridge and directory
//! leaves nothing, whatever its end was.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::cluster::kind::docker::Docker;
use crate::cluster::kind::{network, runtime};
use crate::cluster::sysctls::Sysctls;
use crate::cluster::{cache, cgroup, packages, process, progress::Progress, routes};
use crate::harness::eventually;

/// Everything of the engine on this machine's file system lies below this directory.
const BASE: &str = "/var/lib/tidegate-e2e/kind";
/// Name of the cgroup below which the engine and the nodes live, in every hierarchy.
const CGROUP: &str = "tidegate-e2e-kind";
/// The bridge that joins the nodes and this machine.
const BRIDGE: &str = "tidegate-kind0";
/// Addresses of the nodes' network.
const NODES: &str = "172.31.242.0/24";
/// How long the engine may take to answer.
const PATIENCE: Duration = Duration::from_mins(1);
/// Joins the cgroups before the engine starts anything, and becomes the engine.
const START: &str = r#"engine=$1; config=$2; shift 2
for group; do echo $$ > "$group/cgroup.procs" || exit 1; done
exec "$engine" --config-file "$config""#;

/// What is looked for, and the package that brings it.
const NEEDS: [(&str, &str); 6] = [
    ("containerd", "containerd"),
    ("runc", "runc"),
    ("iptables", "iptables"),
    ("ip", "iproute2"),
    ("unshare", "util-linux"),
    (LIBRARY, "libdevmapper1.02.1"),
];
/// The one library of Debian's engine that not every Debian has.
const LIBRARY: &str = if cfg!(target_arch = "aarch64") {
    "/usr/lib/aarch64-linux-gnu/libdevmapper.so.1.02.1"
} else {
    "/usr/lib/x86_64-linux-gnu/libdevmapper.so.1.02.1"
};

/// What is written down before the engine starts, so that any later run can end it.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Record {
    /// Folder that the engine's programs were unpacked in; none where they are installed.
    pub programs: Option<PathBuf>,
    /// Values to put back.
    sysctls: Sysctls,
}

/// The record of an engine that runs or was left behind.
pub(super) fn record() -> Option<Record> {
    serde_json::from_slice(&fs::read(file("engine.json")).ok()?).ok()
}

/// Whether any of its processes or of its nodes' runs.
pub(super) fn is_running() -> bool {
    cgroup::any_process(CGROUP)
}

/// Where the engine listens.
pub(super) fn address() -> String {
    format!("unix://{}", file("docker.sock").display())
}

/// Starts the engine and makes the nodes' network.
pub(super) async fn start(progress: &Progress) -> anyhow::Result<Docker> {
    packages::ensure(progress, &NEEDS).await?;
    routes::refuse_foreign(&[NODES, network::SERVICES, network::PODS]).await?;
    let programs = match packages::program("dockerd") {
        Some(_installed) => None,
        None => Some(packages::unpacked(progress, "docker.io").await?),
    };
    fs::create_dir_all(BASE).with_context(|| format!("cannot create {BASE}"))?;
    fs::set_permissions(BASE, fs::Permissions::from_mode(0o700))?;
    let record = Record { programs: programs.clone(), sysctls: Sysctls::read() };
    fs::write(file("engine.json"), serde_json::to_vec(&record)?)?;
    let runtime = if runtime::is_needed()? { Some(own_program()?) } else { None };
    fs::write(file("docker.json"), config(runtime.as_deref()).to_string())?;
    spawn(programs.as_deref())?;
    let docker = Docker::Own(programs);
    eventually("the Docker engine", PATIENCE, async || {
        if docker.answers().await { Ok(()) } else { Err(process::tail(&file("log"), 3)) }
    })
    .await?;
    let name = format!("com.docker.network.bridge.name={BRIDGE}");
    let network = ["network", "create", "--driver", "bridge", "--opt", &name, "--subnet", NODES, "kind"];
    docker.run(&network).await?;
    progress.say("a Docker engine of our own is up");
    Ok(docker)
}

/// Ends the engine and its nodes, and removes what they have put on this machine.
pub(super) async fn remove() -> anyhow::Result<()> {
    cgroup::remove(CGROUP).await?;
    let bridge = Path::new("/sys/class/net").join(BRIDGE);
    // Connections that nobody closed keep a node's side of a link for minutes, and with it this one.
    for link in fs::read_dir(bridge.join("brif")).into_iter().flatten().flatten() {
        process::try_run("ip", &["link", "del", &link.file_name().to_string_lossy()]).await;
    }
    if bridge.exists() {
        process::run("ip", &["link", "del", BRIDGE]).await?;
    }
    let record = record();
    cache::remove_dir(Path::new(BASE))?;
    if let Some(record) = record {
        record.sysctls.put_back();
    }
    // Another cluster's state may lie beside it.
    let _in_use = Path::new(BASE).parent().map(fs::remove_dir);
    Ok(())
}

/// One clear line for each thing that an engine needs and no package brings.
pub(super) async fn check() -> anyhow::Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!(
            "no Docker engine answers `docker info`: start one, or run this as root on Debian, where one of its own is started, or take --cluster current"
        );
    }
    let filesystems = async || fs::read_to_string("/proc/filesystems");
    if !has_overlayfs(&filesystems().await?) {
        process::try_run("modprobe", &["overlay"]).await;
    }
    if !has_overlayfs(&filesystems().await?) {
        bail!(
            "this kernel has no overlayfs, which a Docker engine and its nodes need: load the module `overlay`, or take --cluster current"
        );
    }
    Ok(())
}

fn has_overlayfs(filesystems: &str) -> bool {
    filesystems.lines().any(|line| line.trim_start_matches("nodev").trim() == "overlay")
}

/// The engine's configuration. It touches neither the firewall nor the forwarding of this machine: what the nodes say to
/// each other and to this machine stays on one bridge.
fn config(runtime: Option<&Path>) -> Value {
    let mut config = json!({
        "data-root": file("data"),
        "exec-root": file("exec"),
        "pidfile": file("pid"),
        "hosts": [address()],
        "storage-driver": "overlay2",
        "exec-opts": ["native.cgroupdriver=cgroupfs"],
        "cgroup-parent": format!("/{CGROUP}"),
        "bridge": "none",
        "iptables": false,
        "ip-forward": false,
    });
    if let Some(program) = runtime {
        config["runtimes"] = json!({"tidegate": {"path": program, "runtimeArgs": ["oci-runtime"]}});
        config["default-runtime"] = json!("tidegate");
    }
    config
}

/// A copy of this program, which may be built anew while the engine calls it.
fn own_program() -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let copy = file("tidegate-e2e");
    fs::copy(&program, &copy).with_context(|| format!("cannot copy {}", program.display()))?;
    Ok(copy)
}

/// Starts the engine in a session of its own, so that Ctrl-C at this terminal does not reach it.
fn spawn(programs: Option<&Path>) -> anyhow::Result<()> {
    let log = fs::File::create(file("log"))?;
    let engine = programs.map_or_else(|| "dockerd".into(), |folder| folder.join("usr/sbin/dockerd"));
    std::process::Command::new("setsid")
        .args(["unshare", "--mount", "--propagation", "private", "sh", "-c", START, "sh"])
        .arg(engine)
        .arg(file("docker.json"))
        .args(cgroup::create(&[CGROUP, "engine"])?)
        .env("PATH", packages::path(programs))
        .current_dir(BASE)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("cannot start setsid unshare")?;
    Ok(())
}

fn file(name: &str) -> PathBuf {
    Path::new(BASE).join(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engine_keeps_to_its_directory_and_cgroup_and_leaves_the_firewall_alone() {
        let config = config(None);
        for path in ["data-root", "exec-root", "pidfile"] {
            assert!(config[path].as_str().unwrap().starts_with(BASE), "{path}");
        }
        assert_eq!(config["hosts"], json!([format!("unix://{BASE}/docker.sock")]));
        assert_eq!(config["cgroup-parent"], format!("/{CGROUP}"));
        assert_eq!((&config["iptables"], &config["ip-forward"]), (&json!(false), &json!(false)));
        assert!(config.get("default-runtime").is_none());
    }

    #[test]
    fn overlayfs_is_found_by_its_whole_name() {
        assert!(has_overlayfs("nodev\ttmpfs\nnodev\toverlay\n"));
        assert!(!has_overlayfs("nodev\toverlayfs2\n\text4\n"));
    }
}
