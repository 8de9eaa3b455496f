//! Memory of the pod's own GPUs: asked of the node's agent, or read here where the container itself was given them.
//!
//! When a reading can't be had, nothing is told to the engine: its last one grows old and the tier does what its
//! `onStale` says. That choice is the user's, so an answer that covers only some of the devices is no reading
//! either.
//!
//! A pod has as much memory left as its fullest device: an allocation that does not fit there fails, however empty the
//! others are. So the fullest decides, and not the sum. Of a device that others use too (time-slicing, MPS) all that is
//! in use counts, whoever uses it, for the same reason. A MIG device is a device of its own with its own memory.

mod agent;
mod own;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tidegate_core::{GpuMemoryReading, Signal, Tick};
use tidegate_gpu::{DeviceReading, GpuReport};
use tidegate_policy::GpuMemoryTier;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use crate::shared::Shared;

pub use agent::Agent;

/// Between two questions, and longest wait for an answer.
const PERIOD: Duration = GpuMemoryTier::READ_EVERY;

/// Who knows about the pod's GPUs.
#[derive(Debug, Clone)]
pub enum Source {
    /// The agent of the node.
    Agent(Agent),
    /// This NVML library, which sees what the container was given.
    Own(PathBuf),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agent(agent) => agent.endpoint.fmt(f),
            Self::Own(library) => library.display().fmt(f),
        }
    }
}

/// Why there is no reading, as in the metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Failure {
    /// No connection to the agent, or no answer in time.
    Unreachable,
    /// The agent answered with an error.
    Refused,
    /// The agent's answer can't be read.
    Garbled,
    /// NVML was asked and has not answered so far.
    Silent,
    /// NVML is not there, or lists no device.
    Driver,
    /// NVML gave an error for a device.
    Device,
}

impl Failure {
    /// As in the metric.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Refused => "refused",
            Self::Garbled => "garbled",
            Self::Silent => "silent",
            Self::Driver => "driver",
            Self::Device => "device",
        }
    }
}

/// Asks for ever.
pub async fn follow(source: Source, shared: Arc<Shared>) {
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut asked = match source.clone() {
        Source::Agent(agent) => Asked::Agent(agent::Client::new(agent)),
        Source::Own(library) => match own::Devices::start(library) {
            Ok(devices) => Asked::Own(devices),
            Err(error) => return warn!(%error, "GPU memory stays unknown: no thread for NVML"),
        },
    };
    let mut told = None;
    loop {
        ticks.tick().await;
        let answer = match &mut asked {
            Asked::Agent(client) => client.ask().await,
            Asked::Own(devices) => devices.report(),
        };
        let reading = answer.and_then(|report| fullest(&report, shared.clock.now()));
        tell_change(&source, &mut told, &reading);
        match reading {
            Ok(reading) => {
                shared.engine.load().observe(shared.clock.now(), Signal::GpuMemory(reading));
                shared.metrics.gpu_reading(reading.used, reading.total, reading.at);
            }
            Err(problem) => shared.metrics.gpu_error(problem.failure.as_str()),
        }
    }
}

enum Asked {
    Agent(agent::Client),
    Own(own::Devices),
}

/// One line for each change between good and bad, not for each question.
fn tell_change(source: &Source, told: &mut Option<Failure>, reading: &Result<GpuMemoryReading, Problem>) {
    let failure = reading.as_ref().err().map(|problem| problem.failure);
    if failure == *told {
        return;
    }
    *told = failure;
    match reading {
        Ok(reading) => {
            info!(%source, used = reading.used, total = reading.total, "GPU memory is known again");
        }
        Err(problem) => {
            let (reason, cause) = (problem.failure.as_str(), format!("{:#}", problem.error));
            warn!(%source, reason, cause, "GPU memory is unknown");
        }
    }
}

#[derive(Debug)]
struct Problem {
    failure: Failure,
    error: anyhow::Error,
}

fn problem(failure: Failure) -> impl FnOnce(anyhow::Error) -> Problem {
    move |error| Problem { failure, error }
}

/// The fullest device, as old as the oldest reading of any.
fn fullest(report: &GpuReport, now: Tick) -> Result<GpuMemoryReading, Problem> {
    let (mut used, mut total, mut age) = (0u64, 0u64, 0u64);
    for device in &report.devices {
        match &device.reading {
            DeviceReading::Memory { used_bytes, total_bytes, age_millis } => {
                let share = |used: u64, of: u64| u128::from(used) * u128::from(of);
                if total == 0 || share(*used_bytes, total) > share(used, *total_bytes) {
                    (used, total) = (*used_bytes, *total_bytes);
                }
                age = age.max(*age_millis);
            }
            DeviceReading::Unavailable(error) => {
                return Err(problem(Failure::Device)(anyhow::anyhow!("{}: {error}", device.uuid)));
            }
        }
    }
    let age = u64::try_from(Duration::from_millis(age).as_nanos()).unwrap_or(u64::MAX);
    Ok(GpuMemoryReading { used, total, at: Tick::from_nanos(now.as_nanos().saturating_sub(age)) })
}

#[cfg(test)]
mod tests {
    use tidegate_gpu::DeviceReport;

    use super::*;

    fn report(readings: Vec<DeviceReading>) -> GpuReport {
        let device = |(i, reading)| DeviceReport { uuid: format!("GPU-{i}"), shared: false, reading };
        GpuReport { devices: readings.into_iter().enumerate().map(device).collect() }
    }

    fn memory(used_bytes: u64, total_bytes: u64, age_millis: u64) -> DeviceReading {
        DeviceReading::Memory { used_bytes, total_bytes, age_millis }
    }

    const NOW: Tick = Tick::from_nanos(5_000_000_000);

    #[test]
    fn the_fullest_device_counts_and_is_as_old_as_the_oldest() {
        let at = Tick::from_nanos(3_500_000_000);
        let expected = GpuMemoryReading { used: 3, total: 10, at };
        let (full, empty, dead) = (memory(3, 10, 100), memory(4, 20, 1500), memory(0, 0, 0));
        for order in [[&full, &empty, &dead], [&empty, &dead, &full], [&dead, &full, &empty]] {
            let report = report(order.into_iter().cloned().collect());
            assert_eq!(fullest(&report, NOW).unwrap(), expected, "{order:?}");
        }
    }

    #[test]
    fn a_pod_without_devices_has_a_total_of_zero() {
        assert_eq!(fullest(&report(vec![]), NOW).unwrap(), GpuMemoryReading { used: 0, total: 0, at: NOW });
    }

    #[test]
    fn a_device_that_can_not_be_read_is_no_reading_and_is_named() {
        let readings = vec![memory(1, 2, 0), DeviceReading::Unavailable("GPU is lost".to_owned())];
        let problem = fullest(&report(readings), NOW).unwrap_err();
        assert_eq!(problem.failure, Failure::Device);
        assert_eq!(problem.error.to_string(), "GPU-1: GPU is lost");
    }

    #[test]
    fn an_age_beyond_all_time_does_not_wrap() {
        assert_eq!(fullest(&report(vec![memory(1, 2, u64::MAX)]), NOW).unwrap().at, Tick::from_nanos(0));
    }
}
