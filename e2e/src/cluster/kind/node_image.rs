//! A node image for kind from what this machine can have without a registry: Debian's packages, the files of kind's own
//! base image, and the Kubernetes binary that the local cluster runs too.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::cluster::binaries::{COREDNS, KIND, KUBERNETES};
use crate::cluster::images::archive::Image;
use crate::cluster::images::{PREFIX, libraries, support};
use crate::cluster::{binaries, cache, packages, process, progress::Progress};

/// Raised when the recipe changes, so that older images are not taken.
const FORMAT: &str = "1";
/// The release of Debian in the image: the last whose systemd also runs on cgroup v1.
const DEBIAN: &str = "bookworm";
/// The packages beside the essential ones.
const PACKAGES: &str = "systemd,dbus,containerd,runc,containernetworking-plugins,conntrack,iptables,nftables,iproute2,ethtool,mount,kmod,bash,ca-certificates,curl,jq,procps,ipset,socat,hostname";
/// The tag by which kubeadm knows how to start the etcd in the binary.
const ETCD: &str = "3.6.4-0";
/// What is left out of Debian's files: what is of no use in a node, what systemd would start there (kind leaves out the
/// same), settings of the kernel that are not a node's to change.
const LEFT_OUT: [&str; 16] = [
    "./dev/*",
    "./usr/lib/sysctl.d/*",
    "./usr/share/doc/*",
    "./usr/share/info/*",
    "./usr/share/locale/*",
    "./usr/share/man/*",
    "./var/cache/*",
    "./var/lib/apt/lists/*",
    "./usr/lib/systemd/system/basic.target.wants/*",
    "./usr/lib/systemd/system/local-fs.target.wants/*",
    "./usr/lib/systemd/system/multi-user.target.wants/*",
    "./usr/lib/systemd/system/sockets.target.wants/*initctl*",
    "./usr/lib/systemd/system/sockets.target.wants/*udev*",
    "./usr/lib/systemd/system/sysinit.target.wants/systemd-tmpfiles-setup.service",
    "./etc/systemd/system/*.wants/*",
    "./var/log/*",
];
/// Makes Debian's files in memory, where what dpkg insists to have on disk costs nothing, and packs them.
const DEBOOTSTRAP: &str = r#"folder=$1; out=$2; release=$3; mirror=$4; packages=$5; shift 5
mount -t tmpfs -o mode=755,size=2g tidegate-e2e "$folder"
debootstrap --variant=minbase --include="$packages" "$release" "$folder" "$mirror" >&2
tar --create --file "$out" --directory "$folder" --one-file-system --numeric-owner "$@" ."#;
/// Units that a node starts with.
const ENABLED: [&str; 4] = ["containerd", "kubelet", "undo-mount-hacks", "tidegate-images"];
/// Loads the images of the control plane and of what pods need first.
const LOAD_IMAGES: &str = "[Unit]
Description=Load the images that the node was built with
Requires=containerd.service
After=containerd.service

[Service]
Type=oneshot
RemainAfterExit=yes
TimeoutStartSec=infinity
ExecStart=/bin/sh -ec 'for archive in /kind/images/*.tar; do ctr --namespace k8s.io images import \"$archive\"; done'
";
const AFTER_IMAGES: &str = "[Unit]\nRequires=tidegate-images.service\nAfter=tidegate-images.service\n";
const NO_CRICTL: &str =
    "#!/bin/sh\necho 'crictl is not in this image: take ctr --namespace k8s.io' >&2\nexit 1\n";

/// Full name of the image.
pub(super) fn reference() -> String {
    format!("{PREFIX}/node:{KUBERNETES}")
}

/// What kubeadm has to know: the names of the images in the image.
pub(super) fn kubeadm_patch() -> String {
    format!(
        "kind: ClusterConfiguration\nimageRepository: {PREFIX}\ndns: {{imageTag: {COREDNS}}}\netcd: {{local: {{imageTag: {ETCD}}}}}\n"
    )
}

