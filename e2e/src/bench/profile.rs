//! What runs in the sidecar, and how often: the profile by which its release is compiled.
//!
//! A sidecar that counts serves the traffic of the benchmark, and what its processes have counted when they end becomes
//! one file, which is kept beside its sources.

use std::{
    fs,
    io::Write as _,
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use clap::Args;

use super::{
    backend,
    cpu::{self, Effort, SCENARIOS},
    memory,
    peer::{Peer, Protocol},
    sse,
};
use crate::cluster::{
    binaries::workspace,
    images::optimised::{self, SIDECAR},
    packages,
    process::{command, output},
    progress::Progress,
};

/// What sends the traffic, and the package that brings it.
const NEEDS: [(&str, &str); 2] = [("wrk", "wrk"), ("h2load", "nghttp2-client")];

/// What clients ask engines for.
const PROMPT: &str = "{\"model\":\"llama\",\"stream\":false,\"max_tokens\":256,\"messages\":[{\"role\":\"system\",\"content\":\
    \"You are a helpful assistant who answers in one sentence.\"},{\"role\":\"user\",\"content\":\"How high does the tide \
    rise in the bay, and when is it safe to walk to the island and back?\"}]}";

/// Connections that carry them.
const ASKING: usize = 16;

/// Flags of `tidegate-e2e profile`.
#[derive(Debug, Args)]
pub struct ProfileArgs {
    /// Seconds of each kind of traffic.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Where the profile goes; by default where the release's build looks for it.
    #[arg(long)]
    out: Option<PathBuf>,
}

/// Runs `tidegate-e2e profile`.
pub async fn run(args: ProfileArgs) -> anyhow::Result<()> {
    let progress = Progress::start();
    packages::ensure(&progress, &NEEDS).await?;
    let out = args.out.map_or_else(optimised::profile, |out| Ok(std::path::absolute(out)?))?;
    let tool = merger().await?;
    let raw = workspace().join("target/reproducible/counts");
    let sidecar = optimised::compile_counting(&raw, &progress).await?.join(SIDECAR);
    // Plugins of the compiler are compiled alike, and have counted too.
    if raw.exists() {
        fs::remove_dir_all(&raw).with_context(|| format!("cannot clear {}", raw.display()))?;
    }
    serve(&sidecar, Duration::from_secs(args.seconds), &progress).await?;
    if let Some(folder) = out.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    let mut merge = command(tool);
    output(merge.args(["merge", "--sparse", "-o"]).arg(&out).arg(&raw)).await?;
    optimised::note_crates(&out).await?;
    progress.say(format_args!("written to {}", out.display()));
    Ok(())
}

/// What merges the counts: of the same LLVM as the compiler.
async fn merger() -> anyhow::Result<PathBuf> {
    let sysroot = output(command("rustc").args(["--print", "sysroot"]).current_dir(workspace())).await?;
    let version = output(command("rustc").arg("-vV").current_dir(workspace())).await?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc names no host")?;
    let tool = Path::new(sysroot.trim()).join(format!("lib/rustlib/{host}/bin/llvm-profdata"));
    ensure!(
        tool.is_file(),
        "{} is not there; in this checkout: rustup component add llvm-tools",
        tool.display()
    );
    Ok(tool)
}

/// Has it serve everything that the benchmark asks of it, and prompts whose tokens are counted.
async fn serve(sidecar: &Path, length: Duration, progress: &Progress) -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path();
    let once = Effort { rounds: 1, length };
    let (limited, unlimited) = (Peer::Tidegate(sidecar.into()), Peer::Unlimited(sidecar.into()));
    let counting = Peer::Counting(sidecar.into());
    cpu::measure(&SCENARIOS, &[limited.clone(), unlimited, counting.clone()], path, once, progress).await?;
    sse::measure(&[limited.clone(), counting.clone()], path, once, progress).await?;
    memory::measure(&[limited], path, Duration::from_secs(1), progress).await?;
    let proxy = counting.start(backend::start()?, path, Protocol::Http1).await?;
    let address = proxy.address;
    progress.during("prompts", tokio::task::spawn_blocking(move || ask(address, length))).await??;
    proxy.stop().await
}

/// Sends prompts, one after the other, over connections that are kept.
fn ask(proxy: SocketAddr, length: Duration) -> anyhow::Result<()> {
    let open = || -> anyhow::Result<TcpStream> {
        let stream = TcpStream::connect(proxy)?;
        stream.set_nodelay(true)?;
        Ok(stream)
    };
    let mut connections = (0..ASKING).map(|_| open()).collect::<anyhow::Result<Vec<_>>>()?;
    let size = PROMPT.len();
    let request = format!(
        "POST {} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nx-api-key: bench\r\n\
        User-Agent: OpenAI/Python 2.8.0\r\nAccept: application/json\r\nContent-Length: {size}\r\n\r\n{PROMPT}",
        backend::UPLOAD
    );
    let end = Instant::now() + length;
    while Instant::now() < end {
        for stream in &mut connections {
            stream.write_all(request.as_bytes())?;
        }
        for stream in &mut connections {
            memory::read_small(stream)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_is_json() {
        serde_json::from_str::<serde_json::Value>(PROMPT).unwrap();
    }
}
