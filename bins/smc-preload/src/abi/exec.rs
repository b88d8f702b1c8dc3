//! Calls that start another program: what it inherits is TCP.

use std::ffi::{c_char, c_int, c_void};

use libc::{FILE, pid_t, posix_spawn_file_actions_t, posix_spawnattr_t};

use rustix::io::Errno;
use softrdma_smc::wire::clc::DeclineReason;

use super::{real, returned_int};
use crate::heritage;

type Strings = *const *const c_char;

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn execve(path: *const c_char, arguments: Strings, environment: Strings) -> c_int {
    heritage::prepare_here();
    // SAFETY: the program's arguments, handed on.
    unsafe { real::execve(path, arguments, environment) }
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn execv(path: *const c_char, arguments: Strings) -> c_int {
    heritage::prepare_here();
    // SAFETY: the program's arguments, handed on.
    unsafe { real::execv(path, arguments) }
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn execvp(file: *const c_char, arguments: Strings) -> c_int {
    heritage::prepare_here();
    // SAFETY: the program's arguments, handed on.
    unsafe { real::execvp(file, arguments) }
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn execvpe(file: *const c_char, arguments: Strings, environment: Strings) -> c_int {
    heritage::prepare_here();
    // SAFETY: the program's arguments, handed on.
    unsafe { real::execvpe(file, arguments, environment) }
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn fexecve(fd: c_int, arguments: Strings, environment: Strings) -> c_int {
    heritage::prepare_here();
    // SAFETY: the program's arguments, handed on.
    unsafe { real::fexecve(fd, arguments, environment) }
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn execveat(
    directory: c_int,
    path: *const c_char,
    arguments: Strings,
    environment: Strings,
    flags: c_int,
) -> c_int {
    heritage::prepare_here();
    // SAFETY: the program's arguments, handed on.
    unsafe { real::execveat(directory, path, arguments, environment, flags) }
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn posix_spawn(
    child: *mut pid_t,
    path: *const c_char,
    actions: *const posix_spawn_file_actions_t,
    attributes: *const posix_spawnattr_t,
    arguments: Strings,
    environment: Strings,
) -> c_int {
    heritage::prepare();
    // SAFETY: the program's arguments, handed on.
    unsafe { real::posix_spawn(child, path, actions, attributes, arguments, environment) }
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn posix_spawnp(
    child: *mut pid_t,
    file: *const c_char,
    actions: *const posix_spawn_file_actions_t,
    attributes: *const posix_spawnattr_t,
    arguments: Strings,
    environment: Strings,
) -> c_int {
    heritage::prepare();
    // SAFETY: the program's arguments, handed on.
    unsafe { real::posix_spawnp(child, file, actions, attributes, arguments, environment) }
}

/// What is put in the place of another descriptor in a child has no close-on-exec there, whatever it has here.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn posix_spawn_file_actions_adddup2(
    actions: *mut posix_spawn_file_actions_t,
    fd: c_int,
    to: c_int,
) -> c_int {
    if !heritage::name(fd, DeclineReason::PASSED_ON) {
        // What it says when it has no room to note it.
        return libc::ENOMEM;
    }
    // SAFETY: the program's arguments, handed on.
    unsafe { real::posix_spawn_file_actions_adddup2(actions, fd, to) }
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn system(command: *const c_char) -> c_int {
    if !command.is_null() {
        heritage::prepare();
    }
    // SAFETY: the program's argument, handed on.
    unsafe { real::system(command) }
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn popen(command: *const c_char, mode: *const c_char) -> *mut FILE {
    heritage::prepare();
    // SAFETY: the program's arguments, handed on.
    unsafe { real::popen(command, mode) }
}

/// Returns what is called instead, if anything is.
extern "C-unwind" fn prepare_here() -> *const c_void {
    heritage::prepare_here();
    std::ptr::null()
}

extern "C-unwind" fn print_to(fd: c_int) -> *const c_void {
    if heritage::name(fd, DeclineReason::KERNELS_OWN) {
        return std::ptr::null();
    }
    fail as *const c_void
}

/// What was to be printed would be taken for doorbells.
extern "C-unwind" fn fail() -> c_int {
    returned_int(Err(Errno::IO))
}

/// The calls with any number of arguments hand them on as they came: what they were called with is put aside meanwhile.
#[cfg(target_arch = "x86_64")]
macro_rules! pass_on {
    ($($name:ident: $first:ident;)*) => {
        $(
            #[unsafe(no_mangle)]
            #[unsafe(naked)]
            unsafe extern "C-unwind" fn $name() {
                std::arch::naked_asm!(
                    "push rbp",
                    "mov rbp, rsp",
                    "push rdi", "push rsi", "push rdx", "push rcx", "push r8", "push r9", "push rax", "push rax",
                    "sub rsp, 128",
                    "movups [rsp], xmm0", "movups [rsp + 16], xmm1", "movups [rsp + 32], xmm2",
                    "movups [rsp + 48], xmm3", "movups [rsp + 64], xmm4", "movups [rsp + 80], xmm5",
                    "movups [rsp + 96], xmm6", "movups [rsp + 112], xmm7",
                    "call {first}",
                    "test rax, rax",
                    "jnz 2f",
                    "lea rdi, [rip + {name}]",
                    "call {next}",
                    "2:",
                    "mov r11, rax",
                    "movups xmm0, [rsp]", "movups xmm1, [rsp + 16]", "movups xmm2, [rsp + 32]",
                    "movups xmm3, [rsp + 48]", "movups xmm4, [rsp + 64]", "movups xmm5, [rsp + 80]",
                    "movups xmm6, [rsp + 96]", "movups xmm7, [rsp + 112]",
                    "add rsp, 128",
                    "pop rax", "pop rax", "pop r9", "pop r8", "pop rcx", "pop rdx", "pop rsi", "pop rdi",
                    "pop rbp",
                    "jmp r11",
                    first = sym $first,
                    next = sym next,
                    name = sym names::$name,
                )
            }
        )*

        /// The names of those calls.
        #[allow(non_upper_case_globals)]
        mod names {
            $(pub(super) static $name: super::Name = super::Name::new(concat!(stringify!($name), "\0"));)*
        }
    };
}

/// The name of a call, with a NUL at its end.
#[repr(C)]
struct Name {
    bytes: [u8; 24],
}

impl Name {
    const fn new(text: &str) -> Self {
        let mut bytes = [0; 24];
        let mut at = 0;
        while at < text.len() {
            bytes[at] = text.as_bytes()[at];
            at += 1;
        }
        Self { bytes }
    }
}

/// The call behind ours.
#[cfg(target_arch = "x86_64")]
extern "C-unwind" fn next(name: &Name) -> *mut c_void {
    // SAFETY: a C string.
    let address = unsafe { libc::dlsym(libc::RTLD_NEXT, name.bytes.as_ptr().cast()) };
    if address.is_null() {
        std::process::abort();
    }
    address
}

#[cfg(target_arch = "x86_64")]
pass_on! {
    execl: prepare_here;
    execle: prepare_here;
    execlp: prepare_here;
    dprintf: print_to;
    vdprintf: print_to;
    __dprintf_chk: print_to;
    __vdprintf_chk: print_to;
}