/// The docker-archive of the image, built when it is not in the cache.
pub(super) async fn archive(progress: &Progress) -> anyhow::Result<PathBuf> {
    let needs = [("debootstrap", "debootstrap"), ("nft", "nftables"), ("busybox", "busybox-static")];
    packages::ensure(progress, &needs).await?;
    let kubernetes = binaries::kubernetes(progress).await?.join("kubernetes");
    let support = support::build(progress).await?;
    let control_plane = control_plane(&kubernetes).await?.cached()?;
    let first = [control_plane, support.pause, support.coredns, support.busybox];
    let inputs = first.iter().chain([&kubernetes]).map(|path| path.display().to_string());
    let recipe = [FORMAT, KIND.1, DEBIAN, PACKAGES, LOAD_IMAGES, &LEFT_OUT.join(" ")].map(str::to_owned);
    let parts: Vec<String> = recipe.into_iter().chain(inputs).collect();
    let name = format!("node-{KUBERNETES}-{}", cache::fingerprint(parts.iter().map(String::as_bytes)));
    let build = async |out: PathBuf| {
        let kind = binaries::kind_files(progress).await?.join("images/base/files");
        let debian = debian(progress).await?;
        progress.say("write the node image");
        let image = node(&debian, &kind, &kubernetes, &first)?;
        image.write(&mut File::create(out.join("image.tar"))?)
    };
    Ok(cache::entry(&name, build).await?.join("image.tar"))
}

/// The one image of every part of the control plane and of kube-proxy, under the names that kubeadm asks for.
async fn control_plane(kubernetes: &Path) -> anyhow::Result<Image> {
    let nft = packages::program("nft").context("no nft on this machine: install nftables")?;
    let names = ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy"];
    let mut image = Image::new(format!("{PREFIX}/etcd:{ETCD}"))
        .file("/usr/local/bin/kubernetes", 0o755, kubernetes)
        .link("/usr/local/bin/etcd", "kubernetes")
        .file("/usr/sbin/nft", 0o755, &nft)
        .directory("/tmp", 0o1777);
    for name in names {
        image = image
            .known_as(format!("{PREFIX}/{name}:{KUBERNETES}"))
            .link(&format!("/usr/local/bin/{name}"), "kubernetes");
    }
    for library in libraries::of(nft.as_ref()).await? {
        image = image.file(&library, 0o755, &library);
    }
    Ok(image)
}

/// An archive of Debian's files, without what a node has no use for.
async fn debian(progress: &Progress) -> anyhow::Result<PathBuf> {
    let excluded = LEFT_OUT.map(|pattern| format!("--exclude={pattern}"));
    let parts = [DEBIAN, PACKAGES, DEBOOTSTRAP].into_iter().chain(excluded.iter().map(String::as_str));
    let name = format!("node-{DEBIAN}-{}", cache::fingerprint(parts.map(str::as_bytes)));
    let build = async |out: PathBuf| {
        let what = format!("debootstrap {DEBIAN} for the node image (about a minute)");
        progress.say(&what);
        let mirror = packages::mirror().await?;
        let folder = out.join("root");
        fs::create_dir(&folder)?;
        // In namespaces of its own: its mounts and processes end with it, also when this program is killed.
        let mut command = process::command("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"]);
        command.args(["sh", "-ec", DEBOOTSTRAP, "sh"]).arg(&folder).arg(out.join("root.tar"));
        command.args([DEBIAN, &mirror, PACKAGES]).args(&excluded);
        progress.during(&what, process::output(&mut command)).await?;
        fs::remove_dir(folder).context("cannot remove an empty folder")
    };
    Ok(cache::entry(&name, build).await?.join("root.tar"))
}

