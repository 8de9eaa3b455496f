//! What is known of each device right now.

use std::collections::HashMap;
use std::time::Instant;

use crate::allocation::{Allocated, Identity};
use crate::report::{DeviceReading, DeviceReport, GpuReport};

/// Memory of a device, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Allocated by processes.
    pub used_bytes: u64,
    /// There are.
    pub total_bytes: u64,
}

/// Why there is no reading.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ReadError {
    /// The kind of trouble, for metrics.
    pub reason: Reason,
    message: String,
}

impl ReadError {
    /// An error with its one line for people.
    pub fn new(reason: Reason, message: String) -> Self {
        Self { reason, message }
    }
}

/// Kinds of trouble with NVML.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// There is no library, or it cannot be loaded.
    LibraryNotFound,
    /// The kernel module of the driver is not loaded.
    DriverNotLoaded,
    /// The driver was updated and the node has not been restarted.
    VersionMismatch,
    /// The GPU fell off the bus.
    GpuLost,
    /// The GPU must be reset before it can be used.
    ResetRequired,
    /// NVML knows no such device.
    NotFound,
    /// The device or the driver cannot tell.
    NotSupported,
    /// The container may not ask.
    NoPermission,
    /// The driver did not answer in time.
    Timeout,
    /// Anything else.
    Unknown,
}

impl Reason {
    /// The name in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LibraryNotFound => "LibraryNotFound",
            Self::DriverNotLoaded => "DriverNotLoaded",
            Self::VersionMismatch => "VersionMismatch",
            Self::GpuLost => "GpuLost",
            Self::ResetRequired => "ResetRequired",
            Self::NotFound => "NotFound",
            Self::NotSupported => "NotSupported",
            Self::NoPermission => "NoPermission",
            Self::Timeout => "Timeout",
            Self::Unknown => "Unknown",
        }
    }
}

/// A reading or why there is none.
pub type Outcome = Result<Memory, ReadError>;

/// Where a sampler puts what it reads.
pub trait Sink {
    /// NVML was loaded, with this version of the driver; or it is not there.
    fn driver(&mut self, state: Result<String, ReadError>);
    /// A device was asked at that instant.
    fn reading(&mut self, uuid: &str, asked: Instant, outcome: Outcome);
    /// A device whose UUID was never learnt is in trouble.
    fn nameless(&mut self, error: ReadError);
}

/// The newest reading of each device.
#[derive(Debug, Default)]
pub struct Readings {
    driver: Option<Result<String, ReadError>>,
    devices: HashMap<String, (Instant, Outcome)>,
}

impl Readings {
    /// Takes a change of the driver. Without it the last readings would only look alive, so they go with it.
    pub fn set_driver(&mut self, state: Result<String, ReadError>) {
        if state.is_err() {
            self.devices.clear();
        }
        self.driver = Some(state);
    }

    /// Takes a reading.
    pub fn insert(&mut self, uuid: &str, asked: Instant, outcome: Outcome) {
        match self.devices.get_mut(uuid) {
            Some(entry) => *entry = (asked, outcome),
            None => {
                self.devices.insert(uuid.to_owned(), (asked, outcome));
            }
        }
    }

    /// Version of the driver, or why NVML is not there; `None` before NVML was tried.
    pub fn driver(&self) -> Option<&Result<String, ReadError>> {
        self.driver.as_ref()
    }

    /// Each device with its newest reading and the instant NVML was asked.
    pub fn devices(&self) -> impl Iterator<Item = (&str, Instant, &Outcome)> {
        self.devices.iter().map(|(uuid, (asked, outcome))| (uuid.as_str(), *asked, outcome))
    }

    /// The report for a pod. A device without a reading carries the reason and is never left out: a pod must see that
    /// its signal is missing, not that it has no GPU.
    pub fn report(&self, allocated: &[Allocated], now: Instant) -> GpuReport {
        let devices = allocated
            .iter()
            .map(|device| DeviceReport {
                uuid: device.identity.name().to_owned(),
                shared: device.shared,
                reading: self.reading(&device.identity, now),
            })
            .collect();
        GpuReport { devices }
    }

    fn reading(&self, identity: &Identity, now: Instant) -> DeviceReading {
        let uuid = match identity {
            Identity::Uuid(uuid) => uuid,
            Identity::Unknown { why, .. } => return DeviceReading::Unavailable(why.clone()),
        };
        if let Some(Err(error)) = &self.driver {
            return DeviceReading::Unavailable(error.to_string());
        }
        match self.devices.get(uuid) {
            Some((asked, Ok(memory))) => DeviceReading::Memory {
                used_bytes: memory.used_bytes,
                total_bytes: memory.total_bytes,
                age_millis: u64::try_from(now.saturating_duration_since(*asked).as_millis())
                    .unwrap_or(u64::MAX),
            },
            Some((_, Err(error))) => DeviceReading::Unavailable(error.to_string()),
            None if self.driver.is_none() => {
                DeviceReading::Unavailable("NVML has not answered yet".to_owned())
            }
            None => DeviceReading::Unavailable(format!("NVML lists no device {uuid}")),
        }
    }
}

#[cfg(test)]
mod tests;
