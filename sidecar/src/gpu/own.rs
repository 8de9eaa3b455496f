//! NVML, read in the sidecar's own container: a claim of dynamic resource allocation gives it the engine's devices.
//!
//! NVML runs on a thread of its own and is only seen through its last readings: a driver that hangs makes them old. What
//! the container was given never changes, so a device that was once seen and is not there any more is lost, not gone.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use anyhow::anyhow;
use tidegate_gpu::{Allocated, GpuReport, Identity, Outcome, RETRY, ReadError, Readings, Sampler, Sink};

use super::{Failure, PERIOD, Problem, problem};

/// The container's devices, written by the thread and read by whoever asks.
#[derive(Debug, Clone, Default)]
pub(super) struct Devices(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    readings: Readings,
    seen: BTreeSet<String>,
    /// Of the last round: a device in trouble that never told its name.
    nameless: Option<ReadError>,
}

impl Devices {
    /// Starts to read for as long as the process lives.
    pub(super) fn start(library: PathBuf) -> io::Result<Self> {
        let devices = Self::default();
        let written = devices.clone();
        thread::Builder::new().name("nvml".to_owned()).spawn(move || {
            let mut nvml = Sampler::of_container(&library, RETRY);
            loop {
                let mut round = Round { devices: &written, nameless: None };
                nvml.sample(&mut round);
                let nameless = round.nameless;
                written.lock().nameless = nameless;
                thread::sleep(PERIOD);
            }
        })?;
        Ok(devices)
    }

    /// What the agent would tell of them.
    pub(super) fn report(&self) -> Result<GpuReport, Problem> {
        let state = self.lock();
        if let Some(Err(error)) = state.readings.driver() {
            return Err(problem(Failure::Driver)(anyhow!("{error}")));
        }
        if let Some(error) = &state.nameless {
            return Err(problem(Failure::Device)(anyhow!("{error}")));
        }
        if state.readings.driver().is_none() {
            return Err(problem(Failure::Silent)(anyhow!("NVML has not answered yet")));
        }
        if state.seen.is_empty() {
            return Err(problem(Failure::Driver)(anyhow!("NVML lists no device in this container")));
        }
        // Which pods share a device is the kubelet's knowledge, and changes nothing here.
        let own = |uuid: &String| Allocated { identity: Identity::Uuid(uuid.clone()), shared: false };
        let own: Vec<_> = state.seen.iter().map(own).collect();
        Ok(state.readings.report(&own, Instant::now()))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One round of the sampler.
struct Round<'a> {
    devices: &'a Devices,
    nameless: Option<ReadError>,
}

impl Sink for Round<'_> {
    fn driver(&mut self, state: Result<String, ReadError>) {
        self.devices.lock().readings.set_driver(state);
    }

    fn reading(&mut self, uuid: &str, asked: Instant, outcome: Outcome) {
        let mut state = self.devices.lock();
        if !state.seen.contains(uuid) {
            state.seen.insert(uuid.to_owned());
        }
        state.readings.insert(uuid, asked, outcome);
    }

    fn nameless(&mut self, error: ReadError) {
        self.nameless = Some(error);
    }
}