/// The node image: Debian, kind's files, Kubernetes, and the images that a node needs before it can have others.
fn node(debian: &Path, kind: &Path, kubernetes: &Path, images: &[PathBuf]) -> anyhow::Result<Image> {
    let mut image = Image::new(reference()).on(debian);
    for folder in ["etc", "kind", "usr"] {
        for path in files(&kind.join(folder))? {
            let place = path.strip_prefix(kind)?.display().to_string();
            let mode = if place.contains("/bin/") { 0o755 } else { 0o644 };
            image = image.file(&place, mode, path);
        }
    }
    let config = fs::read_to_string(kind.join("etc/containerd/config.toml"))?;
    let image = image
        .text("/etc/containerd/config.toml", &containerd_config(&config)?)
        .text("/kind/version", KUBERNETES)
        .directory("/kind/manifests", 0o755)
        .directory("/etc/kubernetes/manifests", 0o755)
        .directory("/etc/cni/net.d", 0o755)
        .link("/opt/cni/bin", "/usr/lib/cni")
        .link("/usr/local/bin/containerd", "/usr/bin/containerd")
        .link("/usr/sbin/init", "/lib/systemd/systemd")
        .file("/usr/bin/kubernetes", 0o755, kubernetes)
        .text("/etc/systemd/journald.conf.d/kind.conf", "[Journal]\nReadKMsg=no\n")
        .link("/etc/systemd/system/systemd-binfmt.service", "/dev/null")
        .text("/etc/systemd/system/tidegate-images.service", LOAD_IMAGES)
        .text("/etc/systemd/system/kubelet.service.d/20-images.conf", AFTER_IMAGES)
        .program("/usr/local/bin/crictl", NO_CRICTL)
        .variable("container", "docker")
        .entrypoint("/usr/local/bin/entrypoint")
        .command(&["/sbin/init"]);
    let image = ["kubeadm", "kubectl", "kubelet"]
        .iter()
        .fold(image, |image, name| image.link(&format!("/usr/bin/{name}"), "kubernetes"));
    let wants = "/etc/systemd/system/multi-user.target.wants";
    let image = ENABLED.iter().fold(image, |image, unit| {
        image.link(&format!("{wants}/{unit}.service"), &format!("/etc/systemd/system/{unit}.service"))
    });
    let names = images.iter().enumerate();
    Ok(names
        .fold(image, |image, (place, path)| image.file(&format!("/kind/images/{place}.tar"), 0o644, path)))
}

/// kind's configuration of containerd, with the sandbox image that the node has. `restrict_oom_score_adj`: a machine whose
/// bounding set lacks `CAP_SYS_RESOURCE` may not lower the score. The base specification would be made with the image.
fn containerd_config(text: &str) -> anyhow::Result<String> {
    let sandbox = format!("sandbox_image = \"{PREFIX}/pause:1\"");
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("base_runtime_spec"));
    let changed = lines.map(|line| match line.trim_start() {
        line if line.starts_with("sandbox_image") => format!("  {sandbox}\n"),
        "restrict_oom_score_adj = false" => "  restrict_oom_score_adj = true\n".to_owned(),
        _ => format!("{line}\n"),
    });
    let config: String = changed.collect();
    let whole = config.contains(&sandbox) && config.contains("restrict_oom_score_adj = true");
    anyhow::ensure!(whole, "kind's configuration of containerd has changed: look at its new form");
    Ok(config)
}

/// Every file below a folder.
fn files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() { found.extend(files(&path)?) } else { found.push(path) }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".containerd]\n  snapshotter = \"overlayfs\"\n  base_runtime_spec = \"/etc/containerd/cri-base.json\"\n[plugins.\"io.containerd.grpc.v1.cri\"]\n  sandbox_image = \"registry.k8s.io/pause:3.10\"\n  restrict_oom_score_adj = false\n";

    #[test]
    fn the_nodes_take_the_sandbox_image_that_they_have() {
        let config = containerd_config(CONFIG).unwrap();
        assert!(
            config
                .contains("  sandbox_image = \"tidegate.local/pause:1\"\n  restrict_oom_score_adj = true\n")
        );
        assert!(!config.contains("registry") && !config.contains("base_runtime_spec"), "{config}");
        assert!(config.contains("snapshotter = \"overlayfs\""), "kind reads the snapshotter from it");
    }

    #[test]
    fn another_form_of_kind_s_configuration_is_an_error_and_not_a_broken_node() {
        assert!(containerd_config("version = 3\n").is_err());
    }

    #[test]
    fn kubeadm_is_told_the_names_of_the_images_in_the_node_and_the_version_of_its_etcd() {
        let patch: serde_json::Value = serde_saphyr::from_str(&kubeadm_patch()).unwrap();
        assert_eq!((&patch["imageRepository"], &patch["dns"]["imageTag"]), (&PREFIX.into(), &COREDNS.into()));
        let etcd = patch["etcd"]["local"]["imageTag"].as_str().unwrap();
        let modules = fs::read_to_string(binaries::kubernetes_files().join("kubernetes/go.mod")).unwrap();
        let version = etcd.split('-').next().unwrap();
        assert!(modules.contains(&format!("go.etcd.io/etcd/server/v3 v{version}\n")), "etcd {version}");
    }
}
