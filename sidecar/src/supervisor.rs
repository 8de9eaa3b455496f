//! The first process of the container. It holds the listening sockets and keeps one worker alive.
//!
//! A crash of the worker costs the requests in flight and some milliseconds: new connections wait in the kernel's
//! queue of the sockets until the next worker accepts them, and the container does not restart.
//!
//! It lives as long as the pod and does next to nothing, so it takes next to no memory: once the command line is
//! checked and the sockets are open it becomes another program, by `exec`, which has no runtime, no parser of command
//! lines, and no log until there is something to tell.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read as _};
use std::os::fd::RawFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, getpid, kill_process, wait};
use tracing::level_filters::LevelFilter;
use tracing::{error, info, warn};

use crate::args::RunArgs;
use crate::backoff::Backoff;
use crate::listeners::Listeners;
use crate::log;
use crate::memory;

const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LAST_PAUSE: Duration = Duration::from_secs(1);
/// A worker that lived this long was not broken from the start.
const HEALTHY_LIFE: Duration = Duration::from_secs(10);

/// What the first process is called from then on; nobody else calls it so.
const WORD: &str = "supervise";

/// The variable that jemalloc is set by.
const ALLOCATOR: &str = "_RJEM_MALLOC_CONF";
/// In workers: memory that a burst of connections took goes back to the kernel within seconds.
const OF_WORKERS: &str = "background_thread:true,dirty_decay_ms:1000,tcache_max:2048";
/// In the first process: the least that there is.
const OF_SUPERVISOR: &str = "background_thread:false,narenas:1,tcache:false";

/// Opens the sockets and becomes the supervisor; comes back only if that fails. `arguments` are those of `run`, and
/// reach the worker unchanged.
pub fn run(run: &RunArgs, arguments: &[OsString]) -> anyhow::Result<ExitCode> {
    let threads = run.workers.map_or_else(default_threads, usize::from);
    let listeners = Listeners::open(&run.listens(), threads, run.admin)?;
    let (data, admin) = listeners.bequeath()?;
    info!(listen = %listeners.data[0].local_addr()?, admin = %listeners.admin.local_addr()?, threads, "listening");
    let mut command = this_program();
    command.arg(WORD).arg(run.log_level.to_string()).arg(admin.to_string());
    command.arg(data.iter().map(RawFd::to_string).collect::<Vec<_>>().join(",")).args(arguments);
    if std::env::var_os(ALLOCATOR).is_none() {
        command.env(ALLOCATOR, OF_SUPERVISOR);
    }
    Err(command.exec()).context("can't become the supervisor")
}

fn this_program() -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("tidegate-sidecar");
    command
}

/// Cores that the affinity mask and the cgroup's quota (v1 and v2) allow, at least one.
fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The first process, once it has its sockets.
pub struct Supervisor {
    level: LevelFilter,
    admin: RawFd,
    data: Vec<RawFd>,
    arguments: Vec<OsString>,
    restarts: u64,
    speaks: bool,
}

/// Signals that matter to the first process.
struct Inbox {
    /// Readable after each of them.
    wakes: UnixStream,
    /// The last that says to end; 0 when there was none.
    end: Arc<AtomicUsize>,
}

impl Inbox {
    fn open() -> io::Result<Self> {
        let (wakes, wake) = UnixStream::pair()?;
        let end = Arc::new(AtomicUsize::new(0));
        for signal in [Signal::TERM, Signal::INT] {
            let number = signal.as_raw();
            signal_hook::flag::register_usize(number, Arc::clone(&end), number as usize)?;
        }
        // After the flags: who is woken by a signal finds it there.
        for signal in [Signal::TERM, Signal::INT, Signal::CHILD] {
            signal_hook::low_level::pipe::register(signal.as_raw(), wake.try_clone()?)?;
        }
        Ok(Self { wakes, end })
    }

    /// Waits for a signal, for ever or so long. Answers with one that says to end.
    fn wait(&mut self, at_most: Option<Duration>) -> io::Result<Option<Signal>> {
        self.wakes.set_read_timeout(at_most)?;
        match self.wakes.read(&mut [0; 64]) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        let told = i32::try_from(self.end.swap(0, Ordering::AcqRel));
        Ok(told.ok().and_then(Signal::from_named_raw))
    }

    /// Whether a signal says to end within this time.
    fn ends_within(&mut self, pause: Duration) -> io::Result<bool> {
        let over = Instant::now() + pause;
        loop {
            let left = over.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            if self.wait(Some(left))?.is_some() {
                return Ok(true);
            }
        }
    }
}

/// Why watching a worker ended.
enum End {
    /// It died by itself.
    Died(WaitStatus),
    /// It was told to end, and did.
    Told(WaitStatus),
}

