//! A server in a child process: the proxies of the benchmark, the sidecar of the demo.

use std::{
    fs::File,
    net::{SocketAddr, TcpListener},
    path::Path,
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
const START: Duration = Duration::from_secs(10);
/// Longest time until a server ends by itself.
const END: Duration = Duration::from_secs(5);

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

/// A port that was free a moment ago.
pub fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
