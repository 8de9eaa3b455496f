//! Writes docker-archives: the same inputs give the same bytes.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Component, Path, PathBuf};

use anyhow::Context;
use serde_json::json;
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

use crate::cluster::cache;

/// Raised when the way images are written changes, so that older cached ones are not taken.
const FORMAT: &str = "1";
/// Where a container looks for programs.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
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
    references: Vec<String>,
    base: Option<PathBuf>,
    variables: Vec<String>,
    entries: BTreeMap<String, (u32, Content)>,
    entrypoint: Vec<String>,
    command: Vec<String>,
    user: Option<String>,
}

impl Image {
    /// An empty image with a full name such as `tidegate.local/tidegate-agent:0.1.0`.
    pub fn new(reference: impl Into<String>) -> Self {
        Self {
            references: vec![reference.into()],
            base: None,
            variables: vec![PATH.to_owned()],
            entries: BTreeMap::new(),
            entrypoint: Vec::new(),
            command: Vec::new(),
            user: None,
        }
    }

    /// Gives it a further full name.
    #[must_use]
    pub fn known_as(mut self, reference: impl Into<String>) -> Self {
        self.references.push(reference.into());
        self
    }

    /// Begins with what is in a tar archive, but for what is added at the same path. Such an image is written, not cached by its content.
    #[must_use]
    pub fn on(mut self, archive: impl Into<PathBuf>) -> Self {
        self.base = Some(archive.into());
        self
    }

    /// Sets a variable of a container's environment.
    #[must_use]
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push(format!("{name}={value}"));
        self
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

    /// Adds a program with a text.
    #[must_use]
    pub fn program(mut self, path: &str, text: &str) -> Self {
        self.insert(path, 0o755, Content::Bytes(text.as_bytes().to_vec()));
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
            .with_context(|| format!("cannot write image {}", self.reference()))?;
        partial.persist(&path)?;
        forget_old(&directory, self.short_name());
        Ok(path)
    }

    fn short_name(&self) -> &str {
        let name = self.reference().rsplit('/').next().unwrap_or_default();
        name.split(':').next().unwrap_or(name)
    }

    /// Hash of everything that decides the archive's bytes.
    fn fingerprint(&self) -> anyhow::Result<String> {
        let built = cache::directory()?;
        let mut parts = vec![FORMAT.as_bytes().to_vec(), self.config("").to_string().into_bytes()];
        parts.extend(self.references.iter().map(|reference| reference.clone().into_bytes()));
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

    /// Its first full name.
    pub(super) fn reference(&self) -> &str {
        self.references.first().map_or("", String::as_str)
    }

    /// The image's configuration, with the digest of its layer.
    pub(super) fn config(&self, layer: &str) -> serde_json::Value {
        let mut config = json!({"Env": self.variables});
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
        let manifest = json!([{"Config": config_name, "RepoTags": self.references, "Layers": [layer_name]}]);
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
        if let Some(base) = &self.base {
            let file = File::open(base).with_context(|| format!("cannot read {}", base.display()))?;
            // Raw: headers of long names stay what they are.
            for entry in tar::Archive::new(io::BufReader::new(file)).entries()?.raw(true) {
                let entry = entry?;
                // A Docker engine refuses a layer that has a path twice.
                if !self.entries.contains_key(plain(&entry.path()?).as_str()) {
                    layer.append(&entry.header().clone(), entry)?;
                }
            }
        }
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

/// A path of an archive as the entries of an image are named: `./etc/` is `etc`.
fn plain(path: &Path) -> String {
    path.components().filter(|part| *part != Component::CurDir).collect::<PathBuf>().display().to_string()
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
mod tests;
