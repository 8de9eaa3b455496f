//! CPU time and memory of a process with its children, from `/proc`.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context as _, bail};
use serde::Serialize;

/// Memory of a process with its children, in KiB.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// Resident set.
    pub rss: u64,
    /// Proportional set: shared pages divided among their users.
    pub pss: u64,
    /// Written pages that nobody else has.
    pub private_dirty: u64,
}

/// The process and all its descendants.
pub fn tree(pid: u32) -> Vec<u32> {
    let mut all = vec![pid];
    let mut at = 0;
    while at < all.len() {
        let tasks = PathBuf::from(format!("/proc/{}/task", all[at]));
        for task in fs::read_dir(tasks).into_iter().flatten().flatten() {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            all.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        }
        at += 1;
    }
    all
}

/// CPU time of all threads so far, from the scheduler's statistics (nanoseconds, not ticks).
pub fn cpu_time(pid: u32) -> anyhow::Result<Duration> {
    let mut nanos = 0;
    for pid in tree(pid) {
        let tasks = format!("/proc/{pid}/task");
        for task in fs::read_dir(&tasks).with_context(|| tasks.clone())? {
            let file = task?.path().join("schedstat");
            // A thread may end between the listing and the reading.
            let Ok(text) = fs::read_to_string(&file) else { continue };
            nanos += first_number(&text).with_context(|| file.display().to_string())?;
        }
    }
    if nanos == 0 {
        bail!("this kernel keeps no CPU time in /proc/PID/task/*/schedstat: CONFIG_SCHED_INFO is needed");
    }
    Ok(Duration::from_nanos(nanos))
}

/// Memory now.
pub fn memory(pid: u32) -> anyhow::Result<Memory> {
    let mut memory = Memory::default();
    for pid in tree(pid) {
        let file = format!("/proc/{pid}/smaps_rollup");
        let text = fs::read_to_string(&file).with_context(|| file.clone())?;
        let field = |name: &str| {
            text.lines().find_map(|line| first_number(line.strip_prefix(name)?)).with_context(|| file.clone())
        };
        memory.rss += field("Rss:")?;
        memory.pss += field("Pss:")?;
        memory.private_dirty += field("Private_Dirty:")?;
    }
    Ok(memory)
}

fn first_number(text: &str) -> Option<u64> {
    text.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_of_any_thread_is_counted() {
        let pid = std::process::id();
        let before = cpu_time(pid).unwrap();
        let worker = std::thread::spawn(move || {
            // However little of the machine it gets.
            let end = std::time::Instant::now() + Duration::from_mins(1);
            let mut counted = before;
            while counted <= before + Duration::from_millis(5) && std::time::Instant::now() < end {
                counted = cpu_time(pid).unwrap();
            }
            counted
        });
        assert!(worker.join().unwrap() > before + Duration::from_millis(5));
        assert!(memory(pid).unwrap().rss > 1000);
    }

    #[test]
    fn children_belong_to_the_process() {
        let mut child = std::process::Command::new("sleep").arg("30").spawn().unwrap();
        assert!(tree(std::process::id()).contains(&child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
