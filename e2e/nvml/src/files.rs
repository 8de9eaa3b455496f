//! The files that drive the simulation.

use std::fs;
use std::path::Path;

use serde::Deserialize;

/// `<UUID>.json`: one GPU.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct GpuFile {
    /// `GPU-…`.
    pub(crate) uuid: String,
    /// Name of the product.
    #[serde(default = "default_name")]
    pub(crate) name: String,
    /// Place among the GPUs of the node.
    #[serde(default)]
    pub(crate) index: u32,
    /// Memory of the GPU.
    #[serde(flatten)]
    pub(crate) memory: MemoryFields,
    /// Busy, 0 to 100.
    #[serde(default)]
    pub(crate) utilization: u32,
    /// `false`: a driver older than 510, without `nvmlDeviceGetMemoryInfo_v2`.
    #[serde(default = "yes")]
    pub(crate) memory_info_v2: bool,
    /// In MIG mode, even without a MIG device that can be seen.
    #[serde(default)]
    pub(crate) mig_mode: bool,
    /// MIG devices; with any, the GPU is in MIG mode.
    #[serde(default)]
    pub(crate) mig: Vec<MigFields>,
    /// Each call about this GPU takes so long.
    #[serde(default, alias = "hang_ms")]
    pub(crate) hang_ms: u64,
    /// Name of an NVML error. `NVML_ERROR_GPU_IS_LOST` fails every call about the GPU, that for its handle too, as a GPU
    /// does that fell off the bus; any other fails its readings.
    #[serde(default)]
    pub(crate) failure: Option<String>,
}

/// Memory in bytes.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(crate) struct MemoryFields {
    /// There are.
    #[serde(rename = "memoryTotal")]
    pub(crate) total: u64,
    /// Allocated by processes.
    #[serde(rename = "memoryUsed", default)]
    pub(crate) used: u64,
    /// Set aside by the driver.
    #[serde(rename = "memoryReserved", default)]
    pub(crate) reserved: u64,
}

/// A MIG device.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MigFields {
    /// `MIG-…`.
    pub(crate) uuid: String,
    /// Memory of the slice.
    #[serde(flatten)]
    pub(crate) memory: MemoryFields,
    /// Name of an NVML error that its readings give.
    #[serde(default)]
    pub(crate) failure: Option<String>,
}

/// `driver.json`: what concerns all GPUs.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DriverFile {
    /// Version of the driver.
    #[serde(default = "default_version")]
    pub(crate) version: String,
    /// Name of an NVML error that every call gives, that to initialise too.
    #[serde(default)]
    pub(crate) failure: Option<String>,
}

const DRIVER_FILE: &str = "driver.json";

fn default_name() -> String {
    "NVIDIA Simulated GPU".to_owned()
}

fn default_version() -> String {
    "570.86.15".to_owned()
}

fn yes() -> bool {
    true
}

/// The driver; without a file a healthy one.
pub(crate) fn driver(dir: &Path) -> DriverFile {
    fs::read(dir.join(DRIVER_FILE))
        .ok()
        .and_then(|text| serde_json::from_slice(&text).ok())
        .unwrap_or_else(|| DriverFile { version: default_version(), failure: None })
}

/// The GPU of a UUID, unless its file is missing or not JSON.
pub(crate) fn gpu(dir: &Path, uuid: &str) -> Option<GpuFile> {
    let text = fs::read(dir.join(format!("{uuid}.json"))).ok()?;
    serde_json::from_slice(&text).ok()
}

/// All GPUs by index, then UUID.
pub(crate) fn gpus(dir: &Path) -> Vec<GpuFile> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut found: Vec<GpuFile> = entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name();
            let uuid = name.to_str()?.strip_suffix(".json")?;
            if uuid.starts_with("GPU-") { gpu(dir, uuid) } else { None }
        })
        .collect();
    found.sort_by(|a, b| a.index.cmp(&b.index).then_with(|| a.uuid.cmp(&b.uuid)));
    found
}
