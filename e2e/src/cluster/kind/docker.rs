//! The Docker engine that holds the nodes, as its command line sees it.

use std::path::{Path, PathBuf};

use tokio::process::Command;

use crate::cluster::kind::engine;
use crate::cluster::{packages, process, progress::Progress};

/// Which engine it is.
#[derive(Clone, Debug)]
pub(super) enum Docker {
    /// The one that `docker` of this machine talks to.
    Host,
    /// One of our own: the folder its programs were unpacked in, unless they are installed.
    Own(Option<PathBuf>),
}

impl Docker {
    /// The engine of the cluster that is up or was left behind: our own where it has left its record.
    pub(super) fn in_use() -> Self {
        engine::record().map_or(Self::Host, |record| Self::Own(record.programs))
    }

    /// A program that talks to this engine; its arguments are still to be added.
    pub(super) fn command(&self, program: impl AsRef<Path>) -> Command {
        let Self::Own(programs) = self else { return process::command(program.as_ref()) };
        let mut command = process::command(program.as_ref());
        command.env("PATH", packages::path(programs.as_deref())).env("DOCKER_HOST", engine::address());
        // A context of the user's own would win over the address.
        command.env_remove("DOCKER_CONTEXT");
        command
    }

    /// Runs `docker` and returns its stdout.
    pub(super) async fn run(&self, arguments: &[&str]) -> anyhow::Result<String> {
        process::output(self.command("docker").args(arguments)).await
    }

    /// Whether the engine answers.
    pub(super) async fn answers(&self) -> bool {
        self.run(&["info"]).await.is_ok()
    }

    /// Whether the engine has an image, now or after pulling it.
    pub(super) async fn has_image(&self, image: &str, progress: &Progress) -> bool {
        if self.run(&["image", "inspect", image]).await.is_ok() {
            return true;
        }
        let what = format!("docker pull {image}");
        progress.say(&what);
        progress.during(&what, self.run(&["pull", "--quiet", image])).await.is_ok()
    }

    /// The address of a node.
    pub(super) async fn address_of(&self, node: &str) -> anyhow::Result<String> {
        let format = "{{.NetworkSettings.Networks.kind.IPAddress}}";
        Ok(self.run(&["inspect", "--format", format, node]).await?.trim().to_owned())
    }
}
