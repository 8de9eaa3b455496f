//! Programs that the clusters need and no package offers, built by Go and cached.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use tokio::process::Command;

use crate::cluster::{cache, process, progress::Progress};

/// Version of Kubernetes of the local cluster.
pub const KUBERNETES: &str = "v1.34.4";
/// Version of `CoreDNS`; the image's tag in `coredns.yaml` is the same.
pub const COREDNS: &str = "v1.14.7";
const HELM: &str = "v3.22.0";
/// Go module and version of kind.
pub const KIND: (&str, &str) = ("sigs.k8s.io/kind", "v0.33.0");
const KUBECONFORM: &str = "v0.7.0";
const H2SPEC: (&str, &str) = ("h2spec", "v2.2.1");

/// The names by which the one Kubernetes binary is called.
const COMPONENTS: [&str; 8] = [
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-proxy",
    "kube-scheduler",
    "kubeadm",
    "kubectl",
    "kubelet",
];

/// The repository's root, where `Cargo.toml` of the workspace lies.
pub fn workspace() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

/// The directory of this crate's Kubernetes files (Go modules, manifests).
pub fn kubernetes_files() -> PathBuf {
    workspace().join("e2e/kubernetes")
}

/// Directory with `etcd`, `kube-apiserver`, `kubelet`, `kubectl` and the others: links to one binary.
pub async fn kubernetes(progress: &Progress) -> anyhow::Result<PathBuf> {
    let version = KUBERNETES.trim_start_matches('v');
    let mut numbers = version.split('.');
    let (major, minor) = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    let mut flags = String::from("-s -w");
    for package in ["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"] {
        // The commit and date are constants: they only have to be there for the version to parse.
        for (name, value) in [
            ("gitVersion", KUBERNETES),
            ("gitMajor", major),
            ("gitMinor", minor),
            ("gitTreeState", "clean"),
            ("gitCommit", "0000000000000000000000000000000000000000"),
            ("buildDate", "2026-01-01T00:00:00Z"),
        ] {
            flags.extend([" -X ", package, ".", name, "=", value]);
        }
    }
    let hint = "about 5 minutes on 2 cores the first time";
    module("kubernetes", KUBERNETES, &flags, &COMPONENTS, hint, progress).await
}

/// The `CoreDNS` binary.
pub async fn coredns(progress: &Progress) -> anyhow::Result<PathBuf> {
    let directory =
        module("coredns", COREDNS, "-s -w", &[], "about a minute the first time", progress).await?;
    Ok(directory.join("coredns"))
}

/// The helm binary.
pub async fn helm(progress: &Progress) -> anyhow::Result<PathBuf> {
    package("helm", HELM, "helm.sh/helm/v3/cmd/helm", progress).await
}

/// The kind binary.
pub async fn kind(progress: &Progress) -> anyhow::Result<PathBuf> {
    let (path, version) = KIND;
    package("kind", version, path, progress).await
}

/// The folder with the sources of that very kind: the files of its node image are among them.
pub async fn kind_files(progress: &Progress) -> anyhow::Result<PathBuf> {
    let (path, version) = KIND;
    module_files(path, version, progress).await
}

/// The judge of objects against their schemas.
pub async fn kubeconform(progress: &Progress) -> anyhow::Result<PathBuf> {
    package("kubeconform", KUBECONFORM, "github.com/yannh/kubeconform/cmd/kubeconform", progress).await
}

/// The rules of Pod Security as the API server applies them, as a program.
pub async fn pod_security(progress: &Progress) -> anyhow::Result<PathBuf> {
    let name = "podsecurity";
    let directory = module(name, KUBERNETES, "-s -w", &[], "about a minute the first time", progress).await?;
    Ok(directory.join(name))
}

/// The folder with the files of a released Go module, fetched by Go.
pub async fn module_files(path: &str, version: &str, progress: &Progress) -> anyhow::Result<PathBuf> {
    let what = format!("fetch {path} {version}");
    progress.say(&what);
    // Outside of any module: inside one Go would want it listed there.
    let folder = tempfile::tempdir()?;
    let mut command = go("mod");
    command.args(["download", "-json"]).arg(format!("{path}@{version}")).current_dir(&folder);
    let text = progress.during(&what, process::output(&mut command)).await?;
    let told: serde_json::Value = serde_json::from_str(&text)?;
    let directory = told["Dir"].as_str().with_context(|| format!("go tells no folder: {text}"))?;
    Ok(directory.into())
}

