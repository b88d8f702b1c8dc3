//! Starting DPDK's environment abstraction layer (EAL).

use std::ffi::{CStr, CString, c_char};

use crate::bindings;

/// Whether the EAL of this process was started already, whoever did it. A start that failed counts too: DPDK does not tell the
/// two apart.
pub fn is_initialised() -> bool {
    // SAFETY: it reads an integer that is zero until rte_eal_init has run.
    unsafe { bindings::rte_lcore_count() > 0 }
}

/// Starts the EAL with `arguments` (the first is the program's name). The error is DPDK's error number.
///
/// The EAL works once in the life of a process; callers see to it that two threads do not start it at once.
pub fn initialise(arguments: Vec<CString>) -> Result<(), i32> {
    // The EAL keeps pointers into its arguments: they live as long as the process.
    let mut pointers: Vec<*mut c_char> = arguments.into_iter().map(CString::into_raw).collect();
    let count = i32::try_from(pointers.len()).unwrap_or(i32::MAX);
    pointers.push(std::ptr::null_mut());
    let pointers = pointers.leak();
    // SAFETY: `pointers` holds `count` NUL-terminated, writable texts and a null behind them; all of them are leaked, so
    // whatever the EAL keeps stays valid.
    let parsed = unsafe { bindings::rte_eal_init(count, pointers.as_mut_ptr()) };
    if parsed < 0 { Err(crate::last_error()) } else { Ok(()) }
}

/// DPDK's name and version.
pub fn version() -> &'static str {
    // SAFETY: rte_version returns a constant text.
    unsafe { CStr::from_ptr(bindings::rte_version()) }.to_str().unwrap_or("DPDK")
}

/// Lets writing to a peer that is gone fail with an error instead of ending the process (SIGPIPE), unless the application
/// has already said what it wants.
pub fn ignore_broken_pipes() {
    // SAFETY: sigaction with a null new action only reads; `current` is large enough and plain data. Setting SIG_IGN
    // installs no code.
    unsafe {
        let mut current: libc::sigaction = std::mem::zeroed();
        if libc::sigaction(libc::SIGPIPE, std::ptr::null(), &mut current) == 0 && current.sa_sigaction == libc::SIG_DFL
        {
            libc::signal(libc::SIGPIPE, libc::SIG_IGN);
        }
    }
}
