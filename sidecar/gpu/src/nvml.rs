//! Readings from NVML.
//!
//! A [`Sampler`] belongs to one thread: NVML may take its time or hang, and whoever answers questions looks only at
//! what was published last.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};

use crate::reading::{Memory, Outcome, ReadError, Reason, Sink};

/// How long the agent waits until it tries a library again that could not be loaded.
pub const RETRY: Duration = Duration::from_secs(30);

/// Reads all devices of the node, and finds NVML again when it comes or changes.
#[derive(Debug)]
pub struct Sampler {
    library: PathBuf,
    retry: Duration,
    nvml: Option<Nvml>,
    try_again: Option<Instant>,
    /// Whether a GPU that has been cut into MIG devices is read as a whole too.
    whole: bool,
    /// UUIDs by place, so that a GPU that no longer tells its own can still be named.
    places: HashMap<Place, String>,
}

/// Where NVML lists a device: the GPU, and on it the MIG device.
type Place = (u32, Option<u32>);

impl Sampler {
    /// A sampler for a library: a path, or a name that the loader knows where to look for. When it cannot be loaded, it
    /// is tried again after `retry`, usually [`RETRY`].
    pub fn new(library: &Path, retry: Duration) -> Self {
        Self {
            library: library.to_owned(),
            retry,
            nvml: None,
            try_again: None,
            whole: true,
            places: HashMap::new(),
        }
    }

    /// A sampler in a container that was given its devices: a GPU that has been cut is not among them, its MIG devices
    /// are, which NVML lists below it.
    pub fn of_container(library: &Path, retry: Duration) -> Self {
        Self { whole: false, ..Self::new(library, retry) }
    }

    /// Reads every device once. Each reading goes to the sink as soon as it is there, so that a device that hangs the
    /// driver does not take with it what was read before.
    ///
    /// A missing library is a state that the sink is told, and is tried again.
    pub fn sample(&mut self, sink: &mut dyn Sink) {
        let Some(nvml) = self.loaded(sink) else { return };
        match nvml.device_count() {
            Ok(count) => {
                self.read_all(&nvml, count, sink);
                self.nvml = Some(nvml);
            }
            // The driver was changed or taken away under the loaded library: only loading it anew helps.
            Err(error) => {
                sink.driver(Err(self.explain_load(&error)));
                self.try_again = Some(Instant::now() + self.retry);
            }
        }
    }

    /// Takes NVML out, loading it when it is time to.
    fn loaded(&mut self, sink: &mut dyn Sink) -> Option<Nvml> {
        if let Some(nvml) = self.nvml.take() {
            return Some(nvml);
        }
        if self.try_again.is_some_and(|at| Instant::now() < at) {
            return None;
        }
        match Nvml::builder().lib_path(self.library.as_os_str()).init() {
            Ok(nvml) => {
                self.try_again = None;
                sink.driver(Ok(nvml.sys_driver_version().unwrap_or_else(|_| "unknown".to_owned())));
                Some(nvml)
            }
            Err(error) => {
                sink.driver(Err(self.explain_load(&error)));
                self.try_again = Some(Instant::now() + self.retry);
                None
            }
        }
    }

    fn explain_load(&self, error: &NvmlError) -> ReadError {
        let library = self.library.display();
        let retry = self.retry;
        explain(&format!("NVML is not available from {library} (tried again every {retry:?})"), error)
    }

    fn read_all(&mut self, nvml: &Nvml, count: u32, sink: &mut dyn Sink) {
        let mut seen = HashSet::new();
        for index in 0..count {
            let place = (index, None);
            let started = Instant::now();
            match nvml.device_by_index(index) {
                Ok(device) => {
                    let cut = is_cut(&device);
                    if self.whole || !cut {
                        self.read(&device, place, started, &mut seen, sink);
                    }
                    if cut {
                        self.read_slices(&device, index, &mut seen, sink);
                    }
                }
                Err(error) => self.lost(index, started, &error, &mut seen, sink),
            }
        }
        self.places.retain(|_, uuid| {
            let listed = seen.contains(uuid);
            if !listed {
                let gone = ReadError::new(Reason::NotFound, format!("NVML no longer lists {uuid}"));
                sink.reading(uuid, Instant::now(), Err(gone));
            }
            listed
        });
    }

