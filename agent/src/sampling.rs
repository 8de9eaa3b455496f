//! NVML on a thread of its own. A call that hangs stops that thread and nothing else: readings grow old, and their age
//! is in every answer.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use tidegate_gpu::{Outcome, RETRY, ReadError, Readings, Sampler, Sink};

use crate::config::Config;
use crate::metrics::Metrics;

/// The newest readings, written by the thread and read by the answers.
#[derive(Debug, Default)]
pub(crate) struct Samples {
    readings: Mutex<Readings>,
}

impl Samples {
    /// The readings. Held for the copy of a few numbers, never across a call of NVML.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Readings> {
        self.readings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts to read every interval, for as long as the process lives. A thread that ends all the same has a fault, which
/// `/healthz` tells.
pub(crate) fn start(
    config: &Config,
    samples: &Arc<Samples>,
    metrics: &Arc<Metrics>,
) -> io::Result<JoinHandle<()>> {
    let mut nvml = Sampler::new(&config.nvml_library, RETRY);
    let mut publisher =
        Publisher { samples: Arc::clone(samples), metrics: Arc::clone(metrics), said: HashMap::new() };
    let interval = config.interval;
    std::thread::Builder::new().name("nvml".to_owned()).spawn(move || {
        loop {
            nvml.sample(&mut publisher);
            std::thread::sleep(interval);
        }
    })
}

/// Makes readings visible, counts them, and says what changed once.
struct Publisher {
    samples: Arc<Samples>,
    metrics: Arc<Metrics>,
    /// The last trouble told of each device; `""` is the driver.
    said: HashMap<String, String>,
}

impl Publisher {
    fn trouble(&mut self, about: &str, error: &ReadError) {
        self.metrics.nvml_error(error.reason);
        let line = error.to_string();
        if self.said.get(about) != Some(&line) {
            tracing::warn!(device = about, reason = error.reason.as_str(), "{line}");
            self.said.insert(about.to_owned(), line);
        }
    }
}

impl Sink for Publisher {
    fn driver(&mut self, state: Result<String, ReadError>) {
        match &state {
            Ok(version) => {
                tracing::info!(driver = version, "NVML is loaded");
                self.said.remove("");
            }
            Err(error) => self.trouble("", error),
        }
        self.samples.lock().set_driver(state);
    }

    fn reading(&mut self, uuid: &str, asked: Instant, outcome: Outcome) {
        self.metrics.nvml_read();
        match &outcome {
            Ok(_) => {
                if self.said.remove(uuid).is_some() {
                    tracing::info!(device = uuid, "the device is read again");
                }
            }
            Err(error) => self.trouble(uuid, error),
        }
        self.samples.lock().insert(uuid, asked, outcome);
    }

    fn nameless(&mut self, error: ReadError) {
        self.trouble("unknown", &error);
    }
}
