//! What happens when the library is loaded, and when the process has a child.

use std::panic::{self, PanicHookInfo};

use super::kernel;
use crate::{fork, upgrade};

/// Run by the dynamic linker before the program's `main`.
#[used]
#[unsafe(link_section = ".init_array")]
static LOADED: extern "C" fn() = loaded;

extern "C" fn loaded() {
    super::real::look_up_all();
    panic::set_hook(Box::new(give_up));
    fork::begin();
    upgrade::begin();
    // SAFETY: the three are functions of this library, which stays loaded.
    unsafe { libc::pthread_atfork(Some(before), Some(after_in_parent), Some(after_in_child)) };
}

/// Nothing that a peer does leads here. Whatever does, the library no longer knows what the program's streams carry, and ends the
/// program before it sees wrong bytes: nothing is unwound, which programs in C are not prepared for.
fn give_up(information: &PanicHookInfo<'_>) {
    kernel::complain(&format!("ends the program, which it can no longer serve: {information}"));
    std::process::abort();
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
