//! What the agent of a node tells a sidecar about the GPUs of its own pod: `GET /v1/gpus` over TLS with a token of
//! audience `tidegate-agent`, answered with a [`GpuReport`] as JSON.

use serde::{Deserialize, Serialize};

/// Path of the report.
pub const REPORT_PATH: &str = "/v1/gpus";

/// The GPUs of one pod.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GpuReport {
    /// One entry for each device that the kubelet gave the pod. Empty: the pod has none.
    pub devices: Vec<DeviceReport>,
}

/// One device of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceReport {
    /// UUID of the GPU (`GPU-…`) or of the MIG device (`MIG-…`).
    pub uuid: String,
    /// Several pods share this device (time-slicing or MPS): the reading is of the whole device.
    pub shared: bool,
    /// The reading, or why there is none.
    pub reading: DeviceReading,
}

/// A reading of a device's memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DeviceReading {
    /// Memory in bytes.
    #[serde(rename_all = "camelCase")]
    Memory {
        /// In use.
        used_bytes: u64,
        /// There are.
        total_bytes: u64,
        /// Milliseconds since NVML was asked.
        age_millis: u64,
    },
    /// NVML gave an error, in one line.
    Unavailable(String),
}
