//! What happens when the library is loaded, and when the process has a child.

use crate::{fork, upgrade};

/// Run by the dynamic linker before the program's `main`.
#[used]
#[unsafe(link_section = ".init_array")]
static LOADED: extern "C" fn() = loaded;

extern "C" fn loaded() {
    super::real::look_up_all();
    fork::process();
    upgrade::begin();
    // SAFETY: the three are functions of this library, which stays loaded.
    unsafe { libc::pthread_atfork(Some(before), Some(after_in_parent), Some(after_in_child)) };
}

unsafe extern "C" fn before() {
    fork::before();
}

unsafe extern "C" fn after_in_parent() {
    fork::after_in_parent();
}

unsafe extern "C" fn after_in_child() {
    fork::after_in_child();
}
