//! A `libnvidia-ml.so.1` whose devices are read from files, so that everything above the library runs as it does on
//! a node with GPUs.
//!
//! The directory `nvml-sim.d` beside the loaded library holds one `<UUID>.json` for each GPU ([`files::GpuFile`]) and,
//! if wanted, a `driver.json` ([`files::DriverFile`]). They are read anew at each call: whoever wants a GPU to fill, to
//! fail or to hang writes its file (into place with a rename, since a half-written file is a lost GPU).
//!
//! The C ABI is NVML's own (`nvml.h`): what a monitoring client calls, and nothing that changes a GPU.
#![allow(unsafe_code, reason = "the exported C ABI is made of raw pointers that the caller vouches for")]

pub mod abi;
mod codes;
mod devices;
mod files;
