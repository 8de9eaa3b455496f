//! How close the process is to the memory it may have. What clients and engines make it buffer is bounded for each
//! connection and each stream, but so many of them may be open that the sum is more than a pod has: as it fills,
//! connections, then requests, are refused and what stalls is ended. Envoy's overload manager does the same from the
//! size of its heap.

use std::cell::Cell;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use crate::caps::Caps;

/// Shares of the limit, in percent; a level is left below its share by more than the slack, so that it does not flutter.
const TIGHT_FROM: u64 = 70;
const FULL_FROM: u64 = 80;
const SLACK: u64 = 5;

/// A thread that moves this part of the room there is looks for itself, and does not wait for the next tick; and never
/// sooner nor later than after so many bytes. What it moved may have cost some times as much.
const PART_OF_ROOM: u64 = 16;
const SOONEST: u64 = 64 * 1024;
const LATEST: u64 = 1 << 20;

/// So few are served whatever the memory: what they can hold is little, and a limit below what the process needs for
/// itself would else shut everybody out.
const ALWAYS_SERVED: usize = 8;

thread_local! {
    /// Bytes that this thread has moved since it last looked.
    static MOVED: Cell<usize> = const { Cell::new(0) };
}

/// How much room there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Enough.
    Calm,
    /// No more connections are taken, and idle ones are closed.
    Tight,
    /// No more requests are taken either, uploads are read slowly, and whoever stalls is given up at once.
    Full,
}

/// The process's memory beside its limit.
#[derive(Debug)]
pub struct Pressure {
    /// The limit and where the resident bytes stand; none without a limit or without `/proc`.
    limited: Option<(u64, File)>,
    level: AtomicU8,
    /// How many bytes a thread may move until it looks.
    look_after: AtomicUsize,
}

impl Pressure {
    /// For a process that may have `caps.memory` bytes.
    pub fn new(caps: &Caps) -> Self {
        let open = |limit| File::open("/proc/self/status").ok().map(|file| (limit, file));
        Self {
            limited: caps.memory.and_then(open),
            level: AtomicU8::new(0),
            look_after: AtomicUsize::new(usize::MAX),
        }
    }

    /// How much room there was at the last look.
    pub fn level(&self) -> Level {
        Level::of(self.level.load(Ordering::Relaxed))
    }

    /// Whether one more connection beside `others` can be served.
    pub fn admits_connection(&self, others: usize) -> bool {
        others < ALWAYS_SERVED || self.level() < Level::Tight
    }

    /// Whether one more request beside `others` can be served.
    pub fn admits_request(&self, others: usize) -> bool {
        others < ALWAYS_SERVED || self.level() < Level::Full
    }

    /// This thread has read so many bytes, from whomever.
    pub fn moved(&self, bytes: usize) {
        let moved = MOVED.get() + bytes;
        if moved < self.look_after.load(Ordering::Relaxed) {
            MOVED.set(moved);
        } else {
            MOVED.set(0);
            self.look();
        }
    }

    /// Looks how much memory the process has. To be called every tick.
    pub fn look(&self) {
        let Some((limit, file)) = &self.limited else { return };
        // What cannot be read is no reason to refuse anybody.
        let Some(resident) = resident(file) else { return };
        let room = (*limit / 100 * FULL_FROM).saturating_sub(resident) / PART_OF_ROOM;
        let look_after = usize::try_from(room.clamp(SOONEST, LATEST)).unwrap_or(usize::MAX);
        self.look_after.store(look_after, Ordering::Relaxed);
        let before = self.level();
        let level = before.next(resident.saturating_mul(100) / (*limit).max(1));
        if level != before {
            self.level.store(level as u8, Ordering::Relaxed);
            tracing::warn!(resident, limit, "memory is {}", level.name());
        }
    }
}

impl Level {
    fn of(number: u8) -> Self {
        match number {
            0 => Self::Calm,
            1 => Self::Tight,
            _ => Self::Full,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Calm => "enough again",
            Self::Tight => "tight: no more connections are taken",
            Self::Full => "full: no more requests are taken",
        }
    }

    /// The level behind this one, at so many percent of the limit.
    fn next(self, percent: u64) -> Self {
        let slack = |level| if self >= level { SLACK } else { 0 };
        if percent >= FULL_FROM - slack(Self::Full) {
            Self::Full
        } else if percent >= TIGHT_FROM - slack(Self::Tight) {
            Self::Tight
        } else {
            Self::Calm
        }
    }
}

/// Resident bytes, from a file such as `/proc/self/status`.
fn resident(file: &File) -> Option<u64> {
    let mut text = [0; 4096];
    let length = file.read_at(&mut text, 0).ok()?;
    let text = std::str::from_utf8(&text[..length]).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kibibytes * 1024)
}

/// The memory that the cgroup of this container allows, of version 2 or 1; none when it sets no limit.
pub fn of_cgroup() -> Option<u64> {
    let files = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    files.into_iter().find_map(|file| limit(Path::new(file)))
}

fn limit(file: &Path) -> Option<u64> {
    // Version 2 says "max" where there is none, version 1 a number of almost 63 bits.
    fs::read_to_string(file).ok()?.trim().parse().ok().filter(|bytes| *bytes < 1 << 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_level_follows_the_share_of_the_limit_and_does_not_flutter() {
        use Level::{Calm, Full, Tight};
        assert_eq!(
            [0, 69, 70, 79, 80, 500].map(|percent| Calm.next(percent)),
            [Calm, Calm, Tight, Tight, Full, Full]
        );
        assert_eq!([79, 75, 74, 65, 64].map(|percent| Full.next(percent)), [Full, Full, Tight, Tight, Calm]);
        assert_eq!([79, 65, 64].map(|percent| Tight.next(percent)), [Tight, Tight, Calm]);
        assert_eq!([Calm, Tight, Full].map(|level| Level::of(level as u8)), [Calm, Tight, Full]);
    }

    #[test]
    fn a_process_over_its_limit_serves_a_few_and_no_more() {
        let pressure = Pressure::new(&Caps { memory: Some(4096), ..Caps::DEFAULT });
        assert!(pressure.admits_connection(1000) && pressure.admits_request(1000));
        pressure.look();
        assert_eq!(pressure.level(), Level::Full);
        assert!(pressure.admits_connection(7) && pressure.admits_request(7));
        assert!(!pressure.admits_connection(8) && !pressure.admits_request(8));
    }

    #[test]
    fn without_a_limit_nobody_is_refused() {
        let pressure = Pressure::new(&Caps::DEFAULT);
        pressure.look();
        assert_eq!(pressure.level(), Level::Calm);
    }

    #[test]
    fn a_cgroup_without_a_limit_has_none() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("memory.max");
        for (text, expected) in
            [("max\n", None), ("134217728\n", Some(134_217_728)), ("9223372036854771712\n", None)]
        {
            fs::write(&file, text).unwrap();
            assert_eq!(limit(&file), expected, "{text}");
        }
    }
}
