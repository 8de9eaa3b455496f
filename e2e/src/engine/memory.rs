//! Writes the engine's GPU memory to the files that the simulated NVML library reads.
//!
//! vLLM takes its whole cache when it starts; engines that allocate as they go (TGI, Triton, plain `PyTorch`) are what
//! this models: weights, plus a cache that grows with its use.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use serde_json::Value;

use super::{driver::Driver, faults::GpuMemory};

/// Shortest time between two writes.
const INTERVAL: Duration = Duration::from_millis(100);

/// The GPUs of one engine.
#[derive(Debug, Clone)]
pub struct Gpus {
    files: Vec<PathBuf>,
    weights: f64,
    cache: f64,
}

impl Gpus {
    /// The GPUs named by `visible` (the form of `NVIDIA_VISIBLE_DEVICES`; a time-sliced `GPU-…::n` is its GPU) as
    /// files in `directory`. `weights` and `cache` are shares of each GPU's memory.
    pub fn new(directory: &Path, visible: &str, weights: f64, cache: f64) -> Self {
        let files = visible
            .split(',')
            .map(str::trim)
            .filter(|id| !matches!(*id, "" | "void" | "none" | "all"))
            .map(|id| directory.join(format!("{}.json", id.split("::").next().unwrap_or(id))))
            .collect();
        Self { files, weights, cache }
    }

    /// Whether there is no GPU to write to.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Follows the engine for ever. A file that cannot be written is told once, and tried again.
    pub async fn follow(self, driver: Arc<Driver>) {
        let mut told = false;
        let mut written = None;
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let share = driver.with_model(tidegate_cli::engine_model::Model::kv_usage);
            let (full, forced) =
                driver.with_faults(|faults| (faults.is_out_of_memory(Instant::now()), faults.gpu_memory()));
            let memory = self.memory(share, full, forced);
            if written == Some(memory) {
                continue;
            }
            match self.write(memory) {
                Ok(()) => written = Some(memory),
                Err(error) if !told => {
                    told = true;
                    tracing::warn!("GPU memory is not shown: {error:#}");
                }
                Err(_) => {}
            }
        }
    }

    /// Gives all memory back, as a process that ends does.
    pub fn release(&self) {
        if let Err(error) = self.write(GpuMemory { bytes: Some(0), fraction: None }) {
            tracing::warn!("GPU memory is not given back: {error:#}");
        }
    }

    fn memory(&self, kv_usage: f64, full: bool, forced: GpuMemory) -> GpuMemory {
        if full {
            return GpuMemory { bytes: None, fraction: Some(1.0) };
        }
        if forced != GpuMemory::default() {
            return forced;
        }
        GpuMemory { bytes: None, fraction: Some((self.weights + self.cache * kv_usage).min(1.0)) }
    }

    fn write(&self, memory: GpuMemory) -> anyhow::Result<()> {
        for file in &self.files {
            set_memory_used(file, memory).with_context(|| file.display().to_string())?;
        }
        Ok(())
    }
}

/// Sets `memoryUsed` and keeps everything else, by a rename so that no reader sees half a file.
fn set_memory_used(file: &Path, memory: GpuMemory) -> anyhow::Result<()> {
    let mut gpu: Value = serde_json::from_slice(&std::fs::read(file)?)?;
    let total = gpu["memoryTotal"].as_u64().context("memoryTotal is missing")?;
    let used = memory.bytes.unwrap_or_else(|| (memory.fraction.unwrap_or(0.0) * total as f64) as u64);
    gpu["memoryUsed"] = used.min(total).into();
    let draft = file.with_extension(format!("{}.tmp", std::process::id()));
    std::fs::write(&draft, serde_json::to_vec_pretty(&gpu)?)?;
    replace(&draft, file)?;
    Ok(())
}

fn replace(draft: &Path, file: &Path) -> io::Result<()> {
    std::fs::rename(draft, file).inspect_err(|_| {
        // What matters is the first error.
        let _also_gone = std::fs::remove_file(draft);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_fields_of_the_gpu_survive_a_write() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("GPU-1.json");
        std::fs::write(&file, r#"{"uuid":"GPU-1","memoryTotal":1000,"memoryUsed":1,"failure":"NVML_ERROR"}"#)
            .unwrap();
        let gpus = Gpus::new(dir.path(), "GPU-1::2, void", 0.4, 0.5);
        gpus.write(gpus.memory(0.5, false, GpuMemory::default())).unwrap();
        let gpu: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        assert_eq!(gpu["memoryUsed"], 650);
        assert_eq!(gpu["failure"], "NVML_ERROR");
        gpus.release();
        let gpu: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        assert_eq!(gpu["memoryUsed"], 0);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "no draft is left behind");
    }

    #[test]
    fn out_of_memory_wins_over_an_override_which_wins_over_the_model() {
        let gpus = Gpus::new(Path::new("/nonexistent"), "GPU-1", 0.4, 0.5);
        let forced = GpuMemory { bytes: Some(7), fraction: None };
        assert_eq!(gpus.memory(0.0, true, forced).fraction, Some(1.0));
        assert_eq!(gpus.memory(0.0, false, forced), forced);
        assert_eq!(gpus.memory(1.0, false, GpuMemory::default()).fraction, Some(0.9));
    }
}
