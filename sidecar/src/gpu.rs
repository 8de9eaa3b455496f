//! Memory of the pod's own GPUs, asked of the node's agent.
//!
//! When a reading can't be had, nothing is told to the engine: its last one grows old and the tier does what its
//! `onStale` says. That choice is the user's, so an answer that covers only some of the devices is no reading
//! either.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use tidegate_core::{GpuMemoryReading, Signal, Tick};
use tidegate_gpu::{DeviceReading, GpuReport, REPORT_PATH};
use tidegate_policy::GpuMemoryTier;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::{info, warn};

use crate::endpoint::Endpoint;
use crate::shared::Shared;
use crate::transport::{Driven, connect};
use crate::trust::{Trust, authorization};

/// Between two questions, and longest wait for an answer.
const PERIOD: Duration = GpuMemoryTier::READ_EVERY;
const LARGEST_ANSWER: usize = 1 << 20;

/// The agent and how to speak to it.
#[derive(Debug, Clone)]
pub struct Agent {
    /// Where it is.
    pub endpoint: Endpoint,
    /// File with the token that shows which pod this is.
    pub token: PathBuf,
    /// Whom to believe that it is the agent.
    pub trust: Trust,
}

/// Why there is no reading, as in the metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Failure {
    /// No connection, or no answer in time.
    Unreachable,
    /// The agent answered with an error.
    Refused,
    /// The agent's answer can't be read.
    Garbled,
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
            Self::Device => "device",
        }
    }
}

/// Asks for ever.
pub async fn follow(agent: Agent, shared: Arc<Shared>) {
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut client = Client { agent, connection: None };
    let mut told = None;
    loop {
        ticks.tick().await;
        let answer = client.ask().await;
        let reading = answer.and_then(|report| sum(&report, shared.clock.now()));
        tell_change(&client.agent.endpoint, &mut told, &reading);
        match reading {
            Ok(reading) => {
                shared.engine.load().observe(shared.clock.now(), Signal::GpuMemory(reading));
                shared.metrics.gpu_reading(reading.used, reading.total, reading.at);
            }
            Err(problem) => shared.metrics.gpu_error(problem.failure.as_str()),
        }
    }
}

/// One line for each change between good and bad, not for each question.
fn tell_change(agent: &Endpoint, told: &mut Option<Failure>, reading: &Result<GpuMemoryReading, Problem>) {
    let failure = reading.as_ref().err().map(|problem| problem.failure);
    if failure == *told {
        return;
    }
    *told = failure;
    match reading {
        Ok(reading) => info!(%agent, used = reading.used, total = reading.total, "GPU memory is known again"),
        Err(problem) => {
            let (reason, cause) = (problem.failure.as_str(), format!("{:#}", problem.error));
            warn!(%agent, reason, cause, "GPU memory is unknown");
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

struct Client {
    agent: Agent,
    connection: Option<(SendRequest<Empty<Bytes>>, Driven)>,
}

impl Client {
    /// One question, on the connection of the last one when that still stands.
    async fn ask(&mut self) -> Result<GpuReport, Problem> {
        let asked = timeout(PERIOD, self.exchange()).await;
        let asked = asked.context("no answer in time").map_err(problem(Failure::Unreachable));
        let answer = asked.and_then(|answer| answer);
        if answer.is_err() {
            self.connection = None;
        }
        let (status, body) = answer?;
        if status != StatusCode::OK {
            let text = String::from_utf8_lossy(&body);
            let line = text.lines().next().unwrap_or_default();
            return Err(problem(Failure::Refused)(anyhow::anyhow!("the agent answered {status} {line}")));
        }
        serde_json::from_slice(&body)
            .context("the agent's answer can't be read")
            .map_err(problem(Failure::Garbled))
    }

    async fn exchange(&mut self) -> Result<(StatusCode, Bytes), Problem> {
        let unreachable = || problem(Failure::Unreachable);
        let request = self.request().map_err(unreachable())?;
        let sender = self.sender().await.map_err(unreachable())?;
        let response = sender.send_request(request).await.context("no answer").map_err(unreachable())?;
        let status = response.status();
        let body = Limited::new(response.into_body(), LARGEST_ANSWER).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!(error)).map_err(problem(Failure::Garbled))?;
        Ok((status, body.to_bytes()))
    }

    fn request(&self) -> Result<Request<Empty<Bytes>>> {
        let host = format!("{}:{}", self.agent.endpoint.host(), self.agent.endpoint.port());
        let request = Request::builder()
            .uri(REPORT_PATH)
            .header(header::HOST, host)
            .header(header::AUTHORIZATION, authorization(&self.agent.token)?);
        Ok(request.body(Empty::new())?)
    }

    async fn sender(&mut self) -> Result<&mut SendRequest<Empty<Bytes>>> {
        let stands = match &mut self.connection {
            Some((sender, _)) => sender.ready().await.is_ok(),
            None => false,
        };
        if !stands {
            let connection = connect(&self.agent.endpoint, &self.agent.trust, b"http/1.1").await?;
            let (sender, connection) = http1::handshake(connection).await?;
            self.connection = Some((sender, Driven::spawn(connection)));
        }
        self.connection.as_mut().map(|(sender, _)| sender).context("no connection")
    }
}

/// All devices together, as old as the oldest reading.
fn sum(report: &GpuReport, now: Tick) -> Result<GpuMemoryReading, Problem> {
    let (mut used, mut total, mut age) = (0u64, 0u64, 0u64);
    for device in &report.devices {
        match &device.reading {
            DeviceReading::Memory { used_bytes, total_bytes, age_millis } => {
                used = used.saturating_add(*used_bytes);
                total = total.saturating_add(*total_bytes);
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
    fn devices_add_up_and_are_as_old_as_the_oldest() {
        let sum = sum(&report(vec![memory(3, 10, 100), memory(4, 20, 1500)]), NOW).unwrap();
        assert_eq!(sum, GpuMemoryReading { used: 7, total: 30, at: Tick::from_nanos(3_500_000_000) });
    }

    #[test]
    fn a_pod_without_devices_has_a_total_of_zero() {
        assert_eq!(sum(&report(vec![]), NOW).unwrap(), GpuMemoryReading { used: 0, total: 0, at: NOW });
    }

    #[test]
    fn a_device_that_can_not_be_read_makes_no_sum_and_is_named() {
        let readings = vec![memory(1, 2, 0), DeviceReading::Unavailable("GPU is lost".to_owned())];
        let problem = sum(&report(readings), NOW).unwrap_err();
        assert_eq!(problem.failure, Failure::Device);
        assert_eq!(problem.error.to_string(), "GPU-1: GPU is lost");
    }

    #[test]
    fn an_age_beyond_all_time_does_not_wrap() {
        assert_eq!(sum(&report(vec![memory(1, 2, u64::MAX)]), NOW).unwrap().at, Tick::from_nanos(0));
    }
}
