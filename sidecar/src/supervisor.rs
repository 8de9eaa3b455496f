//! The first process of the container. It holds the listening sockets and keeps one worker alive.
//!
//! A crash of the worker costs the requests in flight and some milliseconds: new connections wait in the kernel's
//! queue of the sockets until the next worker accepts them, and the container does not restart.

use std::ffi::OsString;
use std::io;
use std::os::fd::RawFd;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, getpid, kill_process, wait};
use tokio::signal::unix::{Signal as Signals, SignalKind, signal};
use tokio::time::sleep;
use tracing::{error, info, warn};

use crate::args::RunArgs;
use crate::backoff::Backoff;
use crate::listeners::Listeners;

const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LAST_PAUSE: Duration = Duration::from_secs(1);
/// A worker that lived this long was not broken from the start.
const HEALTHY_LIFE: Duration = Duration::from_secs(10);

/// How jemalloc is set in workers: memory that a burst of connections took goes back to the kernel within seconds.
const ALLOCATOR: (&str, &str) =
    ("_RJEM_MALLOC_CONF", "background_thread:true,dirty_decay_ms:1000,tcache_max:16384");

/// Serves until SIGTERM or SIGINT. `arguments` are those of `run`, and reach the worker unchanged.
pub fn run(run: &RunArgs, arguments: Vec<OsString>) -> anyhow::Result<ExitCode> {
    let threads = run.workers.map_or_else(default_threads, usize::from);
    let listeners = Listeners::open(&run.listens(), threads, run.admin)?;
    let (data, admin) = listeners.bequeath()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    info!(listen = %listeners.data[0].local_addr()?, admin = %listeners.admin.local_addr()?, threads, "listening");
    let supervisor = Supervisor { data, admin, arguments, restarts: 0 };
    let code = runtime.block_on(supervisor.supervise())?;
    drop(listeners);
    Ok(code)
}

/// Cores that the affinity mask and the cgroup's quota (v1 and v2) allow, at least one.
fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

struct Supervisor {
    data: Vec<RawFd>,
    admin: RawFd,
    arguments: Vec<OsString>,
    restarts: u64,
}

/// Signals that matter to the first process.
struct Inbox {
    terminate: Signals,
    interrupt: Signals,
    child: Signals,
}

impl Inbox {
    fn open() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            child: signal(SignalKind::child())?,
        })
    }

    async fn end(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::TERM,
            _ = self.interrupt.recv() => Signal::INT,
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
    async fn supervise(mut self) -> anyhow::Result<ExitCode> {
        let mut inbox = Inbox::open()?;
        let mut backoff = Backoff::new(FIRST_PAUSE, LAST_PAUSE);
        loop {
            let born = Instant::now();
            match self.spawn() {
                Ok(worker) => match watch(worker, &mut inbox).await? {
                    End::Told(status) => return Ok(exit_code(status)),
                    End::Died(status) => warn!(%worker, status = %describe(status), "worker died"),
                },
                Err(error) => error!(%error, "can't start a worker"),
            }
            if born.elapsed() >= HEALTHY_LIFE {
                backoff.reset();
            }
            self.restarts += 1;
            tokio::select! {
                () = sleep(backoff.pause()) => {}
                _ = inbox.end() => return Ok(ExitCode::SUCCESS),
            }
        }
    }

    fn spawn(&self) -> io::Result<Pid> {
        let mut command = Command::new("/proc/self/exe");
        command.arg0("tidegate-sidecar").arg("worker").arg("--restarts").arg(self.restarts.to_string());
        command.arg("--supervisor").arg(getpid().as_raw_pid().to_string());
        for socket in &self.data {
            command.arg("--data-socket").arg(socket.to_string());
        }
        command.arg("--admin-socket").arg(self.admin.to_string()).args(&self.arguments);
        if std::env::var_os(ALLOCATOR.0).is_none() {
            command.env(ALLOCATOR.0, ALLOCATOR.1);
        }
        // Not waited for here: `reap` takes every child of the first process, this one too.
        Ok(Pid::from_child(&command.spawn()?))
    }
}

async fn watch(worker: Pid, inbox: &mut Inbox) -> anyhow::Result<End> {
    let mut told = false;
    loop {
        if let Some(status) = reap(worker)? {
            return Ok(if told { End::Told(status) } else { End::Died(status) });
        }
        let signal = tokio::select! {
            _ = inbox.child.recv() => continue,
            _ = inbox.terminate.recv() => Signal::TERM,
            _ = inbox.interrupt.recv() => Signal::INT,
        };
        told = true;
        // It may have died this very moment; `reap` tells.
        let _ = kill_process(worker, signal);
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
