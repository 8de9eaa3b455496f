//! The process that a cluster belongs to.

use std::fs;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::cluster::Lifetime;

/// A process that a number alone does not name for ever: numbers are reused.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct Owner {
    pid: u32,
    started: u64,
}

impl Owner {
    /// The owner of a cluster that this process brings up: none when it is to be kept.
    pub(super) fn by_lifetime(lifetime: Lifetime) -> anyhow::Result<Option<Self>> {
        match lifetime {
            Lifetime::Kept => Ok(None),
            Lifetime::ThisProcess => Self::this_process().map(Some),
        }
    }

    /// The process that calls.
    pub(super) fn this_process() -> anyhow::Result<Self> {
        let pid = std::process::id();
        let started = start_time(pid).context("cannot read /proc/self/stat")?;
        Ok(Self { pid, started })
    }

    /// Whether that very process still runs.
    pub(super) fn is_alive(self) -> bool {
        start_time(self.pid) == Some(self.started)
    }

    /// Its number.
    pub(super) fn pid(self) -> u32 {
        self.pid
    }
}

/// Start of a process in clock ticks since boot: field 22 of `/proc/<pid>/stat`, counted after the name in parentheses.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_alive_only_with_its_own_start_time() {
        let me = Owner::this_process().unwrap();
        assert!(me.is_alive());
        assert!(!Owner { started: me.started + 1, ..me }.is_alive());
    }
}
