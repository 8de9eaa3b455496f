//! PID 1 of a node.
//!
//! It is started in new namespaces for processes, mounts, host name and IPC, and in the node's network namespace. When it is
//! killed the kernel ends every process and every mount of the node, so that nothing can be left behind.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_change};
use rustix::process::{Pid, WaitOptions};

use crate::cluster::local::components::{self, CONTAINERD, Component};
use crate::cluster::local::config::NodeSpec;
use crate::cluster::local::health::Health;
use crate::cluster::local::layout;
use crate::cluster::local::mark::Mark;

/// How long the node waits for each step of its start.
const PATIENCE: Duration = Duration::from_mins(2);
/// Pause before a component that has ended is started again.
const RESTART_DELAY: Duration = Duration::from_secs(1);

/// Runs the node described in a file; returns only with an error.
pub(crate) fn run(spec: &Path) -> anyhow::Result<()> {
    let spec: NodeSpec = serde_json::from_slice(&fs::read(spec)?)?;
    enter(&spec).context("cannot set the node up")?;
    let mut processes = Processes::default();
    start(&spec, &mut processes)?;
    processes.supervise();
    Ok(())
}

/// Takes the node's cgroups, name and mounts.
fn enter(spec: &NodeSpec) -> anyhow::Result<()> {
    // The proc file system of the machine is still the one mounted here: it tells the number that others know us by.
    let number = fs::read_link("/proc/self")?;
    fs::write(spec.path("pid"), number.display().to_string())?;
    for cgroup in &spec.cgroups {
        fs::write(cgroup.join("cgroup.procs"), "0")
            .with_context(|| format!("cannot join {}", cgroup.display()))?;
    }
    rustix::system::sethostname(spec.name().as_bytes())?;
    mount("proc", "/proc", "proc", MountFlags::empty(), None)?;
    mount("tmpfs", "/run", "tmpfs", MountFlags::empty(), None)?;
    for directory in ["/run/lock", "/run/netns", "/run/containerd"] {
        fs::create_dir_all(directory)?;
    }
    let binds = [
        ("kubelet", "/var/lib/kubelet"),
        ("pods", "/var/log/pods"),
        ("containers", "/var/log/containers"),
        ("cni-state", "/var/lib/cni"),
        ("driver", layout::DRIVER),
        ("hosts", "/etc/hosts"),
        ("resolv.conf", "/etc/resolv.conf"),
    ];
    for (own, place) in binds {
        mount_bind(spec.path(own), place).with_context(|| format!("cannot mount {place}"))?;
    }
    mount_change("/", MountPropagationFlags::SHARED | MountPropagationFlags::REC)?;
    fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
    fs::write("/proc/sys/net/ipv4/conf/all/rp_filter", "0")?;
    Ok(())
}

/// Starts the components in the order of their needs. What starts before its need is there would go into a back-off of
/// many seconds.
fn start(spec: &NodeSpec, processes: &mut Processes) -> anyhow::Result<()> {
    let is_control_plane = spec.index == 0;
    if is_control_plane {
        processes.add(components::etcd(spec))?;
        processes.add(components::api_server(spec))?;
    }
    processes.add(components::containerd(spec))?;
    wait_for("containerd's socket", || Path::new(CONTAINERD).exists())?;
    for archive in &spec.first_images {
        Import::start(spec, archive)?.finish()?;
    }
    let others = spec
        .more_images
        .iter()
        .map(|archive| Import::start(spec, archive))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let health = Health::of_api_server()?;
    wait_for("the API server", || health.is_ok("/livez"))?;
    if is_control_plane {
        processes.add(components::controller_manager(spec))?;
        processes.add(components::scheduler(spec))?;
    }
    wait_for("the API server's readiness", || health.is_ok("/readyz"))?;
    processes.add(components::kubelet(spec))?;
    processes.add(components::kube_proxy(spec))?;
    for import in others {
        import.finish()?;
    }
    fs::write(spec.path("started"), "")?;
    Ok(())
}

/// An image on its way into containerd.
struct Import {
    ctr: Child,
    mark: Mark,
}

impl Import {
    fn start(spec: &NodeSpec, archive: &Path) -> anyhow::Result<Self> {
        let mark = Mark::of(spec.index, archive)?;
        let mut command = Command::new("ctr");
        command.args(["-a", CONTAINERD, "-n", "k8s.io", "images", "import"]).arg(archive);
        Ok(Self { ctr: command.spawn().context("cannot start ctr")?, mark })
    }

    fn finish(mut self) -> anyhow::Result<()> {
        let status = self.ctr.wait()?;
        if !status.success() {
            bail!("ctr images import failed ({status})");
        }
        self.mark.set()
    }
}

fn wait_for(what: &str, mut is_there: impl FnMut() -> bool) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !is_there() {
        if Instant::now() > deadline {
            bail!("{what} is not there after {} s", PATIENCE.as_secs());
        }
        std::thread::sleep(Duration::from_millis(25));
    }
    Ok(())
}

/// The running components by process number.
#[derive(Default)]
struct Processes {
    running: HashMap<u32, Component>,
}

impl Processes {
    fn add(&mut self, component: Component) -> anyhow::Result<()> {
        let child = component.start()?;
        self.running.insert(child.id(), component);
        Ok(())
    }

    /// Reaps every orphan of the node and starts components again, for ever.
    fn supervise(&mut self) {
        loop {
            let ended = match rustix::process::wait(WaitOptions::empty()) {
                Ok(Some((pid, _status))) => Pid::as_raw(Some(pid)),
                Ok(None) | Err(rustix::io::Errno::INTR) => continue,
                Err(_no_children) => {
                    std::thread::sleep(RESTART_DELAY);
                    continue;
                }
            };
            if let Some(component) = self.running.remove(&ended.cast_unsigned()) {
                std::thread::sleep(RESTART_DELAY);
                if let Err(error) = self.add(component) {
                    eprintln!("node-init: {error:#}");
                }
            }
        }
    }
}
