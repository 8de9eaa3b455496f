//! What the local cluster changed on this machine, written down before it is changed, so that any later run can undo it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::cluster::local::layout;
use crate::cluster::owner::Owner;
use crate::cluster::sysctls::Sysctls;

/// Mount points that the nodes need on the file system they share with this machine.
pub(super) const MOUNT_POINTS: [&str; 5] =
    ["/var/lib/kubelet", "/var/log/pods", "/var/log/containers", "/var/lib/cni", layout::DRIVER];

/// The record of one cluster.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct State {
    /// The process with which the cluster ends, or none when it is kept until `cluster down`.
    pub owner: Option<Owner>,
    /// Nodes beside the control plane's.
    pub workers: u8,
    /// Values to put back.
    sysctls: Sysctls,
    /// Directories that were not there, the outermost first.
    made: Vec<PathBuf>,
}

impl State {
    /// Reads this machine's settings, writes the record, and makes the mount points.
    pub(super) fn record(owner: Option<Owner>, workers: u8) -> anyhow::Result<Self> {
        let mut made = Vec::new();
        for path in MOUNT_POINTS {
            let absent = Path::new(path).ancestors().take_while(|directory| !directory.exists());
            made.extend(absent.map(Path::to_path_buf).collect::<Vec<_>>().into_iter().rev());
        }
        made.dedup();
        let state = Self { owner, workers, sysctls: Sysctls::read(), made };
        fs::create_dir_all(layout::BASE).with_context(|| format!("cannot create {}", layout::BASE))?;
        fs::write(path(), serde_json::to_vec_pretty(&state)?)
            .with_context(|| format!("cannot write {}", path().display()))?;
        for path in MOUNT_POINTS {
            fs::create_dir_all(path).with_context(|| format!("cannot create {path}"))?;
        }
        Ok(state)
    }

    /// The record of a cluster that is up or was left behind; an unreadable one counts as none.
    pub(super) fn load() -> Option<Self> {
        serde_json::from_slice(&fs::read(path()).ok()?).ok()
    }

    /// Puts back the settings and removes the directories, then the record itself.
    pub(super) fn undo(self) {
        self.sysctls.put_back();
        let _gone = fs::remove_file(path());
        for directory in self.made.iter().rev() {
            // Only directories that are still empty: what others have put there since is theirs.
            let _in_use = fs::remove_dir(directory);
        }
    }
}

fn path() -> PathBuf {
    Path::new(layout::BASE).join("local.json")
}
