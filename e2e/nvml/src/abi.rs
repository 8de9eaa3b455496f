//! The exported functions, named and typed as in `nvml.h`.
#![allow(non_snake_case, reason = "the names are NVML's")]
#![allow(clippy::missing_safety_doc, reason = "NVML's own documentation says what each pointer must be")]

use std::ffi::{CStr, c_char, c_int, c_uint};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::codes::{self, Code};
use crate::devices::{self, Device};
use crate::files::{self, MemoryFields};

/// `nvmlDevice_t`: opaque to the caller.
type Handle = usize;

/// `nvmlInit` and `nvmlShutdown` count.
static CLIENTS: AtomicUsize = AtomicUsize::new(0);

/// `nvmlMemory_t`: here what the driver reserved counts as used.
#[repr(C)]
pub struct Memory {
    total: u64,
    free: u64,
    used: u64,
}

/// `nvmlMemory_v2_t`.
#[repr(C)]
pub struct MemoryV2 {
    version: c_uint,
    total: u64,
    reserved: u64,
    free: u64,
    used: u64,
}

/// `nvmlUtilization_t`.
#[repr(C)]
pub struct Utilization {
    gpu: c_uint,
    memory: c_uint,
}

fn code(result: Result<(), Code>) -> Code {
    result.err().unwrap_or(codes::SUCCESS)
}

fn initialised() -> Result<(), Code> {
    if CLIENTS.load(Ordering::SeqCst) == 0 { Err(codes::UNINITIALIZED) } else { Ok(()) }
}

fn device(handle: Handle) -> Result<Device, Code> {
    initialised()?;
    devices::by_handle(handle)
}

/// Writes through a pointer of the caller's.
///
/// # Safety
/// `target` is null or valid for a write.
unsafe fn put<T>(target: *mut T, value: T) -> Result<(), Code> {
    if target.is_null() {
        return Err(codes::INVALID_ARGUMENT);
    }
    // SAFETY: not null, and the caller vouches for the rest.
    unsafe { target.write(value) };
    Ok(())
}

/// Writes a C string into a buffer of the caller's.
///
/// # Safety
/// `target` is null or valid for writes of `length` bytes.
unsafe fn put_text(target: *mut c_char, length: c_uint, text: &str) -> Result<(), Code> {
    if target.is_null() {
        return Err(codes::INVALID_ARGUMENT);
    }
    if text.len() >= length as usize {
        return Err(codes::INSUFFICIENT_SIZE);
    }
    // SAFETY: the buffer has room for the text and its end, as just checked.
    unsafe {
        std::ptr::copy_nonoverlapping(text.as_ptr().cast(), target, text.len());
        target.add(text.len()).write(0);
    }
    Ok(())
}

/// Starts NVML.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlInit_v2() -> Code {
    nvmlInitWithFlags(0)
}

/// Starts NVML; none of the flags matters here.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlInitWithFlags(_flags: c_uint) -> Code {
    code(devices::directory().map(|_| {
        CLIENTS.fetch_add(1, Ordering::SeqCst);
    }))
}

/// Ends NVML.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlShutdown() -> Code {
    let ended = CLIENTS.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |clients| clients.checked_sub(1));
    code(ended.map(|_| ()).map_err(|_| codes::UNINITIALIZED))
}

/// Text of a code.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlErrorString(result: Code) -> *const c_char {
    codes::text(result).as_ptr()
}

/// Version of the driver.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetDriverVersion(version: *mut c_char, length: c_uint) -> Code {
    // SAFETY: NVML's contract with the caller.
    code(
        initialised()
            .and_then(|()| devices::directory())
            .and_then(|dir| unsafe { put_text(version, length, &files::driver(&dir).version) }),
    )
}

/// Version of NVML, which is that of the driver with the major version of NVML before it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetNVMLVersion(version: *mut c_char, length: c_uint) -> Code {
    // SAFETY: NVML's contract with the caller.
    code(
        initialised().and_then(|()| devices::directory()).and_then(|dir| unsafe {
            put_text(version, length, &format!("12.{}", files::driver(&dir).version))
        }),
    )
}

/// Version of CUDA.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetCudaDriverVersion_v2(version: *mut c_int) -> Code {
    // SAFETY: NVML's contract with the caller.
    code(initialised().and_then(|()| unsafe { put(version, 12_080) }))
}

/// Number of GPUs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetCount_v2(count: *mut c_uint) -> Code {
    code(initialised().and_then(|()| devices::directory()).and_then(|dir| {
        let gpus = c_uint::try_from(files::gpus(&dir).len()).map_err(|_| codes::UNKNOWN)?;
        // SAFETY: NVML's contract with the caller.
        unsafe { put(count, gpus) }
    }))
}

/// The GPU at a place.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetHandleByIndex_v2(index: c_uint, handle: *mut Handle) -> Code {
    // SAFETY: NVML's contract with the caller.
    code(
        initialised().and_then(|()| devices::by_index(index)).and_then(|found| unsafe { put(handle, found) }),
    )
}

