//! DPDK's log, brought into Rust.

use std::ffi::{CStr, c_char};
use std::sync::OnceLock;

use crate::bindings;

/// Takes one piece of log text, usually a line, with DPDK's level: 1 (emergency) to 8 (debug); 4 is error.
pub type Receiver = fn(level: u32, text: &str);

static RECEIVER: OnceLock<Receiver> = OnceLock::new();

/// Sends everything that DPDK logs from now on to `receiver` instead of standard error. The first caller's receiver stays.
/// False if DPDK refused.
pub fn redirect(receiver: Receiver) -> bool {
    if RECEIVER.set(receiver).is_err() {
        return true;
    }
    // SAFETY: `deliver` has the signature that the shim expects and is valid for the life of the process.
    unsafe { bindings::softrdma_log_to(Some(deliver)) == 0 }
}

/// Sets the level of all log types whose name matches `pattern`, and of those that are registered later.
pub fn set_level(pattern: &CStr, level: u32) {
    // SAFETY: `pattern` is NUL-terminated; DPDK copies it.
    unsafe {
        bindings::rte_log_set_level_pattern(pattern.as_ptr(), level);
    }
}

unsafe extern "C" fn deliver(level: u32, text: *const c_char, length: usize) {
    let Some(receiver) = RECEIVER.get() else { return };
    // SAFETY: the C library hands over `length` readable bytes, ours for the length of this call.
    let bytes = unsafe { std::slice::from_raw_parts(text.cast::<u8>(), length) };
    let text = String::from_utf8_lossy(bytes);
    // A panic may not travel through C.
    let _ = std::panic::catch_unwind(|| receiver(level, &text));
}
