//! The folder with the keys, which is read again when it changes: keys rotate.
//!
//! The kubelet puts a whole new version beside the old one and then turns one link (`..data`) to it, so that a version is
//! read whole or not at all. A folder that is not there has no keys; one that cannot be read leaves the last ones in
//! force.

use std::fs;
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use tokio::time::sleep;
use tracing::{info, warn};

use super::{ApiKeys, entry};
use crate::shared::Shared;

const PERIOD: Duration = Duration::from_secs(1);
/// More keys are left out: a Secret has at most a MiB.
const MOST_ENTRIES: usize = 4096;
const LONGEST_ENTRY: u64 = 8 * 1024;
/// The link that the kubelet turns.
const VERSION: &str = "..data";

/// By which a change is seen, without reading everything.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Mark {
    Absent,
    Version(PathBuf),
    Files(Vec<(PathBuf, u64, Option<SystemTime>)>),
}

/// Reads the keys at once, so that no client is a stranger because the sidecar has just started, and then whenever they
/// change.
pub fn follow(folder: PathBuf, shared: Arc<Shared>) -> impl Future<Output = ()> {
    let mut is_told = false;
    let mut last = obey(look(&folder, None), &shared, &mut is_told);
    async move {
        loop {
            sleep(PERIOD).await;
            let (looked, before) = (folder.clone(), last.clone());
            let read = tokio::task::spawn_blocking(move || look(&looked, before.as_ref())).await;
            let read = read.context("reading was broken off").flatten();
            last = obey(read, &shared, &mut is_told).or(last);
        }
    }
}

/// Puts keys in force, if there are others. That they cannot be read is told once.
fn obey(read: Result<Option<(Mark, ApiKeys)>>, shared: &Shared, is_told: &mut bool) -> Option<Mark> {
    match read {
        Ok(Some((mark, keys))) => {
            info!(keys = keys.len(), "API keys read");
            shared.metrics.identity.keys(keys.len());
            shared.api_keys.store(Arc::new(keys));
            *is_told = false;
            Some(mark)
        }
        Ok(None) => None,
        Err(error) => {
            if !std::mem::replace(is_told, true) {
                warn!(cause = format!("{error:#}"), "API keys not read; the last ones stay in force");
            }
            None
        }
    }
}

/// The keys, if they are others than at `before`.
fn look(folder: &Path, before: Option<&Mark>) -> Result<Option<(Mark, ApiKeys)>> {
    let mark = mark(folder)?;
    if before == Some(&mark) {
        return Ok(None);
    }
    let version = match &mark {
        Mark::Absent => return Ok(Some((mark, ApiKeys::default()))),
        Mark::Version(target) => folder.join(target),
        Mark::Files(_) => folder.to_owned(),
    };
    let mut keys = Vec::new();
    let files = files(&version)?;
    if files.len() > MOST_ENTRIES {
        warn!(entries = files.len(), "too many API keys: those after the first {MOST_ENTRIES} are left out");
    }
    for file in files.into_iter().take(MOST_ENTRIES) {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match read(&file)?.context("more than 8 KiB").and_then(|content| entry::parse(&name, &content)) {
            Ok(key) => keys.push(key),
            Err(error) => warn!(entry = name, cause = format!("{error:#}"), "an API key is left out"),
        }
    }
    Ok(Some((mark, ApiKeys::new(keys)?)))
}

fn mark(folder: &Path) -> Result<Mark> {
    match fs::read_link(folder.join(VERSION)) {
        Ok(target) => return Ok(Mark::Version(target)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidInput) => {}
        Err(error) => return Err(error).context("the folder cannot be read"),
    }
    if !folder.exists() {
        return Ok(Mark::Absent);
    }
    let files = files(folder)?.into_iter().filter_map(|file| {
        let data = fs::metadata(&file).ok()?;
        Some((file, data.len(), data.modified().ok()))
    });
    Ok(Mark::Files(files.collect()))
}

/// In the order of their names, without those that are the kubelet's own.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).context("the folder cannot be read")?;
    let entries: std::io::Result<Vec<_>> = entries.collect();
    let entries = entries.context("the folder cannot be read")?.into_iter();
    let shown = entries.filter(|entry| !entry.file_name().to_string_lossy().starts_with('.'));
    let mut files: Vec<_> = shown.map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    files.sort();
    Ok(files)
}

/// None: it is too long to be a key.
fn read(file: &Path) -> Result<Option<String>> {
    let mut content = Vec::new();
    let opened = fs::File::open(file).with_context(|| format!("can't read {}", file.display()))?;
    opened.take(LONGEST_ENTRY + 1).read_to_end(&mut content).context("can't read it")?;
    let whole = content.len() as u64 <= LONGEST_ENTRY;
    Ok(whole.then(|| String::from_utf8_lossy(&content).into_owned()))
}
