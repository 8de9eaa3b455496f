//! Writes docker-archives: the same inputs give the same bytes.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::json;
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

use crate::cluster::cache;

/// Raised when the way images are written changes, so that older cached ones are not taken.
const FORMAT: &str = "1";
/// How many older archives of an image stay in the cache, for other checkouts that use them.
const KEPT: usize = 4;

/// What a path of an image holds.
#[derive(Clone, Debug)]
enum Content {
    Directory,
    Link(String),
    Bytes(Vec<u8>),
    File(PathBuf),
}

/// An image to be written.
#[derive(Clone, Debug)]
pub struct Image {
    reference: String,
    entries: BTreeMap<String, (u32, Content)>,
    entrypoint: Vec<String>,
    command: Vec<String>,
    user: Option<String>,
}

impl Image {
    /// An empty image with a full name such as `tidegate.local/tidegate-agent:0.1.0`.
    pub fn new(reference: impl Into<String>) -> Self {
        Self {
            reference: reference.into(),
            entries: BTreeMap::new(),
            entrypoint: Vec::new(),
            command: Vec::new(),
            user: None,
        }
    }

    /// Adds a file of this machine; its mode is given, its owner is root, its time the epoch.
    #[must_use]
    pub fn file(mut self, path: &str, mode: u32, source: impl Into<PathBuf>) -> Self {
        self.insert(path, mode, Content::File(source.into()));
        self
    }

    /// Adds a file with a text.
    #[must_use]
    pub fn text(mut self, path: &str, text: &str) -> Self {
        self.insert(path, 0o644, Content::Bytes(text.as_bytes().to_vec()));
        self
    }

    /// Adds a symbolic link.
    #[must_use]
    pub fn link(mut self, path: &str, target: &str) -> Self {
        self.insert(path, 0o777, Content::Link(target.to_owned()));
        self
    }

    /// Adds a directory.
    #[must_use]
    pub fn directory(mut self, path: &str, mode: u32) -> Self {
        self.insert(path, mode, Content::Directory);
        self
    }

    /// The program that a container runs.
    #[must_use]
    pub fn entrypoint(mut self, program: &str) -> Self {
        self.entrypoint = vec![program.to_owned()];
        self
    }

