//! Images that the local cluster itself needs, and busybox for test pods.

use std::path::PathBuf;

use anyhow::Context;

use crate::cluster::images::archive::Image;
use crate::cluster::images::{BUSYBOX, PREFIX, libraries};
use crate::cluster::{binaries, packages, process, progress::Progress};

/// The archives.
#[derive(Clone, Debug)]
pub struct Support {
    /// What holds a pod's namespaces.
    pub pause: PathBuf,
    /// The cluster's DNS server.
    pub coredns: PathBuf,
    /// Shell and small tools.
    pub busybox: PathBuf,
}

/// Builds what is missing of them.
pub async fn build(progress: &Progress) -> anyhow::Result<Support> {
    let pause = Image::new(format!("{PREFIX}/pause:1"))
        .file("/pause", 0o755, binaries::pause().await?)
        .entrypoint("/pause")
        .user("65535:65535");
    let coredns = Image::new(format!("{PREFIX}/coredns:{}", binaries::COREDNS))
        .file("/coredns", 0o755, binaries::coredns(progress).await?)
        .entrypoint("/coredns");
    Ok(Support { pause: pause.cached()?, coredns: coredns.cached()?, busybox: busybox().await?.cached()? })
}

async fn busybox() -> anyhow::Result<Image> {
    let program =
        packages::program("busybox").context("no busybox on this machine: install busybox-static")?;
    let applets = process::run(&program, &["--list"]).await?;
    let image = Image::new(BUSYBOX)
        .file("/bin/busybox", 0o755, &program)
        .text("/etc/passwd", "root:x:0:0:root:/:/bin/sh\n")
        .text("/etc/group", "root:x:0:\n")
        .directory("/tmp", 0o1777)
        .command(&["/bin/sh"]);
    let image = libraries::of(program.as_ref()).await?.into_iter().fold(image, |image, library| {
        let source = library.clone();
        image.file(&library, 0o755, source)
    });
    let others = applets.lines().filter(|applet| *applet != "busybox");
    Ok(others.fold(image, |image, applet| image.link(&format!("/bin/{applet}"), "busybox")))
}
