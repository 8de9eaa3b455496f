//! The newest accepted document, kept across restarts of the container in a folder of the pod.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::{Context, Result};
use tidegate_policy::PolicyDocument;

const NAME: &str = "policy.json";

/// The folder.
#[derive(Debug, Clone)]
pub(super) struct Store {
    folder: PathBuf,
}

impl Store {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// The document as JSON, not validated. `None`: nothing was kept.
    pub(super) fn read(&self) -> Result<Option<Vec<u8>>> {
        let file = self.folder.join(NAME);
        match fs::read(&file) {
            Ok(json) => Ok(Some(json)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("can't read {}", file.display())),
        }
    }

    /// Keeps `document`. A crash at any instant leaves the old one or the new one, whole.
    pub(super) fn keep(&self, document: &PolicyDocument) -> Result<()> {
        let json = serde_json::to_vec(document)?;
        self.replace(&json).with_context(|| format!("can't keep the policy in {}", self.folder.display()))
    }

    fn replace(&self, json: &[u8]) -> io::Result<()> {
        let new = self.folder.join(format!(".{NAME}.new"));
        let mut file = File::create(&new)?;
        file.write_all(json)?;
        file.sync_all()?;
        fs::rename(&new, self.folder.join(NAME))?;
        File::open(&self.folder)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_read_and_replaced_whole() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path().to_owned());
        assert_eq!(store.read().unwrap(), None);
        for revision in ["a", "b"] {
            let document = PolicyDocument { revision: revision.to_owned(), ..PolicyDocument::default() };
            store.keep(&document).unwrap();
            let json = store.read().unwrap().unwrap();
            assert_eq!(PolicyDocument::from_json(&json).unwrap(), document);
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "a temporary file was left");
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let store = Store::new("/nowhere/at/all".into());
        let error = store.keep(&PolicyDocument::default()).unwrap_err();
        assert!(error.to_string().contains("/nowhere/at/all"), "{error}");
    }
}
