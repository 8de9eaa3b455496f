//! Settings of the kernel that a kubelet, or systemd in a node, changes for the whole machine.

use std::collections::BTreeMap;
use std::fs;

use serde::{Deserialize, Serialize};

const CHANGED: [&str; 8] = [
    "/proc/sys/fs/file-max",
    "/proc/sys/fs/nr_open",
    "/proc/sys/kernel/keys/root_maxbytes",
    "/proc/sys/kernel/keys/root_maxkeys",
    "/proc/sys/kernel/panic",
    "/proc/sys/kernel/panic_on_oops",
    "/proc/sys/vm/overcommit_memory",
    "/proc/sys/vm/panic_on_oom",
];

/// What they were.
#[derive(Debug, Deserialize, Serialize)]
#[serde(transparent)]
pub(super) struct Sysctls(BTreeMap<String, String>);

impl Sysctls {
    /// What they are.
    pub(super) fn read() -> Self {
        let one = |&path: &&str| Some((path.to_owned(), fs::read_to_string(path).ok()?.trim().to_owned()));
        Self(CHANGED.iter().filter_map(one).collect())
    }

    /// Makes them what they were.
    pub(super) fn put_back(&self) {
        for (path, value) in &self.0 {
            if fs::read_to_string(path).is_ok_and(|now| now.trim() != value) {
                let _refused_by_the_kernel = fs::write(path, value);
            }
        }
    }
}