impl Supervisor {
    /// What the command line, program name first, makes of this process: the supervisor that `run` becomes, if that
    /// is what it says.
    pub fn of(mut arguments: impl Iterator<Item = OsString>) -> Option<Self> {
        if arguments.nth(1)? != WORD {
            return None;
        }
        let mut text = || arguments.next()?.into_string().ok();
        let (level, admin) = (text()?.parse().ok()?, text()?.parse().ok()?);
        let data = text()?.split(',').map(str::parse).collect::<Result<_, _>>().ok()?;
        Some(Self { level, admin, data, arguments: arguments.collect(), restarts: 0, speaks: false })
    }

    /// Serves until SIGTERM or SIGINT.
    pub fn supervise(mut self) -> anyhow::Result<ExitCode> {
        let mut inbox = Inbox::open()?;
        let mut backoff = Backoff::new(FIRST_PAUSE, LAST_PAUSE);
        loop {
            let born = Instant::now();
            let lost = match self.spawn() {
                Ok(worker) => match watch(worker, &mut inbox)? {
                    End::Told(status) => return Ok(exit_code(status)),
                    End::Died(status) => Ok((worker, status)),
                },
                Err(error) => Err(error),
            };
            if born.elapsed() >= HEALTHY_LIFE {
                backoff.reset();
            }
            let pause = backoff.pause();
            self.tell(lost, pause);
            self.restarts += 1;
            if inbox.ends_within(pause)? {
                return Ok(ExitCode::SUCCESS);
            }
        }
    }

    /// Tells that there is no worker, and how long it is until the next one is started. Starts the log, the first time.
    fn tell(&mut self, lost: io::Result<(Pid, WaitStatus)>, pause: Duration) {
        if !std::mem::replace(&mut self.speaks, true) {
            log::start(self.level);
        }
        let pause_ms = pause.as_millis() as u64;
        match lost {
            Ok((worker, status)) => warn!(%worker, status = %describe(status), pause_ms, "worker died"),
            Err(error) => error!(%error, pause_ms, "can't start a worker"),
        }
    }

    fn spawn(&self) -> io::Result<Pid> {
        let mut command = this_program();
        command.arg("worker").arg("--restarts").arg(self.restarts.to_string());
        command.arg("--supervisor").arg(getpid().as_raw_pid().to_string());
        for socket in &self.data {
            command.arg("--data-socket").arg(socket.to_string());
        }
        command.arg("--admin-socket").arg(self.admin.to_string()).args(&self.arguments);
        if std::env::var_os(ALLOCATOR).is_none_or(|set| set == OsStr::new(OF_SUPERVISOR)) {
            // A pool for each thread that serves: threads beside them take little, and would each have pages of their own.
            command.env(ALLOCATOR, format!("{OF_WORKERS},narenas:{}", self.data.len()));
        }
        // Not waited for here: `reap` takes every child of the first process, this one too.
        Ok(Pid::from_child(&command.spawn()?))
    }
}

fn watch(worker: Pid, inbox: &mut Inbox) -> anyhow::Result<End> {
    // What starting a worker takes is not needed while it lives.
    memory::give_back();
    let mut told = false;
    loop {
        if let Some(status) = reap(worker)? {
            return Ok(if told { End::Told(status) } else { End::Died(status) });
        }
        if let Some(signal) = inbox.wait(None)? {
            told = true;
            // It may have died this very moment; `reap` tells.
            let _ = kill_process(worker, signal);
        }
    }
}

/// Takes the status of every child that ended, also of orphans that the kernel gave to the first process. Answers
/// with the worker's.
fn reap(worker: Pid) -> io::Result<Option<WaitStatus>> {
    let mut ended = None;
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid == worker => ended = Some(status),
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) | Err(Errno::CHILD) => return Ok(ended),
            Err(errno) => return Err(errno.into()),
        }
    }
}

fn describe(status: WaitStatus) -> String {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => format!("{status:?}"),
    }
}

/// As a shell tells it: the worker's own code, or 128 and the signal that ended it.
fn exit_code(status: WaitStatus) -> ExitCode {
    let code = status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &[&str]) -> Option<Supervisor> {
        Supervisor::of(line.iter().map(OsString::from))
    }

    #[test]
    fn the_first_process_finds_its_sockets_and_what_it_was_called_with() {
        let supervisor = of(&["x", WORD, "warn", "7", "5,6", "--guard", "8000"]).unwrap();
        assert_eq!((supervisor.admin, &supervisor.data[..]), (7, &[5, 6][..]));
        assert_eq!(supervisor.level, LevelFilter::WARN);
        assert_eq!(supervisor.arguments, ["--guard", "8000"]);
    }

    #[test]
    fn no_other_command_line_makes_a_supervisor() {
        for line in
            [&["x"][..], &["x", "run", "warn", "7", "5"], &["x", WORD], &["x", WORD, "warn", "7", "a"]]
        {
            assert!(of(line).is_none(), "{line:?}");
        }
    }
}
