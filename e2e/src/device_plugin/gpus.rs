//! The files that stand for the GPUs of a node.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest, Sha256};

/// A directory of `<UUID>.json` files.
#[derive(Debug)]
pub(crate) struct GpuDir {
    path: PathBuf,
}

/// What the plugin must know of a GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Gpu {
    pub(crate) uuid: String,
    pub(crate) healthy: bool,
}

#[derive(Deserialize)]
struct GpuFile {
    uuid: String,
    #[serde(default)]
    index: u32,
    #[serde(default)]
    failure: Option<String>,
}

impl GpuDir {
    /// Opens a directory, made where there is none.
    ///
    /// Engines that run as any user write the memory of their GPUs there, as they would to a device, so it is open to
    /// all.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        let open = || {
            fs::create_dir_all(path)?;
            fs::set_permissions(path, fs::Permissions::from_mode(0o777))
        };
        open().with_context(|| format!("cannot make the GPU directory {}", path.display()))?;
        Ok(Self { path: path.to_owned() })
    }

    /// All GPUs by index, then UUID. A file that is not JSON is an unhealthy GPU.
    pub(crate) fn list(&self) -> Vec<Gpu> {
        let Ok(entries) = fs::read_dir(&self.path) else { return Vec::new() };
        let mut found: Vec<(u32, Gpu)> = entries
            .flatten()
            .filter_map(|entry| {
                let name = entry.file_name();
                let uuid = name.to_str()?.strip_suffix(".json")?;
                uuid.starts_with("GPU-").then(|| read(&entry.path(), uuid))
            })
            .collect();
        found.sort_by(|a, b| a.0.cmp(&b.0).then_with(|| a.1.uuid.cmp(&b.1.uuid)));
        found.into_iter().map(|(_, gpu)| gpu).collect()
    }

    /// Makes GPUs until there are as many; answers how many were made. The same node always makes the same UUIDs.
    pub(crate) fn fill_up(&self, count: u32, memory: u64, node: &str) -> anyhow::Result<u32> {
        let there = u32::try_from(self.list().len())?;
        for index in there..count {
            let uuid = uuid(node, index);
            let file = json!({
                "uuid": uuid, "name": "NVIDIA Simulated GPU", "index": index, "memoryTotal": memory,
                "memoryUsed": 0, "utilization": 0, "failure": null,
            });
            self.write(&format!("{uuid}.json"), file.to_string().as_bytes(), 0o666)?;
        }
        Ok(count.saturating_sub(there))
    }

    /// Copies the simulated library beside the directory, where it finds its files.
    pub(crate) fn install_library(&self, library: &Path) -> anyhow::Result<()> {
        let bytes = fs::read(library).with_context(|| library.display().to_string())?;
        self.write("../libnvidia-ml.so.1", &bytes, 0o755)
    }

    /// Writes a file into place with a rename: whoever reads sees the old or the new one. A library that is in use
    /// must not be written over either.
    fn write(&self, name: &str, bytes: &[u8], mode: u32) -> anyhow::Result<()> {
        let path = self.path.join(name);
        let temporary = self.path.join(".new");
        let write = || {
            fs::write(&temporary, bytes)?;
            fs::set_permissions(&temporary, fs::Permissions::from_mode(mode))?;
            fs::rename(&temporary, &path)
        };
        write().with_context(|| format!("cannot write {}", path.display()))
    }
}

fn read(path: &Path, uuid: &str) -> (u32, Gpu) {
    let file = fs::read(path).ok().and_then(|text| serde_json::from_slice::<GpuFile>(&text).ok());
    match file {
        Some(file) => {
            let healthy = file.failure.as_deref() != Some("NVML_ERROR_GPU_IS_LOST");
            (file.index, Gpu { uuid: file.uuid, healthy })
        }
        None => (u32::MAX, Gpu { uuid: uuid.to_owned(), healthy: false }),
    }
}

/// A UUID in NVML's form, from a hash of where the GPU is.
fn uuid(node: &str, index: u32) -> String {
    let hash = Sha256::digest(format!("{node}/{index}"));
    let number = hash.iter().take(16).fold(0, |number: u128, byte| number << 8 | u128::from(*byte));
    let hex = format!("{number:032x}");
    format!("GPU-{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// Reads a whole number of bytes with a binary suffix, such as 40Gi.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    let suffixes = [("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40)];
    let (digits, shift) = suffixes
        .iter()
        .find_map(|(suffix, shift)| text.strip_suffix(suffix).map(|digits| (digits, *shift)))
        .unwrap_or((text, 0));
    let count: Option<u64> = digits.parse().ok();
    count
        .and_then(|count| count.checked_mul(1 << shift))
        .ok_or_else(|| format!("{text:?} is not a size such as 40Gi or 512Mi"))
}
