//! A server in a child process: the proxies of the benchmark, the sidecar of the demo.

use std::{
    fs::File,
    net::{SocketAddr, TcpListener},
    ops::Range,
    path::Path,
    sync::atomic::{AtomicU16, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    net::TcpStream,
    process::{Child, Command},
};

use crate::cluster::process;

/// Longest time until a server accepts connections.
const START: Duration = Duration::from_mins(1);
/// Longest time until a server ends by itself.
const END: Duration = Duration::from_secs(5);

/// Below those that Linux gives to connections and to listeners that name none, and above those of well-known servers.
const PORTS: Range<u16> = 20_000..32_000;

/// A started server; dropping it kills it.
#[derive(Debug)]
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    child: Child,
}

impl Server {
    /// Starts the command, with its output in `log`, and waits until it accepts connections at `address`.
    pub async fn start(command: &mut Command, address: SocketAddr, log: &Path) -> anyhow::Result<Self> {
        let child =
            command.stdout(File::create(log)?).stderr(File::options().append(true).open(log)?).spawn()?;
        let mut server = Self { address, child };
        server.accepts().await.with_context(|| process::tail(log, 5))?;
        Ok(server)
    }

    /// Its first process.
    pub fn pid(&self) -> anyhow::Result<u32> {
        self.child.id().context("the server has ended")
    }

    /// The URL of a path there.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Ends it in order.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        if let Some(pid) = self.child.id().and_then(|pid| Pid::from_raw(pid.cast_signed())) {
            kill_process(pid, Signal::TERM)?;
        }
        if tokio::time::timeout(END, self.child.wait()).await.is_err() {
            self.child.kill().await?;
        }
        Ok(())
    }

    async fn accepts(&mut self) -> anyhow::Result<()> {
        let end = Instant::now() + START;
        while TcpStream::connect(self.address).await.is_err() {
            if let Some(status) = self.child.try_wait()? {
                bail!("ended at once ({status})");
            }
            if Instant::now() > end {
                bail!("does not accept connections after {} s", START.as_secs());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}

/// A port that was free a moment ago, and that no kernel gives away by itself before it is listened on.
pub fn free_address() -> anyhow::Result<SocketAddr> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = u16::try_from(std::process::id() % u32::from(PORTS.end - PORTS.start))?;
    let count = PORTS.end - PORTS.start;
    (0..count)
        .map(|_| PORTS.start + first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % count)
        .map(|port| SocketAddr::from(([127, 0, 0, 1], port)))
        .find(|address| TcpListener::bind(address).is_ok())
        .context("no port is free")
}
