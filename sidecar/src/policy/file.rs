//! A document in a file, for use without an operator.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tidegate_policy::PolicyDocument;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::{Keeper, Source};

/// A change is in force after two to three of these.
const PERIOD: Duration = Duration::from_millis(200);

/// Reads the file, bounded.
pub(super) fn read(file: &Path) -> Result<Vec<u8>> {
    use std::io::Read as _;
    let mut json = Vec::new();
    let opened = std::fs::File::open(file).with_context(|| format!("can't read {}", file.display()))?;
    let most = PolicyDocument::MAX_BYTES as u64;
    let read = opened.take(most + 1).read_to_end(&mut json);
    read.with_context(|| format!("can't read {}", file.display()))?;
    if json.len() as u64 > most {
        bail!("{} is larger than {most} bytes", file.display());
    }
    Ok(json)
}

/// Offers the file's content to `keeper` whenever it changes. The content is compared, not its time: a clock of
/// coarse grain, a replaced link and an edit that keeps the length are all seen. It is offered once it was read
/// twice alike, so that a file that is half written is not judged.
pub async fn follow(file: PathBuf, keeper: Arc<Keeper>) {
    let mut changes = Changes::of(file);
    loop {
        match changes.next().await {
            Ok(json) => keeper.offer(Source::File, &json).await,
            Err(error) => keeper.refuse_unreadable(Source::File, &anyhow::anyhow!(error)),
        }
    }
}

/// What a file has in it, one content after the other.
struct Changes {
    file: PathBuf,
    ticks: Interval,
    watch: Watch,
}

impl Changes {
    fn of(file: PathBuf) -> Self {
        let mut ticks = interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { file, ticks, watch: Watch::default() }
    }

    async fn next(&mut self) -> Content {
        loop {
            self.ticks.tick().await;
            let file = self.file.clone();
            let Ok(content) = tokio::task::spawn_blocking(move || read(&file)).await else { continue };
            if let Some(content) = self.watch.settle(content.map_err(|error| format!("{error:#}"))) {
                return content;
            }
        }
    }
}

type Content = Result<Vec<u8>, String>;

#[derive(Debug, Default)]
struct Watch {
    last: Option<Content>,
    offered: Option<Content>,
}

impl Watch {
    /// The content, when it is new and has settled.
    fn settle(&mut self, content: Content) -> Option<Content> {
        let settled = self.last.as_ref() == Some(&content);
        self.last = Some(content.clone());
        if !settled || self.offered.as_ref() == Some(&content) {
            return None;
        }
        self.offered = Some(content.clone());
        Some(content)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_offered_once_when_it_was_read_twice_alike() {
        let mut watch = Watch::default();
        let content = |text: &str| Ok(text.as_bytes().to_vec());
        assert_eq!(watch.settle(content("a")), None);
        assert_eq!(watch.settle(content("a")), Some(content("a")));
        assert_eq!(watch.settle(content("a")), None);
        assert_eq!(watch.settle(content("")), None, "truncated, about to be written");
        assert_eq!(watch.settle(content("b")), None);
        assert_eq!(watch.settle(content("b")), Some(content("b")));
        assert_eq!(watch.settle(content("a")), None);
        assert_eq!(watch.settle(content("a")), Some(content("a")), "back to what it was before");
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_is_offered_within_a_second_whenever_it_comes() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("policy.json");
        std::fs::write(&file, "0").unwrap();
        let mut changes = Changes::of(file.clone());
        assert_eq!(changes.next().await, Ok(b"0".to_vec()));
        for number in 1..50 {
            tokio::time::sleep(Duration::from_millis(number * 7)).await;
            std::fs::write(&file, number.to_string()).unwrap();
            let began = tokio::time::Instant::now();
            assert_eq!(changes.next().await, Ok(number.to_string().into_bytes()));
            assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
        }
    }

    #[test]
    fn a_file_that_vanishes_is_told_once() {
        let mut watch = Watch::default();
        let gone = || Err("gone".to_owned());
        assert_eq!((0..5).filter_map(|_| watch.settle(gone())).count(), 1);
    }

    #[test]
    fn a_file_that_is_too_large_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), vec![b' '; PolicyDocument::MAX_BYTES + 1]).unwrap();
        assert!(read(file.path()).unwrap_err().to_string().contains("larger than"));
    }
}