    /// The MIG devices of a GPU that has been cut into such.
    fn read_slices(&mut self, gpu: &Device<'_>, index: u32, seen: &mut HashSet<String>, sink: &mut dyn Sink) {
        for slot in 0..gpu.mig_device_count().unwrap_or(0) {
            let started = Instant::now();
            if let Ok(slice) = gpu.mig_device_by_index(slot) {
                self.read(&slice, (index, Some(slot)), started, seen, sink);
            }
        }
    }

    fn read(
        &mut self,
        device: &Device<'_>,
        place: Place,
        started: Instant,
        seen: &mut HashSet<String>,
        sink: &mut dyn Sink,
    ) {
        let uuid = match device.uuid() {
            Ok(uuid) => {
                self.places.insert(place, uuid.clone());
                uuid
            }
            Err(error) => match self.places.get(&place) {
                Some(uuid) => uuid.clone(),
                None => {
                    return sink.nameless(explain(&format!("NVML's device {} has no UUID", place.0), &error));
                }
            },
        };
        sink.reading(&uuid, started, read_memory(device));
        seen.insert(uuid);
    }

    /// A GPU without a handle: it and its MIG devices are in the same trouble.
    fn lost(
        &self,
        index: u32,
        started: Instant,
        error: &NvmlError,
        seen: &mut HashSet<String>,
        sink: &mut dyn Sink,
    ) {
        let mut named = false;
        for (_, uuid) in self.places.iter().filter(|((gpu, _), _)| *gpu == index) {
            sink.reading(uuid, started, Err(explain("NVML", error)));
            seen.insert(uuid.clone());
            named = true;
        }
        if !named {
            sink.nameless(explain(&format!("NVML's device {index} cannot be opened"), error));
        }
    }
}

/// A GPU that cannot be cut answers `NotSupported`, one in trouble its error, which its own reading tells too.
fn is_cut(gpu: &Device<'_>) -> bool {
    gpu.mig_mode().is_ok_and(|mode| mode.current != 0)
}

/// Memory of one device: GPU or MIG device, by its own handle.
///
/// `used` is what processes have allocated. What the driver sets aside for itself (`reserved`, some hundred MiB) is not
/// part of it where the driver tells them apart, from version 510 on; an older driver counts it as used.
fn read_memory(device: &Device<'_>) -> Outcome {
    match device.memory_info() {
        Ok(info) => Ok(Memory { used_bytes: info.used, total_bytes: info.total }),
        Err(NvmlError::FailedToLoadSymbol(_) | NvmlError::FunctionNotFound) => read_memory_before_510(device),
        Err(error) => Err(explain("NVML", &error)),
    }
}

/// Memory from a driver that has only the first form of the call, which the wrapper leaves out.
#[allow(unsafe_code, reason = "a C function of NVML without a safe wrapper")]
fn read_memory_before_510(device: &Device<'_>) -> Outcome {
    let call = match device.nvml().lib().nvmlDeviceGetMemoryInfo.as_ref() {
        Ok(call) => call,
        Err(error) => return Err(ReadError::new(Reason::NotSupported, format!("NVML: {error}"))),
    };
    // SAFETY: the handle is NVML's own and NVML stays loaded as long as the device borrows it; `nvmlMemory_t` is three
    // integers, for which all zeros is a value, and NVML fills it when it answers success.
    let (code, info) = unsafe {
        let mut info = std::mem::zeroed();
        (call(device.handle(), &raw mut info), info)
    };
    nvml_wrapper::error::nvml_try(code).map_err(|error| explain("NVML", &error))?;
    Ok(Memory { used_bytes: info.used, total_bytes: info.total })
}

fn explain(what: &str, error: &NvmlError) -> ReadError {
    ReadError::new(reason(error), format!("{what}: {error}"))
}

fn reason(error: &NvmlError) -> Reason {
    match error {
        NvmlError::LibloadingError(_) | NvmlError::LibraryNotFound => Reason::LibraryNotFound,
        NvmlError::DriverNotLoaded | NvmlError::Uninitialized => Reason::DriverNotLoaded,
        NvmlError::LibRmVersionMismatch => Reason::VersionMismatch,
        NvmlError::GpuLost => Reason::GpuLost,
        NvmlError::ResetRequired => Reason::ResetRequired,
        NvmlError::NotFound => Reason::NotFound,
        NvmlError::NotSupported | NvmlError::FunctionNotFound | NvmlError::FailedToLoadSymbol(_) => {
            Reason::NotSupported
        }
        NvmlError::NoPermission | NvmlError::OperatingSystem => Reason::NoPermission,
        NvmlError::Timeout => Reason::Timeout,
        _ => Reason::Unknown,
    }
}
