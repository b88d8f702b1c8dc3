//! poll, select and epoll.

use std::ffi::c_int;
use std::time::Duration;

use libc::{EPOLL_CTL_DEL, FD_CLR, FD_ISSET, FD_SET, POLLERR, POLLHUP, POLLIN, POLLOUT, POLLPRI};
use libc::{epoll_event, fd_set, nfds_t, pollfd, sigset_t, size_t, timespec, timeval};
use rustix::io::Errno;

use super::kernel::last_error;
use super::{real, returned_int, set_error};
use crate::epoll::Deadline;
use crate::{descriptor, epoll, poll as polling, table};

fn in_milliseconds(timeout: c_int) -> Option<Duration> {
    u64::try_from(timeout).ok().map(Duration::from_millis)
}

fn to_timespec(timeout: Duration) -> timespec {
    timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: timeout.subsec_nanos().into() }
}

/// # Safety
///
/// `time` must be null or a time.
unsafe fn from_timespec(time: *const timespec) -> Result<Option<Duration>, Errno> {
    if time.is_null() {
        return Ok(None);
    }
    // SAFETY: not null, so a time.
    let (seconds, nanoseconds) = unsafe { ((*time).tv_sec, (*time).tv_nsec) };
    match (u64::try_from(seconds), u32::try_from(nanoseconds)) {
        (Ok(seconds), Ok(nanoseconds)) if nanoseconds < 1_000_000_000 => Ok(Some(Duration::new(seconds, nanoseconds))),
        _ => Err(Errno::INVAL),
    }
}

/// The kernel's poll, with the program's signal mask while it waits.
fn ask_poll(descriptors: &mut [pollfd], timeout: Option<Duration>, mask: *const sigset_t) -> Result<usize, Errno> {
    // A look is no wait: signals are let in while the call waits, and not before it has looked at everything.
    let mask = if timeout == Some(Duration::ZERO) { std::ptr::null() } else { mask };
    let time = timeout.map(to_timespec);
    let time = time.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: a slice of records, a time of ours, and the mask that the program vouches for or none.
    let found = unsafe { real::ppoll(descriptors.as_mut_ptr(), descriptors.len() as nfds_t, time, mask) };
    usize::try_from(found).map_err(|_| last_error())
}