    /// The arguments that a pod may replace.
    #[must_use]
    pub fn command(mut self, words: &[&str]) -> Self {
        self.command = words.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// The user and group that a container runs as.
    #[must_use]
    pub fn user(mut self, user: &str) -> Self {
        self.user = Some(user.to_owned());
        self
    }

    fn insert(&mut self, path: &str, mode: u32, content: Content) {
        let path = path.trim_start_matches('/').to_owned();
        for parent in Path::new(&path).ancestors().skip(1).filter(|parent| !parent.as_os_str().is_empty()) {
            self.entries.entry(parent.display().to_string()).or_insert((0o755, Content::Directory));
        }
        self.entries.insert(path, (mode, content));
    }

    /// The archive in the cache, written first when its inputs have changed.
    pub fn cached(&self) -> anyhow::Result<PathBuf> {
        let directory = cache::directory()?.join("images");
        fs::create_dir_all(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
        let path = directory.join(format!("{}-{}.tar", self.short_name(), self.fingerprint()?));
        if path.exists() {
            let _only_keeps_it_longer =
                File::open(&path).and_then(|file| file.set_modified(std::time::SystemTime::now()));
            return Ok(path);
        }
        let mut partial = tempfile::NamedTempFile::new_in(&directory)?;
        self.write(partial.as_file_mut())
            .with_context(|| format!("cannot write image {}", self.reference))?;
        partial.persist(&path)?;
        forget_old(&directory, self.short_name());
        Ok(path)
    }

    fn short_name(&self) -> &str {
        let name = self.reference.rsplit('/').next().unwrap_or(&self.reference);
        name.split(':').next().unwrap_or(name)
    }

    /// Hash of everything that decides the archive's bytes.
    fn fingerprint(&self) -> anyhow::Result<String> {
        let built = cache::directory()?;
        let mut parts = vec![FORMAT.as_bytes().to_vec(), self.config("").to_string().into_bytes()];
        parts.push(self.reference.clone().into_bytes());
        for (path, (mode, content)) in &self.entries {
            parts.push(format!("{path} {mode:o}").into_bytes());
            parts.push(match content {
                Content::Directory => b"directory".to_vec(),
                Content::Link(target) => format!("link {target}").into_bytes(),
                Content::Bytes(bytes) => bytes.clone(),
                // The path of a cached program holds the hash of what it was built from.
                Content::File(source) if source.starts_with(&built) => {
                    source.display().to_string().into_bytes()
                }
                Content::File(source) => hash_of(source)?,
            });
        }
        Ok(cache::fingerprint(parts.iter().map(Vec::as_slice)))
    }

    /// The one layer, from its beginning, and its digest.
    pub(super) fn layer(&self) -> anyhow::Result<(File, String)> {
        let mut layer = Hashing { inner: tempfile::tempfile()?, hash: Sha256::new() };
        self.write_layer(&mut layer)?;
        let digest = cache::hex(&layer.hash.finalize());
        let mut file = layer.inner;
        io::Seek::rewind(&mut file)?;
        Ok((file, digest))
    }

    /// Its full name.
    pub(super) fn reference(&self) -> &str {
        &self.reference
    }

    /// The image's configuration, with the digest of its layer.
    pub(super) fn config(&self, layer: &str) -> serde_json::Value {
        let mut config =
            json!({"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]});
        if !self.entrypoint.is_empty() {
            config["Entrypoint"] = json!(self.entrypoint);
        }
        if !self.command.is_empty() {
            config["Cmd"] = json!(self.command);
        }
        if let Some(user) = &self.user {
            config["User"] = json!(user);
        }
        json!({
            "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
            "os": "linux",
            "created": "1970-01-01T00:00:00Z",
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{layer}")]},
            "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "tidegate-e2e"}],
        })
    }

    /// Writes the archive.
    pub fn write(&self, out: &mut File) -> anyhow::Result<()> {
        let (file, digest) = self.layer()?;
        let config = self.config(&digest).to_string().into_bytes();
        let config_name = format!("{}.json", cache::hex(&Sha256::digest(&config)));
        let layer_name = format!("{digest}/layer.tar");
        let manifest = json!([{"Config": config_name, "RepoTags": [self.reference], "Layers": [layer_name]}]);
        let mut archive = Builder::new(out);
        for (name, bytes) in
            [(&config_name, &config), (&"manifest.json".to_owned(), &manifest.to_string().into_bytes())]
        {
            let mut header = header(EntryType::Regular, 0o644, bytes.len() as u64);
            archive.append_data(&mut header, name, bytes.as_slice())?;
        }
        let size = file.metadata()?.len();
        archive.append_data(&mut header(EntryType::Regular, 0o644, size), &layer_name, file)?;
        archive.finish()?;
        Ok(())
    }

    fn write_layer(&self, out: &mut Hashing) -> anyhow::Result<()> {
        let mut layer = Builder::new(out);
        for (path, (mode, content)) in &self.entries {
            match content {
                Content::Directory => {
                    layer.append_data(
                        &mut header(EntryType::Directory, *mode, 0),
                        format!("{path}/"),
                        io::empty(),
                    )?;
                }
                Content::Link(target) => {
                    layer.append_link(&mut header(EntryType::Symlink, *mode, 0), path, target)?;
                }
                Content::Bytes(bytes) => {
                    layer.append_data(
                        &mut header(EntryType::Regular, *mode, bytes.len() as u64),
                        path,
                        bytes.as_slice(),
                    )?;
                }
                Content::File(source) => {
                    let file =
                        File::open(source).with_context(|| format!("cannot read {}", source.display()))?;
                    let size = file.metadata()?.len();
                    layer.append_data(&mut header(EntryType::Regular, *mode, size), path, file.take(size))?;
                }
            }
        }
        layer.finish()?;
        Ok(())
    }
}

pub(super) fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header
}

fn hash_of(path: &Path) -> anyhow::Result<Vec<u8>> {
    let mut file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut hash = Sha256::new();
    let mut block = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut block)?;
        if read == 0 {
            return Ok(hash.finalize().to_vec());
        }
        hash.update(&block[..read]);
    }
}

/// Removes the oldest archives of an image.
fn forget_old(directory: &Path, name: &str) {
    let is_of_image = |path: &Path| {
        let file = path.file_name().map(|file| file.to_string_lossy().into_owned()).unwrap_or_default();
        file.strip_suffix(".tar")
            .and_then(|stem| stem.rsplit_once('-'))
            .is_some_and(|(image, _hash)| image == name)
    };
    let entries = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut archives: Vec<_> = entries
        .filter(|path| is_of_image(path))
        .filter_map(|path| Some((fs::metadata(&path).ok()?.modified().ok()?, path)))
        .collect();
    archives.sort();
    for (_age, path) in archives.iter().rev().skip(KEPT) {
        let _removed_by_another = fs::remove_file(path);
    }
}

/// Hashes what it passes on.
struct Hashing {
    inner: File,
    hash: Sha256,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(image: &Image) -> Vec<u8> {
        let mut file = tempfile::tempfile().unwrap();
        image.write(&mut file).unwrap();
        io::Seek::rewind(&mut file).unwrap();
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        bytes
    }

    fn image() -> Image {
        Image::new("tidegate.local/x:1")
            .text("/etc/passwd", "a")
            .link("/bin/sh", "busybox")
            .directory("/tmp", 0o1777)
    }

    #[test]
    fn the_same_inputs_give_the_same_bytes_in_any_order() {
        let other = Image::new("tidegate.local/x:1")
            .directory("/tmp", 0o1777)
            .link("/bin/sh", "busybox")
            .text("/etc/passwd", "a");
        assert_eq!(bytes(&image()), bytes(&other));
        assert_eq!(image().fingerprint().unwrap(), other.fingerprint().unwrap());
    }

    #[test]
    fn another_content_gives_another_fingerprint() {
        assert_ne!(image().fingerprint().unwrap(), image().text("/etc/passwd", "b").fingerprint().unwrap());
        assert_ne!(image().fingerprint().unwrap(), image().user("65532").fingerprint().unwrap());
    }

    #[test]
    fn the_layer_digest_in_the_configuration_is_the_layers_own() {
        let mut archive = tar::Archive::new(io::Cursor::new(bytes(&image())));
        let mut files = BTreeMap::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let name = entry.path().unwrap().display().to_string();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            files.insert(name, content);
        }
        let manifest: serde_json::Value = serde_json::from_slice(&files["manifest.json"]).unwrap();
        let layer = &files[manifest[0]["Layers"][0].as_str().unwrap()];
        let config: serde_json::Value =
            serde_json::from_slice(&files[manifest[0]["Config"].as_str().unwrap()]).unwrap();
        assert_eq!(config["rootfs"]["diff_ids"][0], format!("sha256:{}", cache::hex(&Sha256::digest(layer))));
        let mut layer = tar::Archive::new(layer.as_slice());
        let paths: Vec<String> = layer
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().path().unwrap().display().to_string())
            .collect();
        assert_eq!(paths, ["bin/", "bin/sh", "etc/", "etc/passwd", "tmp/"]);
    }
}
