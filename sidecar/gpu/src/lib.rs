//! Readings of GPU memory from NVML, and which pod they belong to.

mod allocation;
mod nvml;
mod reading;
mod report;

pub use allocation::{Allocated, Allocations, Identity, PodEntry, PodName, ResourceDevices};
pub use nvml::{RETRY, Sampler};
pub use reading::{Memory, Outcome, ReadError, Readings, Reason, Sink};
pub use report::{DeviceReading, DeviceReport, GpuReport, REPORT_PATH};
