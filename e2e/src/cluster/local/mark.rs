//! Which content of an image a node has, so that only what has changed is loaded again.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::cluster::local::layout;

/// A file named after the image that holds the name of its archive; that one ends with the hash of its content.
pub(super) struct Mark {
    path: PathBuf,
    archive: String,
}

impl Mark {
    /// The mark of an archive (`<image>-<hash>.tar`) on a node.
    pub(super) fn of(index: u8, archive: &Path) -> anyhow::Result<Self> {
        let name = archive.file_name().with_context(|| format!("{} is no file", archive.display()))?;
        let name = name.to_string_lossy().into_owned();
        let image = name.rsplit_once('-').map_or(name.as_str(), |(image, _hash)| image);
        Ok(Self { path: layout::node_dir(index).join("loaded").join(image), archive: name })
    }

    /// Whether the node has this very content.
    pub(super) fn is_set(&self) -> bool {
        fs::read_to_string(&self.path).is_ok_and(|archive| archive == self.archive)
    }

    /// Says that the node has it now.
    pub(super) fn set(&self) -> anyhow::Result<()> {
        fs::write(&self.path, &self.archive).with_context(|| format!("cannot write {}", self.path.display()))
    }
}
