//! What is built once and kept outside the tree: `${XDG_CACHE_HOME:-~/.cache}/tidegate/<name>-<version>-<hash>/`.

use std::fs::{self, File};
use std::future::Future;
use std::path::{Path, PathBuf};

use anyhow::Context;
use sha2::{Digest, Sha256};

/// The directory that holds everything cached.
pub(super) fn directory() -> anyhow::Result<PathBuf> {
    let base = std::env::var_os("XDG_CACHE_HOME")
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
        .or_else(|| std::env::home_dir().map(|home| home.join(".cache")))
        .context("neither XDG_CACHE_HOME nor HOME is set: set one, the built binaries are kept below it")?;
    let directory = base.join("tidegate");
    fs::create_dir_all(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
    Ok(directory)
}

/// First 12 hex digits of the SHA-256 over parts, each with its length so that no two lists collide.
pub fn fingerprint<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hex(&hash.finalize())[..12].to_owned()
}

/// Lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _infallible = write!(text, "{byte:02x}");
        text
    })
}

/// Returns the directory of an entry and builds it first when it is missing.
///
/// Two processes never build the same entry at once, and an entry whose build was interrupted is never taken for whole:
/// `build` fills a directory beside it, which gets its name when `build` has succeeded.
///
/// # Errors
/// That of `build`, or that of the file system.
pub async fn entry<F, B>(name: &str, build: F) -> anyhow::Result<PathBuf>
where
    F: FnOnce(PathBuf) -> B,
    B: Future<Output = anyhow::Result<()>>,
{
    let directory = directory()?;
    let finished = directory.join(name);
    if finished.is_dir() {
        return Ok(finished);
    }
    let _lock = exclusive(directory.join(format!("{name}.lock"))).await?;
    if finished.is_dir() {
        return Ok(finished);
    }
    let partial = directory.join(format!("{name}.partial"));
    remove_dir(&partial)?;
    fs::create_dir(&partial).with_context(|| format!("cannot create {}", partial.display()))?;
    build(partial.clone()).await?;
    fs::rename(&partial, &finished).with_context(|| format!("cannot create {}", finished.display()))?;
    Ok(finished)
}

/// Takes a lock file; it is free again when the returned file is dropped, also by the death of the process.
pub(super) async fn exclusive(path: PathBuf) -> anyhow::Result<File> {
    let lock = move || {
        let file = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
        file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
        Ok(file)
    };
    tokio::task::spawn_blocking(lock).await?
}

/// Removes a directory tree; an absent one is fine.
pub(super) fn remove_dir(path: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}
