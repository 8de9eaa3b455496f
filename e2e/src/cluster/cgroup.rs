//! The cgroups of a cluster, in every hierarchy of cgroup v1 or in the one of v2.
//!
//! They also tell which processes belong to a cluster, so that it can be ended although everything else about it is lost.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};

const ROOT: &str = "/sys/fs/cgroup";

/// Makes the cgroups of these names, each below the one before it, and returns the last of every hierarchy.
pub(super) fn create(levels: &[&str]) -> anyhow::Result<Vec<PathBuf>> {
    let mut joined = Vec::new();
    for hierarchy in hierarchies()? {
        let mut directory = hierarchy.clone();
        for level in levels {
            delegate(&directory);
            let parent = directory.clone();
            directory.push(level);
            fs::create_dir_all(&directory)
                .with_context(|| format!("cannot create cgroup {}", directory.display()))?;
            inherit_cpuset(&parent, &directory)?;
        }
        joined.push(directory);
    }
    Ok(joined)
}

/// Kills every process in the cgroup of this name and below, and removes the cgroups.
pub(super) async fn remove(name: &str) -> anyhow::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let mut left = 0;
        for hierarchy in hierarchies()? {
            left += kill(&hierarchy.join(name));
        }
        if left == 0 {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("{left} cgroups or processes of the cluster cannot be removed: look at {ROOT}/*/{name}");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Whether there is a process in the cgroup of this name or below.
pub(super) fn any_process(name: &str) -> bool {
    hierarchies().is_ok_and(|all| all.iter().any(|hierarchy| has_process(&hierarchy.join(name))))
}

fn has_process(directory: &Path) -> bool {
    fs::read_to_string(directory.join("cgroup.procs")).is_ok_and(|procs| !procs.is_empty())
        || subdirectories(directory).iter().any(|below| has_process(below))
}

/// Kills what is in a cgroup and below, removes it when empty, and returns how much is left.
fn kill(directory: &Path) -> usize {
    if !directory.exists() {
        return 0;
    }
    let mut left = 0;
    for line in fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default().lines() {
        if let Some(pid) = line.parse().ok().and_then(Pid::from_raw) {
            left += 1;
            let _already_dead = kill_process(pid, Signal::KILL);
        }
    }
    left += subdirectories(directory).iter().map(|below| kill(below)).sum::<usize>();
    left + usize::from(fs::remove_dir(directory).is_err())
}

fn subdirectories(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

/// Roots of the mounted hierarchies: the one of v2, or all of v1 (where `unified` and `systemd` count too).
fn hierarchies() -> anyhow::Result<Vec<PathBuf>> {
    let root = Path::new(ROOT);
    if root.join("cgroup.procs").exists() {
        return Ok(vec![root.to_path_buf()]);
    }
    // `cpu,cpuacct` is a directory and `cpu` a link to it: read_dir's own file type tells them apart.
    let found: Vec<PathBuf> = subdirectories(root)
        .into_iter()
        .filter(|directory| directory.join("cgroup.procs").exists())
        .collect();
    if found.is_empty() {
        bail!("no cgroup hierarchy is mounted below {ROOT}: the kubelet needs one");
    }
    Ok(found)
}

/// Passes the controllers of v2 on to the cgroups below; v1 has no such file.
fn delegate(directory: &Path) {
    if let Ok(controllers) = fs::read_to_string(directory.join("cgroup.controllers")) {
        for controller in controllers.split_whitespace() {
            let _not_delegable =
                fs::write(directory.join("cgroup.subtree_control"), format!("+{controller}"));
        }
    }
}

/// A new cpuset of v1 has no processor and no memory, and nothing can join it before it has.
fn inherit_cpuset(parent: &Path, directory: &Path) -> anyhow::Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let is_v1 = !directory.join("cgroup.controllers").exists();
        if is_v1 && directory.join(file).exists() {
            let value = fs::read_to_string(parent.join(file))?;
            fs::write(directory.join(file), value.trim())
                .with_context(|| format!("cannot set {file} of {}", directory.display()))?;
        }
    }
    Ok(())
}