/// The descriptors of a call, if any of them is ours.
///
/// # Safety
///
/// `descriptors` must hold `count`.
unsafe fn ours<'a>(descriptors: *mut pollfd, count: nfds_t) -> Option<&'a mut [pollfd]> {
    if descriptors.is_null() || count == 0 {
        return None;
    }
    // SAFETY: the program vouches for so many, for the time of its call.
    let descriptors = unsafe { std::slice::from_raw_parts_mut(descriptors, count as usize) };
    polling::concerns_us(descriptors).then_some(descriptors)
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C-unwind" fn poll(descriptors: *mut pollfd, count: nfds_t, timeout: c_int) -> c_int {
    // SAFETY: the program's arguments.
    match unsafe { ours(descriptors, count) } {
        Some(descriptors) => returned_int(polling::poll(descriptors, in_milliseconds(timeout), |asked, time| {
            ask_poll(asked, time, std::ptr::null())
        })),
        // SAFETY: the program's arguments, handed on.
        None => unsafe { real::poll(descriptors, count, timeout) },
    }
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn ppoll(
    descriptors: *mut pollfd,
    count: nfds_t,
    timeout: *const timespec,
    mask: *const sigset_t,
) -> c_int {
    // SAFETY: the program's arguments.
    match unsafe { (ours(descriptors, count), from_timespec(timeout)) } {
        (Some(descriptors), Ok(time)) => {
            returned_int(polling::poll(descriptors, time, |asked, time| ask_poll(asked, time, mask)))
        }
        // SAFETY: the program's arguments, handed on.
        _ => unsafe { real::ppoll(descriptors, count, timeout, mask) },
    }
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn __poll_chk(descriptors: *mut pollfd, count: nfds_t, timeout: c_int, room: size_t) -> c_int {
    if (count as usize).saturating_mul(size_of::<pollfd>()) > room {
        // SAFETY: libc complains of it.
        return unsafe { real::__poll_chk(descriptors, count, timeout, room) };
    }
    // SAFETY: the program's arguments, handed on.
    unsafe { poll(descriptors, count, timeout) }
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn __ppoll_chk(
    descriptors: *mut pollfd,
    count: nfds_t,
    timeout: *const timespec,
    mask: *const sigset_t,
    room: size_t,
) -> c_int {
    if (count as usize).saturating_mul(size_of::<pollfd>()) > room {
        // SAFETY: libc complains of it.
        return unsafe { real::__ppoll_chk(descriptors, count, timeout, mask, room) };
    }
    // SAFETY: the program's arguments, handed on.
    unsafe { ppoll(descriptors, count, timeout, mask) }
}

/// The three sets of a select.
struct Sets([*mut fd_set; 3]);

impl Sets {
    const WANTED: [i16; 3] = [POLLIN, POLLOUT, POLLPRI];
    /// What counts as each in a select: what the kernel takes for it.
    const FOUND: [i16; 3] = [POLLIN | POLLHUP | POLLERR, POLLOUT | POLLERR, POLLPRI];

    /// # Safety
    ///
    /// The sets must be null or hold descriptors below `count`.
    unsafe fn descriptors(&self, count: c_int) -> Vec<pollfd> {
        (0..count.max(0))
            .filter_map(|fd| {
                let mut events = 0;
                for (set, wanted) in self.0.iter().zip(Self::WANTED) {
                    // SAFETY: within what the program vouches for.
                    if !set.is_null() && unsafe { FD_ISSET(fd, *set) } {
                        events |= wanted;
                    }
                }
                (events != 0).then_some(pollfd { fd, events, revents: 0 })
            })
            .collect()
    }

    /// Whether any of ours is in them.
    ///
    /// # Safety
    ///
    /// As [`Self::descriptors`].
    unsafe fn concern_us(&self, count: c_int) -> bool {
        (0..count.max(0)).any(|fd| {
            // SAFETY: as above.
            table::is_active(fd) && self.0.iter().any(|set| !set.is_null() && unsafe { FD_ISSET(fd, *set) })
        })
    }

    /// Leaves what was found in them: how many bits.
    ///
    /// # Safety
    ///
    /// As [`Self::descriptors`].
    unsafe fn report(&self, descriptors: &[pollfd]) -> usize {
        let mut bits = 0;
        for descriptor in descriptors {
            for ((set, wanted), found) in self.0.iter().zip(Self::WANTED).zip(Self::FOUND) {
                if set.is_null() || descriptor.events & wanted == 0 {
                    continue;
                }
                // SAFETY: the descriptor was read from the set.
                unsafe {
                    if descriptor.revents & found != 0 {
                        FD_SET(descriptor.fd, *set);
                        bits += 1;
                    } else {
                        FD_CLR(descriptor.fd, *set);
                    }
                }
            }
        }
        bits
    }

    /// # Safety
    ///
    /// As [`Self::descriptors`]; the mask is null or one.
    unsafe fn select(&self, count: c_int, timeout: Option<Duration>, mask: *const sigset_t) -> Result<usize, Errno> {
        // SAFETY: the caller's.
        let mut descriptors = unsafe { self.descriptors(count) };
        polling::poll(&mut descriptors, timeout, |asked, time| ask_poll(asked, time, mask))?;
        if descriptors.iter().any(|descriptor| descriptor.revents & libc::POLLNVAL != 0) {
            return Err(Errno::BADF);
        }
        // SAFETY: the caller's.
        Ok(unsafe { self.report(&descriptors) })
    }
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C-unwind" fn select(
    count: c_int,
    reading: *mut fd_set,
    writing: *mut fd_set,
    excepting: *mut fd_set,
    timeout: *mut timeval,
) -> c_int {
    let sets = Sets([reading, writing, excepting]);
    // SAFETY: the program's arguments; handed on if nothing of ours is in them.
    unsafe {
        if !sets.concern_us(count) {
            return real::select(count, reading, writing, excepting, timeout);
        }
        let started = std::time::Instant::now();
        let limit = (!timeout.is_null()).then(|| {
            Duration::new((*timeout).tv_sec.max(0) as u64, ((*timeout).tv_usec.clamp(0, 999_999) * 1000) as u32)
        });
        let result = sets.select(count, limit, std::ptr::null());
        if let Some(limit) = limit {
            // Linux leaves what is left of the time.
            let left = limit.saturating_sub(started.elapsed());
            (*timeout).tv_sec = left.as_secs() as i64;
            (*timeout).tv_usec = left.subsec_micros().into();
        }
        returned_int(result)
    }
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn pselect(
    count: c_int,
    reading: *mut fd_set,
    writing: *mut fd_set,
    excepting: *mut fd_set,
    timeout: *const timespec,
    mask: *const sigset_t,
) -> c_int {
    let sets = Sets([reading, writing, excepting]);
    // SAFETY: the program's arguments; handed on if nothing of ours is in them.
    unsafe {
        match (sets.concern_us(count), from_timespec(timeout)) {
            (true, Ok(limit)) => returned_int(sets.select(count, limit, mask)),
            _ => real::pselect(count, reading, writing, excepting, timeout, mask),
        }
    }
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn epoll_ctl(epoll: c_int, operation: c_int, fd: c_int, event: *mut epoll_event) -> c_int {
    if table::is_known(fd) {
        // SAFETY: null or the program's event.
        let wanted = (!event.is_null()).then(|| unsafe { ((*event).events, (*event).u64) });
        if let Some(result) = epoll::control(epoll, operation, fd, wanted) {
            return returned_int(result.map(|()| 0));
        }
    }
    let event_wanted = || {
        // SAFETY: the kernel has just read it.
        (operation != EPOLL_CTL_DEL && !event.is_null()).then(|| unsafe { ((*event).events, (*event).u64) })
    };
    // SAFETY: the program's arguments, handed on.
    epoll::control_foreign(epoll, fd, || unsafe { real::epoll_ctl(epoll, operation, fd, event) }, event_wanted)
}

/// Waits for events of `fd`, an instance of ours or one that something of ours is added to meanwhile.
///
/// # Safety
///
/// `events` must have room for `count`; the mask is null or one. `ask` must be the kernel's call with these.
unsafe fn wait(
    fd: c_int,
    events: *mut epoll_event,
    count: c_int,
    timeout: Option<Duration>,
    mask: *const sigset_t,
    ask: impl FnOnce() -> c_int,
) -> c_int {
    let Some(room) = usize::try_from(count).ok().filter(|room| *room > 0 && !events.is_null()) else {
        return ask();
    };
    let mut deadline = Deadline::of(timeout);
    let known = table::epoll(fd);
    if known.is_none() {
        // What is waited in this call counts, should there be another.
        deadline.left();
        let found = ask();
        let Some(epoll) = table::epoll(fd).filter(|_| found > 0) else {
            return found;
        };
        // SAFETY: there is room for so many, of which the kernel has just written those found.
        let found = epoll.sort(unsafe { std::slice::from_raw_parts_mut(events, room) }, found as usize);
        if found > 0 {
            return found as c_int;
        }
    }
    let Some(epoll) = known.or_else(|| table::epoll(fd)) else {
        return 0;
    };
    // SAFETY: the program vouches for it, for the time of its call.
    let events = unsafe { std::slice::from_raw_parts_mut(events, room) };
    returned_int(epoll.wait(events, deadline, |events, time| {
        let mask = if time == Some(Duration::ZERO) { std::ptr::null() } else { mask };
        let time = time.map(to_timespec);
        let time = time.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        // SAFETY: a slice of events, a time of ours, the program's mask or none.
        let found = unsafe { real::epoll_pwait2(fd, events.as_mut_ptr(), events.len() as c_int, time, mask) };
        usize::try_from(found).map_err(|_| last_error())
    }))
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn epoll_wait(epoll: c_int, events: *mut epoll_event, count: c_int, timeout: c_int) -> c_int {
    let limit = in_milliseconds(timeout);
    // SAFETY: the program's arguments, handed on.
    unsafe { wait(epoll, events, count, limit, std::ptr::null(), || real::epoll_wait(epoll, events, count, timeout)) }
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn epoll_pwait(
    epoll: c_int,
    events: *mut epoll_event,
    count: c_int,
    timeout: c_int,
    mask: *const sigset_t,
) -> c_int {
    let limit = in_milliseconds(timeout);
    // SAFETY: the program's arguments, handed on.
    unsafe { wait(epoll, events, count, limit, mask, || real::epoll_pwait(epoll, events, count, timeout, mask)) }
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn epoll_pwait2(
    epoll: c_int,
    events: *mut epoll_event,
    count: c_int,
    timeout: *const timespec,
    mask: *const sigset_t,
) -> c_int {
    // SAFETY: the program's arguments, handed on.
    unsafe {
        match from_timespec(timeout) {
            Ok(limit) => {
                wait(epoll, events, count, limit, mask, || real::epoll_pwait2(epoll, events, count, timeout, mask))
            }
            Err(error) => {
                set_error(error);
                -1
            }
        }
    }
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn epoll_create(size: c_int) -> c_int {
    // SAFETY: touches no memory.
    let fd = unsafe { real::epoll_create(size) };
    descriptor::opened_epoll(fd);
    fd
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn epoll_create1(flags: c_int) -> c_int {
    // SAFETY: touches no memory.
    let fd = unsafe { real::epoll_create1(flags) };
    descriptor::opened_epoll(fd);
    fd
}
