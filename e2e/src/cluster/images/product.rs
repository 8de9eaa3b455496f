//! The images of the product and of the simulators, from this checkout.

use std::path::{Path, PathBuf};

use crate::cluster::binaries::workspace;
use crate::cluster::images::archive::Image;
use crate::cluster::images::optimised::{self, SIDECAR};
use crate::cluster::images::{NEXT, PREFIX, libraries, reference};
use crate::cluster::{process, progress::Progress};

/// The user that every image runs as unless the pod says otherwise.
const USER: &str = "65532:65532";

/// Where the image of the simulators carries the simulated driver's library.
pub const NVML_LIBRARY: &str = "/usr/local/lib/nvidia-sim/libnvidia-ml.so.1";

/// Programs of the product, each of which becomes an image; the simulators' image follows its own rules.
pub(super) const PROGRAMS: [&str; 3] = ["tidegate-operator", SIDECAR, "tidegate-agent"];

/// Compiles the programs and writes their images; returns the archives.
pub async fn build(progress: &Progress) -> anyhow::Result<Vec<PathBuf>> {
    compile(progress).await?;
    let out = target_directory();
    let mut archives = Vec::new();
    for program in PROGRAMS {
        let image = with_program(program, &out, reference(program)).await?;
        archives.push(image.known_as(format!("{PREFIX}/{program}:{NEXT}")).cached()?);
    }
    archives.push(simulators(&out).await?.cached()?);
    progress.say(format_args!("{} images are ready", archives.len()));
    Ok(archives)
}

async fn compile(progress: &Progress) -> anyhow::Result<()> {
    let what = "compile the programs of the images (cargo, profile `image`)";
    progress.say(what);
    let mut command = process::cargo();
    command.args([
        "build",
        "--quiet",
        "--locked",
        "--profile",
        "image",
        "-p",
        "tidegate-e2e",
        "-p",
        "tidegate-e2e-nvml",
    ]);
    for program in PROGRAMS {
        command.args(["-p", program]);
    }
    progress.during(what, process::visibly(command.current_dir(workspace()))).await
}

fn target_directory() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    workspace().join(target).join("image")
}

/// Compiles the programs as they are released: the paths of this machine are in none of them. Returns their folder.
pub(super) async fn compile_release(progress: &Progress) -> anyhow::Result<PathBuf> {
    let others: Vec<_> = PROGRAMS.into_iter().filter(|program| *program != SIDECAR).collect();
    let what = "compile the programs of the release (cargo, profile `release`)";
    release_build(what, &others, &[], progress).await?;
    optimised::compile(progress).await
}

/// Compiles programs with the flags of a release, and these. Returns their folder.
pub(super) async fn release_build(
    what: &str,
    programs: &[&str],
    flags: &[String],
    progress: &Progress,
) -> anyhow::Result<PathBuf> {
    progress.say(what);
    let home = std::env::var("CARGO_HOME")
        .unwrap_or_else(|_| format!("{}/.cargo", std::env::var("HOME").unwrap_or_default()));
    let remap = |from: &str, to: &str| format!("--remap-path-prefix={from}={to}");
    let mut all = vec![remap(&workspace().display().to_string(), "/tidegate"), remap(&home, "/cargo")];
    // By a flag of the compiler: what cargo is told goes into the names of functions, by which a profile knows them.
    all.push("-Cstrip=symbols".to_owned());
    all.extend_from_slice(flags);
    // A folder of its own: other flags than those of other builds would compile everything anew each time.
    let target = workspace().join("target/reproducible");
    let mut command = process::cargo();
    command.args(["build", "--quiet", "--locked", "--release"]);
    for program in programs {
        command.args(["-p", program]);
    }
    command.env("RUSTFLAGS", all.join(" ")).env("CARGO_TARGET_DIR", &target).env("CARGO_INCREMENTAL", "0");
    progress.during(what, process::visibly(command.current_dir(workspace()))).await?;
    Ok(target.join("release"))
}

/// An image with one program, its libraries, and the files that name its user and its name service.
pub(super) async fn with_program(program: &str, out: &Path, reference: String) -> anyhow::Result<Image> {
    let source = out.join(program);
    let path = format!("/usr/local/bin/{program}");
    let needed = libraries::beside(&source).await?;
    let image = Image::new(reference)
        .file(&path, 0o755, &source)
        .text(
            "/etc/passwd",
            "root:x:0:0:root:/:/sbin/nologin\ntidegate:x:65532:65532:tidegate:/:/sbin/nologin\n",
        )
        .text("/etc/group", "root:x:0:\ntidegate:x:65532:\n")
        .text("/etc/nsswitch.conf", "hosts: files dns\n")
        .directory("/etc/ssl/certs", 0o755)
        .directory("/tmp", 0o1777)
        .entrypoint(&path)
        .user(USER);
    Ok(needed.into_iter().fold(image, |image, library| {
        let source = library.clone();
        image.file(&library, 0o755, source)
    }))
}

/// The simulators: engine, device plugin and the simulated driver's library.
async fn simulators(out: &Path) -> anyhow::Result<Image> {
    let nvml = out.join("libnvidia_ml.so");
    let needed = libraries::of(&nvml).await?;
    let image =
        with_program("tidegate-e2e", out, reference("tidegate-e2e")).await?.file(NVML_LIBRARY, 0o755, nvml);
    Ok(needed.into_iter().fold(image, |image, library| {
        let source = library.clone();
        image.file(&library, 0o755, source)
    }))
}
