//! Devices and their handles.

use std::path::PathBuf;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use crate::codes::{self, Code};
use crate::files::{self, GpuFile, MemoryFields};

/// A handle is the place of its UUID in this table plus one, so that it stays the same when the GPU's file comes and
/// goes, and null is never one.
static HANDLES: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// A GPU or a MIG device as the files say it now.
pub(crate) struct Device {
    pub(crate) uuid: String,
    pub(crate) gpu: GpuFile,
    pub(crate) memory: MemoryFields,
    /// A MIG device: place among those of its GPU.
    pub(crate) slice: Option<u32>,
    failure: Option<String>,
}

impl Device {
    /// Fails when the device's readings are told to fail.
    pub(crate) fn readable(&self) -> Result<(), Code> {
        self.failure.as_deref().map_or(Ok(()), |name| Err(codes::by_name(name)))
    }
}

/// The directory of the files.
pub(crate) fn directory() -> Result<PathBuf, Code> {
    static DIRECTORY: OnceLock<Option<PathBuf>> = OnceLock::new();
    let found = DIRECTORY.get_or_init(|| Some(library()?.parent()?.join("nvml-sim.d")));
    let dir = found.clone().ok_or(codes::DRIVER_NOT_LOADED)?;
    if !dir.is_dir() {
        return Err(codes::DRIVER_NOT_LOADED);
    }
    match files::driver(&dir).failure {
        Some(name) => Err(codes::by_name(&name)),
        None => Ok(dir),
    }
}

/// Where this library was loaded from.
fn library() -> Option<PathBuf> {
    use std::os::unix::ffi::OsStrExt;
    let mut info = std::mem::MaybeUninit::<libc::Dl_info>::zeroed();
    let address: fn() -> Option<PathBuf> = library;
    // SAFETY: dladdr writes `info` when it answers non-zero, and then `dli_fname` is a C string that lives as long as
    // this library is loaded.
    let name = unsafe {
        if libc::dladdr(address as *const libc::c_void, info.as_mut_ptr()) == 0 {
            return None;
        }
        let info = info.assume_init();
        if info.dli_fname.is_null() {
            return None;
        }
        std::ffi::CStr::from_ptr(info.dli_fname)
    };
    Some(PathBuf::from(std::ffi::OsStr::from_bytes(name.to_bytes())))
}

/// The GPU at a place.
pub(crate) fn by_index(index: u32) -> Result<usize, Code> {
    let gpus = files::gpus(&directory()?);
    let gpu = gpus.get(index as usize).ok_or(codes::INVALID_ARGUMENT)?;
    present(gpu)?;
    Ok(handle(&gpu.uuid))
}

/// The GPU or MIG device of a UUID.
pub(crate) fn by_uuid(uuid: &str) -> Result<usize, Code> {
    find(uuid)
        .map_err(|code| if code == codes::GPU_IS_LOST && !known(uuid) { codes::NOT_FOUND } else { code })?;
    Ok(handle(uuid))
}

/// The MIG device at a place of its GPU.
pub(crate) fn mig_by_index(parent: usize, index: u32) -> Result<usize, Code> {
    let parent = by_handle(parent)?;
    let slice = parent.gpu.mig.get(index as usize).ok_or(codes::NOT_FOUND)?;
    Ok(handle(&slice.uuid))
}

/// The device of a handle, as its file says it now.
pub(crate) fn by_handle(handle: usize) -> Result<Device, Code> {
    let uuid = {
        let handles = HANDLES.lock().unwrap_or_else(PoisonError::into_inner);
        let place = handle.checked_sub(1).ok_or(codes::INVALID_ARGUMENT)?;
        handles.get(place).cloned().ok_or(codes::INVALID_ARGUMENT)?
    };
    find(&uuid)
}

fn known(uuid: &str) -> bool {
    HANDLES.lock().unwrap_or_else(PoisonError::into_inner).iter().any(|known| known == uuid)
}

fn handle(uuid: &str) -> usize {
    let mut handles = HANDLES.lock().unwrap_or_else(PoisonError::into_inner);
    let place = handles.iter().position(|known| known == uuid).unwrap_or_else(|| {
        handles.push(uuid.to_owned());
        handles.len() - 1
    });
    place + 1
}

fn find(uuid: &str) -> Result<Device, Code> {
    let dir = directory()?;
    if let Some(gpu) = files::gpu(&dir, uuid) {
        present(&gpu)?;
        let (memory, failure) = (gpu.memory, gpu.failure.clone());
        return Ok(Device { uuid: gpu.uuid.clone(), gpu, memory, slice: None, failure });
    }
    for gpu in files::gpus(&dir) {
        if let Some(place) = gpu.mig.iter().position(|slice| slice.uuid == uuid) {
            present(&gpu)?;
            let slice = gpu.mig[place].clone();
            let failure = slice.failure.or_else(|| gpu.failure.clone());
            let place = u32::try_from(place).map_err(|_| codes::UNKNOWN)?;
            return Ok(Device { uuid: slice.uuid, gpu, memory: slice.memory, slice: Some(place), failure });
        }
    }
    Err(codes::GPU_IS_LOST)
}

/// Takes the time that a call about the GPU takes; fails when the GPU is lost.
fn present(gpu: &GpuFile) -> Result<(), Code> {
    if gpu.hang_ms > 0 {
        std::thread::sleep(Duration::from_millis(gpu.hang_ms));
    }
    match gpu.failure.as_deref().map(codes::by_name) {
        Some(codes::GPU_IS_LOST) => Err(codes::GPU_IS_LOST),
        _ => Ok(()),
    }
}
