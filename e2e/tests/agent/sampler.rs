//! The sampler alone, where a test needs another pace than the agent's.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::json;
use tidegate_e2e::harness::eventually;
use tidegate_gpu::{Memory, Outcome, ReadError, Reason, Sampler, Sink};

use crate::node::{DEADLINE, Driver, GIB, gpu};

const RETRY: Duration = Duration::from_millis(100);

/// What one round of the sampler told.
#[derive(Debug, Default)]
struct Round {
    driver: Option<Result<String, Reason>>,
    readings: BTreeMap<String, Result<Memory, Reason>>,
    nameless: Vec<Reason>,
}

impl Sink for Round {
    fn driver(&mut self, state: Result<String, ReadError>) {
        self.driver = Some(state.map_err(|error| error.reason));
    }

    fn reading(&mut self, uuid: &str, _asked: Instant, outcome: Outcome) {
        self.readings.insert(uuid.to_owned(), outcome.map_err(|error| error.reason));
    }

    fn nameless(&mut self, error: ReadError) {
        self.nameless.push(error.reason);
    }
}

fn round(sampler: &mut Sampler) -> Round {
    let mut round = Round::default();
    sampler.sample(&mut round);
    round
}

fn used(bytes: u64) -> Memory {
    Memory { used_bytes: bytes, total_bytes: 40 * GIB }
}

/// Rounds until GPU-1 is read.
async fn until_read(sampler: &mut Sampler) -> Round {
    let read = eventually("a reading", DEADLINE, async || {
        let round = round(sampler);
        if round.readings.contains_key("GPU-1") { Ok(round) } else { Err(round) }
    });
    read.await.expect("a reading")
}

#[tokio::test]
async fn a_library_that_comes_later_is_found() {
    let driver = Driver::new();
    driver.write(&gpu("GPU-1", 0).used(GIB));
    let mut sampler = Sampler::new(&driver.library(), RETRY);
    assert_eq!(round(&mut sampler).driver, Some(Err(Reason::LibraryNotFound)));
    driver.install_library();
    let round = until_read(&mut sampler).await;
    assert_eq!(round.driver, Some(Ok("570.86.15".to_owned())));
    assert_eq!(round.readings["GPU-1"], Ok(used(GIB)));
}

#[test]
fn a_missing_library_is_not_looked_for_before_its_time() {
    let driver = Driver::new();
    let mut sampler = Sampler::new(&driver.library(), Duration::from_hours(1));
    assert_eq!(round(&mut sampler).driver, Some(Err(Reason::LibraryNotFound)));
    driver.install_library();
    assert_eq!(round(&mut sampler).driver, None);
}

#[tokio::test]
async fn a_driver_that_is_updated_under_the_library_is_loaded_anew() {
    let driver = Driver::with_library();
    driver.write(&gpu("GPU-1", 0));
    let mut sampler = Sampler::new(&driver.library(), RETRY);
    assert_eq!(round(&mut sampler).readings["GPU-1"], Ok(used(0)));
    driver.write_driver(&json!({"failure": "NVML_ERROR_LIB_RM_VERSION_MISMATCH"}));
    let mismatch = round(&mut sampler);
    assert_eq!(mismatch.driver, Some(Err(Reason::VersionMismatch)));
    assert!(mismatch.readings.is_empty());
    driver.write_driver(&json!({"version": "580.95.05"}));
    assert_eq!(until_read(&mut sampler).await.driver, Some(Ok("580.95.05".to_owned())));
}

#[test]
fn what_the_driver_reserves_is_not_used_memory_except_where_an_old_driver_cannot_tell() {
    let driver = Driver::with_library();
    driver.write(&gpu("GPU-1", 0).used(2 * GIB));
    driver.write(&gpu("GPU-2", 1).used(2 * GIB).before_510());
    let round = round(&mut Sampler::new(&driver.library(), RETRY));
    assert_eq!(round.readings["GPU-1"], Ok(used(2 * GIB)));
    assert_eq!(round.readings["GPU-2"], Ok(used(3 * GIB)));
}

#[test]
fn a_gpu_that_was_lost_before_the_first_reading_has_no_name_and_hides_no_other() {
    let driver = Driver::with_library();
    driver.write(&gpu("GPU-1", 0).failing("NVML_ERROR_GPU_IS_LOST"));
    driver.write(&gpu("GPU-2", 1));
    let round = round(&mut Sampler::new(&driver.library(), RETRY));
    assert_eq!(round.nameless, [Reason::GpuLost]);
    assert_eq!(round.readings, BTreeMap::from([("GPU-2".to_owned(), Ok(used(0)))]));
}

#[test]
fn a_lost_gpu_takes_its_mig_devices_with_it_and_a_removed_one_is_named_once() {
    let driver = Driver::with_library();
    driver.write(&gpu("GPU-1", 0).mig("MIG-1", 40 * GIB, GIB));
    driver.write(&gpu("GPU-2", 1));
    let mut sampler = Sampler::new(&driver.library(), RETRY);
    assert_eq!(round(&mut sampler).readings["MIG-1"], Ok(used(GIB)));
    driver.write(&gpu("GPU-1", 0).failing("NVML_ERROR_GPU_IS_LOST"));
    let lost = round(&mut sampler).readings;
    assert_eq!((&lost["GPU-1"], &lost["MIG-1"]), (&Err(Reason::GpuLost), &Err(Reason::GpuLost)));
    assert_eq!(lost["GPU-2"], Ok(used(0)));
    driver.remove("GPU-1");
    assert_eq!(round(&mut sampler).readings["MIG-1"], Err(Reason::NotFound));
    assert_eq!(round(&mut sampler).readings, BTreeMap::from([("GPU-2".to_owned(), Ok(used(0)))]));
}
