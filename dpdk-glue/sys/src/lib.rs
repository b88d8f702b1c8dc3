//! The system's DPDK (22.11 or later) for softrdma: raw [`bindings`], made at build time, and safe functions around the
//! parts of DPDK's environment that have no owner in Rust.
//!
//! - [`environment`]: starting the EAL, once per process.
//! - [`log`]: DPDK's log, brought into Rust.
//! - [`thread`]: making an application's thread known to DPDK.
//! - [`pool`]: pools of packet buffers.
//! - [`gate`]: keeping DPDK's interrupt thread and pollers of a port apart.
//! - [`listener`]: ending listeners that a driver forgot.

pub mod environment;
pub mod gate;
pub mod listener;
pub mod log;
pub mod pool;
pub mod thread;

/// DPDK's own names, and those of the shim around its inline functions (`softrdma_*`).
#[allow(missing_docs, non_camel_case_types, non_snake_case, non_upper_case_globals, unreachable_pub)]
#[allow(clippy::all, clippy::undocumented_unsafe_blocks)]
pub mod bindings {
    include!(concat!(env!("OUT_DIR"), "/bindings.rs"));
}

/// DPDK's own word for error number `number` (negative numbers are taken as their absolute value).
pub fn error_text(number: i32) -> String {
    // SAFETY: rte_strerror takes any number and returns a NUL-terminated text that belongs to this thread until the
    // next call; it is copied before this function returns.
    unsafe { std::ffi::CStr::from_ptr(bindings::rte_strerror(number.abs())) }.to_string_lossy().into_owned()
}

/// The error number that the last failed DPDK call on this thread left behind.
pub fn last_error() -> i32 {
    // SAFETY: it reads a thread-local integer.
    unsafe { bindings::softrdma_errno() }
}