/// The conformance suite of HTTP/2.
pub async fn h2spec(progress: &Progress) -> anyhow::Result<PathBuf> {
    let (name, version) = H2SPEC;
    let directory = module(name, version, "-s -w", &[], "about a minute the first time", progress).await?;
    Ok(directory.join(name))
}

/// A Go program of one file without dependencies.
pub async fn go_file(source: &Path, progress: &Progress) -> anyhow::Result<PathBuf> {
    let text = fs::read(source).with_context(|| format!("cannot read {}", source.display()))?;
    let entry = format!("go-{}", cache::fingerprint([text.as_slice()]));
    let build = |out: PathBuf| async move {
        let mut command = go("build");
        command.args(["-trimpath", "-o"]).arg(out.join("program")).arg(source);
        built(&format!("build {}", source.display()), &mut command, progress).await
    };
    Ok(cache::entry(&entry, build).await?.join("program"))
}

/// The pause binary: what a pod's sandbox runs.
pub async fn pause() -> anyhow::Result<PathBuf> {
    let source = kubernetes_files().join("pause.c");
    let text = fs::read(&source).with_context(|| format!("cannot read {}", source.display()))?;
    let name = format!("pause-1-{}", cache::fingerprint([text.as_slice()]));
    let compile = |out: PathBuf| async move {
        let mut command = process::command("cc");
        command.args(["-Os", "-static", "-s", "-o"]).arg(out.join("pause")).arg(&source);
        process::output(&mut command).await.map(drop)
    };
    Ok(cache::entry(&name, compile).await?.join("pause"))
}

/// Builds one of the Go modules of this crate into the cache; `aliases` become links to its binary.
async fn module(
    name: &str,
    version: &str,
    flags: &str,
    aliases: &[&str],
    hint: &str,
    progress: &Progress,
) -> anyhow::Result<PathBuf> {
    let folder = if name == H2SPEC.0 { workspace().join("e2e") } else { kubernetes_files() };
    let source = folder.join(name);
    let mut inputs = vec![flags.as_bytes().to_vec()];
    for file in ["go.mod", "go.sum", "main.go"] {
        let path = source.join(file);
        inputs.push(fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?);
    }
    let entry = format!("{name}-{version}-{}", cache::fingerprint(inputs.iter().map(Vec::as_slice)));
    let build = |out: PathBuf| async move {
        let mut command = go("build");
        command
            .args(["-trimpath", "-ldflags", flags, "-o"])
            .arg(out.join(name))
            .arg(".")
            .current_dir(&source);
        built(&format!("build {name} {version} ({hint})"), &mut command, progress).await?;
        for alias in aliases {
            std::os::unix::fs::symlink(name, out.join(alias))?;
        }
        Ok(())
    };
    cache::entry(&entry, build).await
}

/// Installs a released Go program into the cache.
async fn package(name: &str, version: &str, path: &str, progress: &Progress) -> anyhow::Result<PathBuf> {
    let entry = format!("{name}-{version}-{}", cache::fingerprint([path.as_bytes()]));
    let build = |out: PathBuf| async move {
        let mut command = go("install");
        command.args(["-trimpath", "-ldflags", "-s -w"]).arg(format!("{path}@{version}")).env("GOBIN", out);
        built(&format!("build {name} {version} (about 2 minutes the first time)"), &mut command, progress)
            .await
    };
    Ok(cache::entry(&entry, build).await?.join(name))
}

fn go(verb: &str) -> Command {
    let mut command = process::command("go");
    command.arg(verb).env("CGO_ENABLED", "0").env("GOFLAGS", "-buildvcs=false");
    command
}

async fn built(what: &str, command: &mut Command, progress: &Progress) -> anyhow::Result<()> {
    progress.say(what);
    progress.during(what, process::output(command)).await.map(drop)
}
