//! Node agents that are of no use, and what a sidecar that asks them makes of it.

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    thread,
    time::Duration,
};

use anyhow::Context as _;
use tokio::process::Command;

/// How long an agent sleeps whose GPU's driver does not answer.
const SLEEP: Duration = Duration::from_secs(5);

/// An agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Agent {
    /// Its sidecar, in tables.
    pub name: &'static str,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Agent {
    /// One that takes every connection and says nothing for [`SLEEP`].
    pub fn asleep() -> anyhow::Result<Self> {
        Ok(Self { name: "tidegate, agent asleep", address: listen(|_| thread::sleep(SLEEP))? })
    }

    /// One that closes every connection at once.
    pub fn failing() -> anyhow::Result<Self> {
        Ok(Self { name: "tidegate, agent failing", address: listen(|_| ())? })
    }

    /// Has the sidecar ask it.
    pub(super) fn tell(&self, command: &mut Command, directory: &Path) -> anyhow::Result<()> {
        let (ca, token) = (directory.join("agent-ca.pem"), directory.join("agent-token"));
        let authority = rcgen::generate_simple_self_signed(vec![self.address.ip().to_string()])?;
        std::fs::write(&ca, authority.cert.pem())?;
        std::fs::write(&token, "bench")?;
        command.arg("--agent").arg(format!("https://{}", self.address));
        command.arg("--agent-token").arg(token).arg("--ca").arg(ca);
        Ok(())
    }
}

/// Each connection has a thread: it lives as long as the process.
fn listen(answer: fn(&TcpStream)) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").context("an agent's socket")?;
    let address = listener.local_addr()?;
    thread::Builder::new().name("agent".to_owned()).spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || answer(&stream));
        }
    })?;
    Ok(address)
}
