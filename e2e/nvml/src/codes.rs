//! NVML's return codes, by number and by name.

use std::ffi::{CStr, c_uint};

/// What every NVML function returns.
pub(crate) type Code = c_uint;

pub(crate) const SUCCESS: Code = 0;
pub(crate) const UNINITIALIZED: Code = 1;
pub(crate) const INVALID_ARGUMENT: Code = 2;
pub(crate) const NOT_SUPPORTED: Code = 3;
pub(crate) const NOT_FOUND: Code = 6;
pub(crate) const INSUFFICIENT_SIZE: Code = 7;
pub(crate) const DRIVER_NOT_LOADED: Code = 9;
pub(crate) const FUNCTION_NOT_FOUND: Code = 13;
pub(crate) const GPU_IS_LOST: Code = 15;
pub(crate) const ARGUMENT_VERSION_MISMATCH: Code = 25;
pub(crate) const UNKNOWN: Code = 999;

/// Names as `nvml.h` spells them, and the texts of `nvmlErrorString`.
const TABLE: &[(Code, &str, &CStr)] = &[
    (SUCCESS, "NVML_SUCCESS", c"Success"),
    (UNINITIALIZED, "NVML_ERROR_UNINITIALIZED", c"Uninitialized"),
    (INVALID_ARGUMENT, "NVML_ERROR_INVALID_ARGUMENT", c"Invalid Argument"),
    (NOT_SUPPORTED, "NVML_ERROR_NOT_SUPPORTED", c"Not Supported"),
    (4, "NVML_ERROR_NO_PERMISSION", c"Insufficient Permissions"),
    (NOT_FOUND, "NVML_ERROR_NOT_FOUND", c"Not Found"),
    (INSUFFICIENT_SIZE, "NVML_ERROR_INSUFFICIENT_SIZE", c"Insufficient Size"),
    (8, "NVML_ERROR_INSUFFICIENT_POWER", c"Insufficient External Power"),
    (DRIVER_NOT_LOADED, "NVML_ERROR_DRIVER_NOT_LOADED", c"Driver Not Loaded"),
    (10, "NVML_ERROR_TIMEOUT", c"Timeout"),
    (11, "NVML_ERROR_IRQ_ISSUE", c"Interrupt Request Issue"),
    (12, "NVML_ERROR_LIBRARY_NOT_FOUND", c"NVML Shared Library Not Found"),
    (FUNCTION_NOT_FOUND, "NVML_ERROR_FUNCTION_NOT_FOUND", c"Function Not Found"),
    (14, "NVML_ERROR_CORRUPTED_INFOROM", c"Corrupted infoROM"),
    (GPU_IS_LOST, "NVML_ERROR_GPU_IS_LOST", c"GPU is lost"),
    (16, "NVML_ERROR_RESET_REQUIRED", c"GPU requires reset"),
    (17, "NVML_ERROR_OPERATING_SYSTEM", c"GPU access blocked by the operating system"),
    (18, "NVML_ERROR_LIB_RM_VERSION_MISMATCH", c"Driver/library version mismatch"),
    (19, "NVML_ERROR_IN_USE", c"In use by another client"),
    (20, "NVML_ERROR_MEMORY", c"Insufficient Memory"),
    (21, "NVML_ERROR_NO_DATA", c"No data"),
    (23, "NVML_ERROR_INSUFFICIENT_RESOURCES", c"Insufficient Resources"),
    (ARGUMENT_VERSION_MISMATCH, "NVML_ERROR_ARGUMENT_VERSION_MISMATCH", c"Argument version mismatch"),
    (UNKNOWN, "NVML_ERROR_UNKNOWN", c"Unknown Error"),
];

/// The code of a name in a GPU's file; a name that NVML does not have is [`UNKNOWN`].
pub(crate) fn by_name(name: &str) -> Code {
    TABLE.iter().find(|(_, known, _)| *known == name).map_or(UNKNOWN, |(code, _, _)| *code)
}

/// The text of a code.
pub(crate) fn text(code: Code) -> &'static CStr {
    TABLE.iter().find(|(known, _, _)| *known == code).map_or(c"Unknown Error", |(_, _, text)| text)
}
