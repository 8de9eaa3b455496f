//! Readings of GPU memory from NVML, and which pod they belong to.

mod report;

pub use report::{DeviceReading, DeviceReport, GpuReport, REPORT_PATH};
