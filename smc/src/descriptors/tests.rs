use super::*;

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::{FdFlags, fcntl_getfd};

fn any() -> OwnedFd {
    eventfd(0, EventfdFlags::empty()).unwrap()
}

#[test]
fn a_private_descriptor_is_high_known_and_not_inherited() {
    let private = Private::keep(any()).unwrap();
    let number = private.as_fd().as_raw_fd();
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    assert!(u64::from(number as u32) >= (limit - limit / 4).min(HIGHEST_BASE), "{number} with a limit of {limit}");
    assert!(is_private(number));
    assert!(fcntl_getfd(&private).unwrap().contains(FdFlags::CLOEXEC));
    assert_eq!(next_private(number), Some(number));
    assert!(next_private(0).is_some_and(|first| first <= number));
}

#[test]
fn what_is_not_private_is_not_known() {
    let own = any();
    for number in [own.as_raw_fd(), 0, 2, -1, RawFd::MIN, RawFd::MAX, NUMBERS as RawFd, NUMBERS as RawFd - 1] {
        assert!(!is_private(number), "{number}");
    }
    assert_eq!(next_private(RawFd::MAX), None);
}

#[test]
fn a_dropped_one_is_forgotten_and_closed() {
    // Far away from what other tests of this process have at the same time.
    let far = fcntl_dupfd_cloexec(any(), base() + 200).unwrap();
    let number = far.as_raw_fd();
    let (word, bit) = place(number).unwrap();
    PRIVATE[word].fetch_or(bit, Ordering::Release);
    let private = Private(far);
    assert!(is_private(number));
    drop(private);
    assert!(!is_private(number));
    let again = fcntl_dupfd_cloexec(any(), number).unwrap();
    assert_eq!(again.as_raw_fd(), number, "the number is free again");
}
