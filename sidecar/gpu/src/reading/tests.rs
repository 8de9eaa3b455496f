use std::time::Duration;

use super::*;

fn device(uuid: &str, shared: bool) -> Allocated {
    Allocated { identity: Identity::Uuid(uuid.to_owned()), shared }
}

fn lost() -> ReadError {
    ReadError::new(Reason::GpuLost, "NVML: GPU is lost".to_owned())
}

fn only(report: GpuReport) -> DeviceReading {
    report.devices.into_iter().next().expect("one device").reading
}

#[test]
fn a_reading_carries_its_age_since_nvml_was_asked() {
    let start = Instant::now();
    let mut readings = Readings::default();
    readings.set_driver(Ok("570".to_owned()));
    readings.insert("GPU-1", start, Ok(Memory { used_bytes: 3, total_bytes: 10 }));
    let report = readings.report(&[device("GPU-1", true)], start + Duration::from_millis(1500));
    assert_eq!(
        report.devices,
        [DeviceReport {
            uuid: "GPU-1".to_owned(),
            shared: true,
            reading: DeviceReading::Memory { used_bytes: 3, total_bytes: 10, age_millis: 1500 },
        }]
    );
}

#[test]
fn a_lost_gpu_says_so_and_does_not_hide_the_other() {
    let now = Instant::now();
    let mut readings = Readings::default();
    readings.set_driver(Ok("570".to_owned()));
    readings.insert("GPU-1", now, Ok(Memory { used_bytes: 1, total_bytes: 2 }));
    readings.insert("GPU-1", now, Err(lost()));
    readings.insert("GPU-2", now, Ok(Memory { used_bytes: 5, total_bytes: 9 }));
    let report = readings.report(&[device("GPU-1", false), device("GPU-2", false)], now);
    assert_eq!(report.devices[0].reading, DeviceReading::Unavailable("NVML: GPU is lost".to_owned()));
    assert_eq!(
        report.devices[1].reading,
        DeviceReading::Memory { used_bytes: 5, total_bytes: 9, age_millis: 0 }
    );
}

#[test]
fn no_device_is_ever_silently_left_out() {
    let now = Instant::now();
    let mut readings = Readings::default();
    let asked = [device("GPU-1", false)];
    assert_eq!(
        only(readings.report(&asked, now)),
        DeviceReading::Unavailable("NVML has not answered yet".to_owned())
    );
    readings.set_driver(Ok("570".to_owned()));
    assert_eq!(
        only(readings.report(&asked, now)),
        DeviceReading::Unavailable("NVML lists no device GPU-1".to_owned())
    );
    let unknown = Identity::Unknown { id: "nvidia0".to_owned(), why: "not a UUID".to_owned() };
    assert_eq!(
        only(readings.report(&[Allocated { identity: unknown, shared: false }], now)),
        DeviceReading::Unavailable("not a UUID".to_owned())
    );
}

#[test]
fn readings_of_a_driver_that_went_away_are_not_passed_on() {
    let now = Instant::now();
    let mut readings = Readings::default();
    readings.set_driver(Ok("570".to_owned()));
    readings.insert("GPU-1", now, Ok(Memory { used_bytes: 1, total_bytes: 2 }));
    readings.set_driver(Err(ReadError::new(Reason::DriverNotLoaded, "no driver".to_owned())));
    assert_eq!(
        only(readings.report(&[device("GPU-1", false)], now)),
        DeviceReading::Unavailable("no driver".to_owned())
    );
}
