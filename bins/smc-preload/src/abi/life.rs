//! What happens when the library is loaded, when the process has a child, and when it ends.

use std::ffi::{c_int, c_ulong};
use std::panic::{self, PanicHookInfo};

use super::{kernel, real};
use crate::{fork, show, upgrade};

/// Run by the dynamic linker before the program's `main`.
#[used]
#[unsafe(link_section = ".init_array")]
static LOADED: extern "C" fn() = loaded;

/// Run when the program calls `exit`, or returns from `main`.
#[used]
#[unsafe(link_section = ".fini_array")]
static ENDING: extern "C" fn() = ending;

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

extern "C" fn ending() {
    show::end();
}

/// A program that is about to lock itself in (seccomp) says so here first, for it may not gain privileges from then on.
#[unsafe(no_mangle)]
unsafe extern "C" fn prctl(option: c_int, two: c_ulong, three: c_ulong, four: c_ulong, five: c_ulong) -> c_int {
    if matches!(option, libc::PR_SET_SECCOMP | libc::PR_SET_NO_NEW_PRIVS) {
        kernel::lock_in();
    }
    // SAFETY: the program's arguments, handed on.
    unsafe { real::prctl(option, two, three, four, five) }
}

/// How children often end.
#[unsafe(no_mangle)]
unsafe extern "C" fn _exit(status: c_int) -> ! {
    show::end();
    // SAFETY: the program's argument, handed on.
    unsafe { real::_exit(status) };
    unreachable!("the process has ended")
}

/// The same under its other name.
#[unsafe(no_mangle)]
unsafe extern "C" fn _Exit(status: c_int) -> ! {
    // SAFETY: the program's argument, handed on.
    unsafe { _exit(status) }
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
