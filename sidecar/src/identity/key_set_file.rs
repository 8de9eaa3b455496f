//! Key sets in files of one folder, as the kubelet mounts a `ConfigMap`.
//!
//! A file that can't be read or is no key set leaves the last one in force, as one does that its issuer does not give.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tidegate_policy::JwtKeys;
use tokio::time::sleep;
use tracing::{info, warn};

use super::issuers::{Issuer, Issuers};
use super::key_set::KeySet;
use crate::shared::Shared;

const PERIOD: Duration = Duration::from_secs(1);
const LARGEST_SET: u64 = 256 * 1024;

/// What is wrong with the files that are named, by their names: told when it begins, and not each second.
type Complaints = HashMap<String, String>;

/// Reads the files that the policy names: at once, so that no client is a stranger because the sidecar has just started, and
/// then again and again.
pub fn follow(folder: Option<PathBuf>, shared: Arc<Shared>) -> impl Future<Output = ()> {
    let folder = folder.map(Arc::<Path>::from);
    let mut complaints = Complaints::default();
    let issuers = shared.issuers.load_full();
    for (issuer, name) in named(&issuers) {
        obey(&issuers, issuer, name, read(folder.as_deref(), name), &shared, &mut complaints);
    }
    async move {
        loop {
            sleep(PERIOD).await;
            let issuers = shared.issuers.load_full();
            for (issuer, name) in named(&issuers) {
                let (of, file) = (folder.clone(), name.to_owned());
                let read = tokio::task::spawn_blocking(move || read(of.as_deref(), &file)).await;
                let read = read.context("reading was broken off").flatten();
                obey(&issuers, issuer, name, read, &shared, &mut complaints);
            }
        }
    }
}

fn named(issuers: &Issuers) -> impl Iterator<Item = (&Issuer, &str)> {
    issuers.iter().filter_map(|issuer| match &issuer.policy.keys {
        JwtKeys::File(name) => Some((issuer, name.as_str())),
        JwtKeys::Inline(_) | JwtKeys::Remote { .. } => None,
    })
}

/// The name is one of a file and no path, as every document is checked for.
fn read(folder: Option<&Path>, name: &str) -> Result<Vec<u8>> {
    let folder = folder.context(
        "no folder has key sets: name a ConfigMap in the pod's annotation tidegate.dev/jwks, or write --jwks",
    )?;
    let mut content = Vec::new();
    let file = File::open(folder.join(name)).context("it can't be opened")?;
    file.take(LARGEST_SET + 1).read_to_end(&mut content).context("it can't be read")?;
    ensure!(content.len() as u64 <= LARGEST_SET, "more than 256 KiB");
    Ok(content)
}

/// Puts keys in force, if there are others.
fn obey(
    issuers: &Issuers,
    issuer: &Issuer,
    name: &str,
    read: Result<Vec<u8>>,
    shared: &Shared,
    complaints: &mut Complaints,
) {
    let keys = read.and_then(|json| {
        let known = issuer.keys.load().is_of(&json);
        if known { Ok(None) } else { KeySet::parse(&json).map(Some) }
    });
    match keys {
        Ok(None) => drop(complaints.remove(name)),
        Ok(Some(keys)) => {
            info!(file = name, "key set read");
            issuers.rotate(issuer, keys);
            complaints.remove(name);
        }
        Err(error) => {
            let cause = format!("{error:#}");
            if complaints.get(name) != Some(&cause) {
                shared.metrics.identity.key_set_error();
                warn!(file = name, cause, "key set not read; the last one stays in force");
                complaints.insert(name.to_owned(), cause);
            }
        }
    }
}
