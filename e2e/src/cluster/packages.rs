//! Debian packages that the clusters and the benchmarks need: only what is missing is installed.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use crate::cluster::{cache, process, progress::Progress};

/// What is looked for, and the package that brings it.
const NEEDS: [(&str, &str); 10] = [
    ("containerd", "containerd"),
    ("ctr", "containerd"),
    ("runc", "runc"),
    ("/usr/lib/cni/ptp", "containernetworking-plugins"),
    ("iptables", "iptables"),
    ("conntrack", "conntrack"),
    ("ip", "iproute2"),
    ("nsenter", "util-linux"),
    ("mount", "mount"),
    ("busybox", "busybox-static"),
];

const DIRECTORIES: [&str; 6] =
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// Path of a program, looked for where Debian keeps programs, also those that only root's `PATH` has.
pub fn program(name: &str) -> Option<String> {
    if name.starts_with('/') {
        return Path::new(name).exists().then(|| name.to_owned());
    }
    let mut paths = DIRECTORIES.iter().map(|directory| format!("{directory}/{name}"));
    paths.find(|path| Path::new(path).exists())
}

/// Where programs are looked for: first among those of an unpacked package (see [`unpacked`]), then where Debian keeps
/// them, also those that only root's `PATH` has.
pub fn path(unpacked: Option<&Path>) -> String {
    let own =
        unpacked.map(|folder| ["usr/bin", "usr/sbin"].map(|part| folder.join(part).display().to_string()));
    let all = own.into_iter().flatten().chain(DIRECTORIES.map(str::to_owned));
    all.collect::<Vec<_>>().join(":")
}

/// Installs what is missing.
///
/// # Errors
/// One line that says what to do when this process is not root or the system is not Debian's.
pub async fn install(progress: &Progress) -> anyhow::Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!(
            "the local cluster needs root (namespaces, mounts, cgroups): run it as root, or take --cluster kind or --cluster current"
        );
    }
    ensure(progress, &NEEDS).await
}

/// Installs the packages of those programs (each with the package that brings it) that are not there.
///
/// # Errors
/// One line that names the packages when this process is not root or the system is not Debian's.
pub async fn ensure(progress: &Progress, needs: &[(&str, &str)]) -> anyhow::Result<()> {
    let mut missing: Vec<&str> =
        needs.iter().filter(|(needed, _)| program(needed).is_none()).map(|&(_, package)| package).collect();
    missing.dedup();
    if missing.is_empty() {
        return Ok(());
    }
    if program("apt-get").is_none() || !rustix::process::geteuid().is_root() {
        bail!(
            "missing: {} (names of Debian's packages): install them, or run this as root where there is apt-get",
            missing.join(" ")
        );
    }
    let what = format!("apt-get install {}", missing.join(" "));
    progress.say(&what);
    if !has_package_lists() || apt_install(&missing).await.is_err() {
        // No lists, or lists so old that they name packages the mirror no longer has.
        progress.during("apt-get update", process::output(apt().arg("update"))).await?;
        progress.during(&what, apt_install(&missing)).await?;
    }
    Ok(())
}

/// The files of a package, unpacked into the cache beside all others: nothing is installed, and no service is started.
///
/// # Errors
/// One line that names the package where there is no `apt-get`, or what that says.
pub async fn unpacked(progress: &Progress, package: &str) -> anyhow::Result<PathBuf> {
    if program("apt-get").is_none() {
        bail!(
            "missing: {package} (name of Debian's package): its programs are looked for on the PATH, else fetched by apt-get"
        );
    }
    if let Ok(folder) = unpack(progress, package).await {
        return Ok(folder);
    }
    // As above: no lists, or old ones.
    progress.during("apt-get update", process::output(apt().arg("update"))).await?;
    unpack(progress, package).await
}

/// The mirror of Debian that this machine's packages come from.
///
/// # Errors
/// One line that says what to do where there is none.
pub async fn mirror() -> anyhow::Result<String> {
    let format = "$(ORIGIN) $(REPO_URI)";
    let text = process::run("apt-get", &["indextargets", "--format", format, "Created-By: Packages"]).await?;
    first_mirror(&text)
        .context("apt names no mirror of Debian: add one to its sources and run `apt-get update`")
}

fn first_mirror(text: &str) -> Option<String> {
    text.lines().find_map(|line| line.strip_prefix("Debian ")).map(str::to_owned)
}

async fn unpack(progress: &Progress, package: &str) -> anyhow::Result<PathBuf> {
    let shown = process::run("apt-cache", &["show", "--no-all-versions", package]).await?;
    let version = shown.lines().find_map(|line| line.strip_prefix("Version: ")).context("no version")?;
    let what = format!("apt-get download {package}={version}");
    cache::entry(&format!("{package}-{version}"), async |folder| {
        progress.say(&what);
        let mut download = apt();
        download.arg("download").arg(format!("{package}={version}")).current_dir(&folder);
        progress.during(&what, process::output(&mut download)).await?;
        for entry in std::fs::read_dir(&folder)? {
            let archive = entry?.path();
            process::output(process::command("dpkg").arg("-x").arg(&archive).arg(&folder)).await?;
            std::fs::remove_file(archive)?;
        }
        Ok(())
    })
    .await
}

fn has_package_lists() -> bool {
    std::fs::read_dir("/var/lib/apt/lists").is_ok_and(|entries| {
        entries.flatten().any(|entry| entry.file_name().to_string_lossy().contains("_Packages"))
    })
}

fn apt() -> tokio::process::Command {
    let mut command = process::command("apt-get");
    command.args(["-q", "-y", "-o", "DPkg::Lock::Timeout=120"]).env("DEBIAN_FRONTEND", "noninteractive");
    command
}

async fn apt_install(packages: &[&str]) -> anyhow::Result<()> {
    process::output(apt().args(["install", "--no-install-recommends"]).args(packages)).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_debian_s_and_no_other_archive() {
        let text = "Node https://example.org/node\nDebian http://deb.debian.org/debian/\nDebian http://deb.debian.org/debian-security/\n";
        assert_eq!(first_mirror(text).as_deref(), Some("http://deb.debian.org/debian/"));
        assert_eq!(first_mirror("Ubuntu http://archive.ubuntu.com/ubuntu/\n"), None);
    }

    #[test]
    fn programs_of_an_unpacked_package_are_found_before_installed_ones() {
        let path = path(Some(Path::new("/cache/docker.io")));
        assert!(
            path.starts_with("/cache/docker.io/usr/bin:/cache/docker.io/usr/sbin:/usr/local/sbin:"),
            "{path}"
        );
    }
}