/// The GPU or MIG device of a UUID.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetHandleByUUID(uuid: *const c_char, handle: *mut Handle) -> Code {
    if uuid.is_null() {
        return codes::INVALID_ARGUMENT;
    }
    // SAFETY: NVML's contract with the caller: not null, as just checked, and ended by a zero byte.
    let uuid = unsafe { CStr::from_ptr(uuid) };
    code(initialised().and_then(|()| {
        let uuid = uuid.to_str().map_err(|_| codes::INVALID_ARGUMENT)?;
        // SAFETY: NVML's contract with the caller.
        unsafe { put(handle, devices::by_uuid(uuid)?) }
    }))
}

/// UUID of a device.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetUUID(handle: Handle, uuid: *mut c_char, length: c_uint) -> Code {
    // SAFETY: NVML's contract with the caller.
    code(device(handle).and_then(|device| unsafe { put_text(uuid, length, &device.uuid) }))
}

/// Name of the product.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetName(handle: Handle, name: *mut c_char, length: c_uint) -> Code {
    // SAFETY: NVML's contract with the caller.
    code(device(handle).and_then(|device| unsafe { put_text(name, length, &device.gpu.name) }))
}

/// Place of a device: of a GPU on its node, of a MIG device on its GPU.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetIndex(handle: Handle, index: *mut c_uint) -> Code {
    code(device(handle).and_then(|device| {
        // SAFETY: NVML's contract with the caller.
        unsafe { put(index, device.slice.unwrap_or(device.gpu.index)) }
    }))
}

/// Memory as drivers before 510 tell it: what is reserved counts as used.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMemoryInfo(handle: Handle, memory: *mut Memory) -> Code {
    code(device(handle).and_then(|device| {
        device.readable()?;
        let MemoryFields { total, used, reserved } = device.memory;
        let used = used.saturating_add(reserved);
        // SAFETY: NVML's contract with the caller.
        unsafe { put(memory, Memory { total, free: total.saturating_sub(used), used }) }
    }))
}

/// Memory with what is reserved told apart.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMemoryInfo_v2(handle: Handle, memory: *mut MemoryV2) -> Code {
    const VERSION: usize = size_of::<MemoryV2>() | (2 << 24);
    if memory.is_null() {
        return codes::INVALID_ARGUMENT;
    }
    // SAFETY: not null, as just checked; the caller has set `version`.
    let version = unsafe { (*memory).version };
    code(device(handle).and_then(|device| {
        if !device.gpu.memory_info_v2 {
            return Err(codes::FUNCTION_NOT_FOUND);
        }
        if version as usize != VERSION {
            return Err(codes::ARGUMENT_VERSION_MISMATCH);
        }
        device.readable()?;
        let MemoryFields { total, used, reserved } = device.memory;
        let free = total.saturating_sub(used).saturating_sub(reserved);
        // SAFETY: NVML's contract with the caller.
        unsafe { put(memory, MemoryV2 { version, total, reserved, free, used }) }
    }))
}

/// How busy a GPU is; a MIG device does not tell.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetUtilizationRates(handle: Handle, rates: *mut Utilization) -> Code {
    code(device(handle).and_then(|device| {
        device.readable()?;
        if device.slice.is_some() {
            return Err(codes::NOT_SUPPORTED);
        }
        let busy = device.gpu.utilization;
        // SAFETY: NVML's contract with the caller.
        unsafe { put(rates, Utilization { gpu: busy, memory: busy }) }
    }))
}

/// Whether the GPU is cut into MIG devices.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMigMode(
    handle: Handle,
    current: *mut c_uint,
    pending: *mut c_uint,
) -> Code {
    code(device(handle).and_then(|device| {
        if device.slice.is_some() {
            return Err(codes::INVALID_ARGUMENT);
        }
        let mode = c_uint::from(device.gpu.mig_mode || !device.gpu.mig.is_empty());
        // SAFETY: NVML's contract with the caller.
        unsafe {
            put(current, mode)?;
            put(pending, mode)
        }
    }))
}

/// How many MIG devices the GPU can be cut into; fewer of them may be there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMaxMigDeviceCount(handle: Handle, count: *mut c_uint) -> Code {
    // SAFETY: NVML's contract with the caller.
    code(device(handle).and_then(|_| unsafe { put(count, 7) }))
}

/// The MIG device at a place of its GPU.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMigDeviceHandleByIndex(
    parent: Handle,
    index: c_uint,
    handle: *mut Handle,
) -> Code {
    code(initialised().and_then(|()| devices::mig_by_index(parent, index)).and_then(|found| {
        // SAFETY: NVML's contract with the caller.
        unsafe { put(handle, found) }
    }))
}

/// Whether a handle is of a MIG device.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceIsMigDeviceHandle(handle: Handle, answer: *mut c_uint) -> Code {
    code(device(handle).and_then(|device| {
        // SAFETY: NVML's contract with the caller.
        unsafe { put(answer, c_uint::from(device.slice.is_some())) }
    }))
}

/// The GPU of a MIG device.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetDeviceHandleFromMigDeviceHandle(
    handle: Handle,
    parent: *mut Handle,
) -> Code {
    code(device(handle).and_then(|device| {
        if device.slice.is_none() {
            return Err(codes::INVALID_ARGUMENT);
        }
        // SAFETY: NVML's contract with the caller.
        unsafe { put(parent, devices::by_uuid(&device.gpu.uuid)?) }
    }))
}
