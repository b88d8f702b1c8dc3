use std::sync::atomic::AtomicBool;
use std::sync::mpsc;
use std::thread;

use proptest::prelude::*;

use super::*;
use crate::configuration::DeviceLimits;
use crate::region::Busy;
use crate::resources::BareDevice;

fn domain() -> ProtectionDomain {
    ProtectionDomain::new(BareDevice::new(DeviceLimits::default())).expect("the first one")
}

fn at(region: &MemoryRegion, offset: u64) -> TaggedOffset {
    TaggedOffset(region.address() + offset)
}

fn contents(region: &MemoryRegion) -> Vec<u8> {
    let mut out = vec![0; region.length()];
    region.read(0, &mut out).expect("in bounds");
    out
}

#[test]
fn what_is_placed_is_fetched_and_read() {
    let domain = domain();
    let memory = domain.memory();
    let region = domain.allocate(10_000, AccessFlags::ALL).expect("memory");
    let (a, b) = (vec![7_u8; 3000], vec![9_u8; 33]);
    memory.place(region.rkey(), at(&region, 100), &[&a, &[], &b], Access::RemoteWrite).expect("allowed");
    let mut out = vec![0; 3033];
    memory.fetch(region.rkey(), at(&region, 100), &mut out, Access::RemoteRead).expect("allowed");
    assert_eq!(out[..3000], a);
    assert_eq!(out[3000..], b);
    let all = contents(&region);
    assert!(all[..100].iter().chain(&all[3133..]).all(|byte| *byte == 0), "nothing beside it changed");
    assert_eq!(memory.placed_bytes(), 3033);
}

#[test]
fn fresh_memory_is_zero_and_page_aligned() {
    for length in [1, 4095, 4097, 3 << 20] {
        let region = domain().allocate(length, AccessFlags::LOCAL_READ).expect("memory");
        assert!(region.address().is_multiple_of(PAGE as u64));
        assert!(contents(&region).iter().all(|byte| *byte == 0));
    }
}

#[test]
fn a_region_of_more_than_4_gib_is_reached_to_its_last_byte() {
    let domain = domain();
    let memory = domain.memory();
    let length = (5_usize << 30) + 3;
    let region = domain.allocate(length, AccessFlags::ALL).expect("untouched pages cost nothing");
    let last = length as u64 - 4;
    memory.place(region.rkey(), at(&region, last), &[b"tail"], Access::RemoteWrite).expect("inside");
    let mut out = [0; 4];
    region.read(length - 4, &mut out).expect("inside");
    assert_eq!(&out, b"tail");
    let beyond = memory.place(region.rkey(), at(&region, last + 1), &[b"tail"], Access::RemoteWrite);
    assert!(matches!(beyond, Err(AccessError::OutOfBounds { .. })));
    assert_eq!(memory.check(region.rkey(), at(&region, 0), length as u64, Access::RemoteRead), Ok(()));
}

#[test]
fn every_access_needs_its_permission() {
    let domain = domain();
    let memory = domain.memory();
    let cases = [
        (Access::LocalRead, AccessFlags::LOCAL_READ),
        (Access::LocalWrite, AccessFlags::LOCAL_WRITE),
        (Access::RemoteRead, AccessFlags::REMOTE_READ),
        (Access::RemoteWrite, AccessFlags::REMOTE_WRITE),
        (Access::RemoteAtomic, AccessFlags::REMOTE_ATOMIC),
    ];
    for bits in 0..16 {
        let flags = AccessFlags::from_bits_truncate(bits);
        let region = match domain.allocate(64, flags) {
            Ok(region) => region,
            Err(error) => {
                assert_eq!(error, RegisterError::NeedsLocalWrite(flags));
                assert!(!flags.contains(AccessFlags::LOCAL_WRITE));
                continue;
            }
        };
        for (access, needed) in cases {
            let expected =
                if flags.contains(needed) { Ok(()) } else { Err(AccessError::Denied(region.rkey(), access)) };
            let start = at(&region, 0);
            assert_eq!(memory.check(region.rkey(), start, 8, access), expected, "{flags:?}");
            assert_eq!(memory.place(region.rkey(), start, &[&[1; 8]], access), expected, "{flags:?}");
            assert_eq!(memory.fetch(region.rkey(), start, &mut [0; 8], access), expected, "{flags:?}");
        }
    }
}

#[test]
fn a_refused_write_changes_nothing() {
    let domain = domain();
    let memory = domain.memory();
    let region = domain.allocate(64, AccessFlags::LOCAL_WRITE | AccessFlags::REMOTE_WRITE).expect("memory");
    let tail: &[&[u8]] = &[&[1; 32], &[2; 1]];
    let result = memory.place(region.rkey(), at(&region, 32), tail, Access::RemoteWrite);
    assert!(matches!(result, Err(AccessError::OutOfBounds { length: 33, .. })), "the parts together exceed it");
    assert_eq!(contents(&region), [0; 64]);
    assert_eq!(memory.placed_bytes(), 0);
}

#[test]
fn an_offset_that_wraps_is_refused_as_such() {
    let domain = domain();
    let memory = domain.memory();
    let region = domain.allocate(64, AccessFlags::ALL).expect("memory");
    let offset = TaggedOffset(u64::MAX - 3);
    assert_eq!(memory.check(region.rkey(), offset, 8, Access::RemoteWrite), Err(AccessError::Wrap(offset)));
    let result = memory.check(region.rkey(), at(&region, 0), u64::MAX, Access::RemoteWrite);
    assert_eq!(result, Err(AccessError::Wrap(at(&region, 0))));
}

#[test]
fn another_key_index_or_domain_is_refused() {
    let domain = domain();
    let memory = domain.memory();
    let region = domain.allocate(64, AccessFlags::ALL).expect("memory");
    let (tag, start) = (region.rkey(), at(&region, 0));
    for key in (0..=255).filter(|key| *key != tag.key()) {
        let wrong = Stag::new(tag.index(), key);
        assert_eq!(memory.check(wrong, start, 8, Access::RemoteRead), Err(AccessError::InvalidStag(wrong)));
    }
    for index in [0, tag.index() ^ 1, tag.index() ^ 0x80_0000, 0xff_ffff] {
        let wrong = Stag::new(index, tag.key());
        assert_eq!(memory.fetch(wrong, start, &mut [0; 8], Access::RemoteRead), Err(AccessError::InvalidStag(wrong)));
    }
    let other = ProtectionDomain::new(domain.device().clone()).expect("a second one");
    let result = other.memory().check(tag, start, 8, Access::RemoteRead);
    assert_eq!(result, Err(AccessError::WrongProtectionDomain(tag)));
}

#[test]
fn zero_bytes_need_no_valid_tag() {
    let memory = domain().memory();
    let (nothing, nowhere) = (Stag(0xdead_beef), TaggedOffset(u64::MAX));
    assert_eq!(memory.check(nothing, nowhere, 0, Access::RemoteWrite), Ok(()));
    assert_eq!(memory.place(nothing, nowhere, &[&[], &[]], Access::RemoteWrite), Ok(()));
    assert_eq!(memory.fetch(nothing, nowhere, &mut [], Access::RemoteRead), Ok(()));
}

#[test]
fn atomics_give_the_original_and_need_alignment() {
    let domain = domain();
    let memory = domain.memory();
    let region = domain.allocate(64, AccessFlags::LOCAL_WRITE | AccessFlags::REMOTE_ATOMIC).expect("memory");
    region.store_u64(8, 40).expect("aligned");
    let add = AtomicOperation::FetchAdd { add: 2, mask: 0 };
    assert_eq!(memory.execute(region.rkey(), at(&region, 8), add), Ok(40));
    assert_eq!(region.load_u64(8), Ok(42));
    let swap = |compare| AtomicOperation::CompareSwap { compare, compare_mask: !0, swap: 7, swap_mask: !0 };
    assert_eq!(memory.execute(region.rkey(), at(&region, 8), swap(41)), Ok(42), "it does not match");
    assert_eq!(region.load_u64(8), Ok(42));
    assert_eq!(memory.execute(region.rkey(), at(&region, 8), swap(42)), Ok(42));
    assert_eq!(region.load_u64(8), Ok(7));
    for offset in 1..8 {
        let result = memory.execute(region.rkey(), at(&region, offset), add);
        assert_eq!(result, Err(AccessError::Misaligned(at(&region, offset))));
    }
    let beyond = memory.execute(region.rkey(), at(&region, 64), add);
    assert!(matches!(beyond, Err(AccessError::OutOfBounds { .. })));
}

#[test]
fn concurrent_atomics_of_several_queue_pairs_lose_nothing() {
    let domain = domain();
    let region = domain.allocate(8, AccessFlags::LOCAL_WRITE | AccessFlags::REMOTE_ATOMIC).expect("memory");
    const ROUNDS: u64 = 20_000;
    thread::scope(|scope| {
        for mask in [0, 1 << 63] {
            let (memory, tag, start) = (domain.memory(), region.rkey(), at(&region, 0));
            scope.spawn(move || {
                for _ in 0..ROUNDS {
                    memory.execute(tag, start, AtomicOperation::FetchAdd { add: 1, mask }).expect("allowed");
                }
            });
        }
    });
    assert_eq!(region.load_u64(0), Ok(2 * ROUNDS));
}

#[test]
fn an_invalidated_tag_is_void_for_good() {
    let domain = domain();
    let memory = domain.memory();
    let region = domain.allocate(64, AccessFlags::REMOTE_READ).expect("memory");
    let tag = region.rkey();
    memory.invalidate(tag, true).expect("it was advertised");
    assert!(!region.is_valid());
    for access in [Access::LocalRead, Access::RemoteRead] {
        assert_eq!(memory.check(tag, at(&region, 0), 1, access), Err(AccessError::InvalidStag(tag)));
        assert_eq!(memory.fetch(tag, at(&region, 0), &mut [0], access), Err(AccessError::InvalidStag(tag)));
    }
    assert_eq!(memory.invalidate(tag, true), Err(AccessError::InvalidStag(tag)));
    region.deregister().expect("nothing holds it");
}

#[test]
fn a_peer_can_invalidate_only_what_it_was_given() {
    let domain = domain();
    let memory = domain.memory();
    let private = domain.allocate(64, AccessFlags::LOCAL_WRITE).expect("memory");
    assert_eq!(memory.invalidate(private.rkey(), true), Err(AccessError::CannotInvalidate(private.rkey())));
    assert!(private.is_valid());
    memory.invalidate(private.lkey(), false).expect("the owner can");
    let other = ProtectionDomain::new(domain.device().clone()).expect("a second one");
    let foreign = other.allocate(64, AccessFlags::REMOTE_READ).expect("memory");
    let wrong = AccessError::WrongProtectionDomain(foreign.rkey());
    assert_eq!(memory.invalidate(foreign.rkey(), true), Err(wrong));
    assert_eq!(memory.invalidate(foreign.rkey(), false), Err(wrong));
    assert!(foreign.is_valid());
}

#[test]
fn a_held_region_is_closed_to_peers_at_once_but_left_to_what_holds_it() {
    let domain = domain();
    let memory = domain.memory();
    let region = domain.allocate(64, AccessFlags::ALL).expect("memory");
    let (tag, start) = (region.rkey(), at(&region, 0));
    memory.hold(tag);
    memory.hold(tag);
    assert_eq!(region.try_deregister(), Err(Busy { stag: tag, holds: 2 }));
    assert_eq!(memory.fetch(tag, start, &mut [0; 8], Access::LocalRead), Ok(()), "a retransmission");
    assert_eq!(memory.place(tag, start, &[&[1; 8]], Access::LocalWrite), Ok(()), "a Read's response");
    for access in [Access::RemoteRead, Access::RemoteWrite] {
        assert_eq!(memory.fetch(tag, start, &mut [0; 8], access), Err(AccessError::InvalidStag(tag)));
    }
    assert_eq!(memory.check(tag, start, 8, Access::LocalWrite), Ok(()), "a response's first segment");
    assert_eq!(memory.check(tag, start, 8, Access::RemoteWrite), Err(AccessError::InvalidStag(tag)));
    for access in [Access::LocalRead, Access::LocalWrite] {
        let begun = memory.check_beginning(tag, start, 8, access);
        assert_eq!(begun, Err(AccessError::InvalidStag(tag)), "a new request would have deregistration wait on");
    }
    memory.release(tag);
    assert_eq!(region.try_deregister(), Err(Busy { stag: tag, holds: 1 }));
    memory.release(tag);
    assert_eq!(region.try_deregister(), Ok(()));
    assert_eq!(region.try_deregister(), Ok(()), "twice is benign");
    assert_eq!(memory.fetch(tag, start, &mut [0; 8], Access::LocalRead), Err(AccessError::InvalidStag(tag)));
    memory.release(tag);
    assert_eq!(region.holds(), 0, "one release too many does nothing");
}

#[test]
fn on_an_invalidated_region_requests_end_but_none_begins() {
    let domain = domain();
    let memory = domain.memory();
    let region = domain.allocate(64, AccessFlags::ALL).expect("memory");
    let (tag, start) = (region.rkey(), at(&region, 0));
    memory.hold(tag);
    memory.invalidate(tag, true).expect("it was advertised");
    assert_eq!(memory.fetch(tag, start, &mut [0; 8], Access::LocalRead), Ok(()), "a retransmission");
    assert_eq!(memory.check(tag, start, 8, Access::LocalWrite), Ok(()), "a response in many slices");
    let begun = memory.check_beginning(tag, start, 8, Access::LocalRead);
    assert_eq!(begun, Err(AccessError::InvalidStag(tag)), "a new request");
    assert_eq!(
        memory.execute(tag, start, AtomicOperation::FetchAdd { add: 1, mask: 0 }),
        Err(AccessError::InvalidStag(tag))
    );
    memory.release(tag);
    assert_eq!(memory.fetch(tag, start, &mut [0; 8], Access::LocalRead), Err(AccessError::InvalidStag(tag)));
    region.deregister().expect("nothing holds it");
}

#[test]
fn deregistration_waits_for_the_last_release() {
    let domain = domain();
    let memory = domain.memory();
    let region = domain.allocate(64, AccessFlags::ALL).expect("memory");
    memory.hold(region.lkey());
    let (sender, done) = mpsc::channel();
    let waiting = region.clone();
    let thread = thread::spawn(move || {
        waiting.deregister().expect("released in time");
        sender.send(()).expect("the test waits");
    });
    assert!(done.recv_timeout(std::time::Duration::from_millis(50)).is_err(), "it is held");
    memory.release(region.lkey());
    done.recv_timeout(std::time::Duration::from_secs(10)).expect("it goes on");
    thread.join().expect("no panic");
}

#[test]
fn owned_memory_outlives_its_handle_while_a_request_holds_it() {
    let domain = domain();
    let memory = domain.memory();
    let region = domain.allocate(64, AccessFlags::ALL).expect("memory");
    let (tag, start) = (region.rkey(), at(&region, 0));
    region.write(0, b"retransmit me").expect("in bounds");
    memory.hold(tag);
    drop(region);
    let mut out = [0; 13];
    memory.fetch(tag, start, &mut out, Access::LocalRead).expect("it is still held");
    assert_eq!(&out, b"retransmit me");
    assert_eq!(domain.table().live(), 1);
    memory.release(tag);
    assert_eq!(memory.fetch(tag, start, &mut out, Access::LocalRead), Err(AccessError::InvalidStag(tag)));
    assert_eq!(domain.table().live(), 0, "the last release freed it");
}

#[test]
fn foreign_memory_is_taken_away_from_what_holds_it_when_its_handle_goes() {
    let domain = domain();
    let memory = domain.memory();
    let mut bytes = vec![5_u8; 64];
    // SAFETY: the vector lives until the end of the test, and nothing else touches it while it is registered.
    let region = unsafe { domain.register(bytes.as_mut_ptr(), bytes.len(), AccessFlags::ALL) }.expect("registered");
    let (tag, start) = (region.rkey(), at(&region, 0));
    memory.hold(tag);
    drop(region);
    assert_eq!(memory.fetch(tag, start, &mut [0; 8], Access::LocalRead), Err(AccessError::InvalidStag(tag)));
    memory.release(tag);
    assert_eq!(domain.table().live(), 0);
    bytes.fill(0);
}

#[test]
fn a_deregistered_foreign_region_cannot_be_reached_through_its_handle() {
    let domain = domain();
    let mut bytes = vec![5_u8; 64];
    // SAFETY: as above.
    let region = unsafe { domain.register(bytes.as_mut_ptr(), bytes.len(), AccessFlags::ALL) }.expect("registered");
    assert_eq!(region.load_u8(63), Ok(5));
    region.deregister().expect("nothing holds it");
    assert_eq!(region.load_u8(63), Err(RegionAccessError::Deregistered));
    assert_eq!(region.write(0, &[1]), Err(RegionAccessError::Deregistered));
    assert_eq!(bytes, [5; 64]);
}

#[test]
fn a_hold_on_nothing_holds_nothing() {
    let domain = domain();
    let memory = domain.memory();
    let stray = Stag(0xdead_beef);
    memory.hold(stray);
    memory.release(stray);
    let region = domain.allocate(64, AccessFlags::ALL).expect("memory");
    let wrong = Stag::new(region.rkey().index(), region.rkey().key().wrapping_add(1));
    memory.hold(wrong);
    assert_eq!(region.holds(), 0);
    memory.hold(region.lkey());
    memory.release(wrong);
    assert_eq!(region.holds(), 1);
    memory.release(region.lkey());
    region.deregister().expect("nothing holds it");
}

#[test]
fn a_slot_never_gets_the_same_tag_twice_running() {
    let limits = DeviceLimits { max_regions: 1, ..DeviceLimits::default() };
    let domain = ProtectionDomain::new(BareDevice::new(limits)).expect("the first one");
    let mut last = std::collections::HashMap::new();
    let mut reused = 0;
    for _ in 0..3000 {
        let tag = domain.allocate(1, AccessFlags::LOCAL_READ).expect("the one before is gone").rkey();
        assert_ne!(tag.index(), 0);
        if let Some(before) = last.insert(tag.index(), tag.key()) {
            assert_ne!(before, tag.key());
            reused += 1;
        }
    }
    assert!(reused > 1000, "slots are reused");
}

#[test]
fn too_many_regions_are_refused_with_the_limit_and_room_comes_back() {
    let limits = DeviceLimits { max_regions: 300, ..DeviceLimits::default() };
    let domain = ProtectionDomain::new(BareDevice::new(limits)).expect("the first one");
    let mut regions: Vec<_> =
        (0..300).map(|_| domain.allocate(1, AccessFlags::LOCAL_READ).expect("below the limit")).collect();
    let tags: std::collections::HashSet<_> = regions.iter().map(MemoryRegion::rkey).collect();
    assert_eq!(tags.len(), 300);
    let refused = domain.allocate(1, AccessFlags::LOCAL_READ).expect_err("the limit");
    assert_eq!(refused, RegisterError::TooManyRegions { limit: 300 });
    assert!(refused.to_string().contains("300") && refused.to_string().contains("limits.max_regions"));
    regions.pop();
    domain.allocate(1, AccessFlags::LOCAL_READ).expect("room again");
}

#[test]
fn impossible_ranges_are_refused() {
    let domain = domain();
    assert_eq!(domain.allocate(0, AccessFlags::ALL).expect_err("empty"), RegisterError::Empty);
    let huge = domain.allocate(usize::MAX, AccessFlags::ALL).expect_err("too much");
    assert_eq!(huge, RegisterError::OutOfMemory { length: usize::MAX });
    let vast = domain.allocate(1 << 60, AccessFlags::ALL).expect_err("too much");
    assert_eq!(vast, RegisterError::OutOfMemory { length: 1 << 60 });
    // SAFETY: it is refused, so nothing is ever accessed.
    let null = unsafe { domain.register(std::ptr::null_mut(), 8, AccessFlags::ALL) };
    assert_eq!(null.expect_err("null"), RegisterError::Range { address: 0, length: 8 });
    let top = std::ptr::without_provenance_mut(usize::MAX - 7);
    // SAFETY: as above.
    let wraps = unsafe { domain.register(top, 64, AccessFlags::ALL) };
    assert_eq!(wraps.expect_err("it wraps"), RegisterError::Range { address: usize::MAX - 7, length: 64 });
}

#[test]
fn huge_pages_are_counted_only_when_spare() {
    let text = "HugePages_Total: 9\nHugePages_Free:   5\nHugePages_Rsvd: 2\nHugepagesize:    2048 kB\n";
    assert_eq!(parse_huge_pages(text), Some((2 << 20, 3)));
    assert_eq!(parse_huge_pages(&text.replace("Free:   5", "Free: 2")), None);
    assert_eq!(parse_huge_pages("MemTotal: 1 kB\n"), None, "a kernel without huge pages");
}

/// Copies are right at every length and alignment around the block sizes, and touch nothing beside their target.
#[test]
fn a_copy_is_exact_at_every_length_and_alignment() {
    let lengths = (0..=140).chain([STRING_COPY - 1, STRING_COPY, STRING_COPY + 1, 1448, 5000]);
    for length in lengths {
        for (from, to) in [(0, 0), (1, 0), (0, 1), (3, 5), (8, 7), (7, 8), (13, 16)] {
            let source: Vec<u8> = (0..length + from).map(|index| (index * 31 + 7) as u8).collect();
            for copy in [copy::<false>, copy::<true>] {
                let mut target = vec![0xee_u8; length + to + 32];
                // SAFETY: both have room for `length` bytes behind their offset, and are different vectors.
                unsafe { copy(source.as_ptr().add(from), target.as_mut_ptr().add(to), length) };
                assert_eq!(target[to..to + length], source[from..], "length {length}, {from} to {to}");
                let beside = target[..to].iter().chain(&target[to + length..]);
                assert!(beside.copied().all(|byte| byte == 0xee), "length {length}, {from} to {to}");
            }
        }
    }
}

/// Who polls the last byte of a Write and finds it new finds everything before it new.
#[test]
fn the_last_byte_of_a_placed_message_is_visible_last() {
    let domain = domain();
    for length in [2_usize, 9, 31, 64, 257, 1448, 4096, 9000, 60_000] {
        for shift in [0, 3] {
            let region = domain.allocate(length + shift, AccessFlags::ALL).expect("memory");
            let (memory, tag, start) = (domain.memory(), region.rkey(), at(&region, shift as u64));
            let looks = &AtomicU64::new(0);
            thread::scope(|scope| {
                scope.spawn(move || {
                    for round in 1..=250_u8 {
                        memory.place(tag, start, &[&vec![round; length]], Access::RemoteWrite).expect("allowed");
                        // Gives the reader a chance, if it has a processor of its own.
                        let before = looks.load(Ordering::Relaxed);
                        let mut patience = 2000;
                        while looks.load(Ordering::Relaxed) == before && patience > 0 {
                            std::hint::spin_loop();
                            patience -= 1;
                        }
                    }
                });
                let mut seen = vec![0; length];
                let mut last = 0;
                while last < 250 {
                    last = region.load_u8(shift + length - 1).expect("inside");
                    // From the end on: what was written last but one is most likely to be missing.
                    let neighbour = region.load_u8(shift + length - 2).expect("inside");
                    assert!(neighbour >= last, "length {length}: the last byte overtook its neighbour");
                    region.read(shift, &mut seen).expect("inside");
                    looks.fetch_add(1, Ordering::Relaxed);
                    // Later rounds may have begun meanwhile; the ones before must be over.
                    assert!(seen.iter().all(|byte| *byte >= last), "length {length}: older than the last byte");
                }
            });
        }
    }
}

/// Whether the end of a registration waits for a copy under way, in the view's record and, with `beside`, next to it.
fn end_waits_for_a_pin(beside: bool, end: fn(MemoryRegion)) {
    let domain = domain();
    let memory = domain.memory();
    let region = domain.allocate(64, AccessFlags::ALL).expect("memory");
    let other = beside.then(|| domain.allocate(64, AccessFlags::ALL).expect("memory"));
    let taken = other.as_ref().map(|other| domain.table().pin(other.lkey(), &memory.record).expect("a slot"));
    let pin = domain.table().pin(region.lkey(), &memory.record).expect("a slot");
    thread::scope(|scope| {
        let (sender, done) = mpsc::channel();
        scope.spawn(move || {
            end(region);
            sender.send(()).expect("the test waits");
        });
        assert!(done.recv_timeout(std::time::Duration::from_millis(30)).is_err(), "a copy is under way");
        drop(pin);
        done.recv_timeout(std::time::Duration::from_secs(10)).expect("it goes on");
    });
    drop(taken);
}

#[test]
fn the_end_of_a_registration_waits_for_copies_under_way() {
    for beside in [false, true] {
        end_waits_for_a_pin(beside, |region| region.deregister().expect("nothing holds it"));
        end_waits_for_a_pin(beside, drop);
    }
}

/// Bytes of the regions that are hammered: copies long enough to be caught in the middle.
const LENGTH: usize = 64 << 10;

/// A held Write of the whole region and a fetch; counts how often it was served, and how often refused.
fn hammer(memory: &DomainMemory, bytes: &[u8], stag: Stag, start: TaggedOffset, counts: &mut [u64; 2]) {
    memory.hold(stag);
    let placed = memory.place(stag, start, &[bytes], Access::RemoteWrite);
    let fetched = memory.fetch(stag, start, &mut [0; 64], Access::LocalRead);
    memory.release(stag);
    for result in [placed, fetched] {
        match result {
            Ok(()) => counts[0] += 1,
            // The tag of one region with the address of another is possible here.
            Err(AccessError::InvalidStag(_) | AccessError::OutOfBounds { .. }) => counts[1] += 1,
            Err(other) => panic!("{other}"),
        }
    }
}

/// Regions come and go while others hammer their tags: nobody ever writes into memory that was given back, and every
/// access either works or is refused as invalid.
#[test]
fn access_and_deregistration_race_without_harm() {
    let domain = domain();
    let stop = AtomicBool::new(false);
    let tag = AtomicU64::new(0);
    let address = AtomicU64::new(0);
    let mut served = [0_u64; 2];
    // Two threads on one view of memory, one on its own: a taken record is part of the race.
    let shared = domain.memory();
    thread::scope(|scope| {
        let (stop, tag, address, shared, domain) = (&stop, &tag, &address, &shared, &domain);
        let hammers: Vec<_> = (0..3)
            .map(|number| {
                scope.spawn(move || {
                    let own = domain.memory();
                    let memory = if number < 2 { shared } else { &own };
                    let bytes = vec![0xaa; LENGTH];
                    let mut counts = [0_u64; 2];
                    while !stop.load(Ordering::Relaxed) {
                        let stag = Stag(tag.load(Ordering::Acquire) as u32);
                        hammer(memory, &bytes, stag, TaggedOffset(address.load(Ordering::Acquire)), &mut counts);
                        // There may be fewer processors than threads.
                        thread::yield_now();
                    }
                    counts
                })
            })
            .collect();
        let mut given_back = std::collections::VecDeque::new();
        let begin = std::time::Instant::now();
        for round in 0..2000_u32 {
            if round > 100 && begin.elapsed() > std::time::Duration::from_secs(2) {
                break; // A busy machine: enough.
            }
            let mut bytes = vec![0_u8; LENGTH];
            // SAFETY: the vector lives longer than the registration and is not touched meanwhile.
            let region = unsafe { domain.register(bytes.as_mut_ptr(), LENGTH, AccessFlags::ALL) }.expect("registered");
            address.store(region.address(), Ordering::Release);
            tag.store(u64::from(region.rkey().0), Ordering::Release);
            if round % 3 == 0 {
                // Until somebody is in the middle of it, or has been.
                thread::yield_now();
            }
            for _ in 0..round % 97 * 32 {
                std::hint::spin_loop();
            }
            if round % 2 == 0 {
                region.deregister().expect("each hold is short");
            } else {
                drop(region);
            }
            // Ours again: as it is now it stays. A copy still under way would show some rounds later.
            given_back.push_back((bytes.clone(), bytes));
            if given_back.len() > 64 {
                let (now, later) = given_back.pop_front().expect("there are many");
                assert!(now == later, "round {round}: written after deregistration");
            }
        }
        stop.store(true, Ordering::Relaxed);
        for hammer in hammers {
            let counts = hammer.join().expect("no panic");
            served[0] += counts[0];
            served[1] += counts[1];
        }
    });
    assert!(served[0] > 0, "some accesses fell into a registration");
    assert_eq!(domain.table().live(), 0, "no slot leaked");
}

proptest! {
    /// Against a shadow copy: whatever tag, offset, length and access are asked for, the bytes change exactly as the
    /// rules say, and the errors are the right ones.
    #[test]
    fn random_accesses_match_a_shadow(
        length in 1_usize..300,
        bits in 0_u8..16,
        steps in proptest::collection::vec(
            (any::<u8>(), -20_i64..320, 0_usize..320, 0_usize..5, proptest::bool::weighted(0.1)), 1..40),
    ) {
        let flags = AccessFlags::from_bits_truncate(bits | 1);
        let domain = domain();
        let memory = domain.memory();
        let region = domain.allocate(length, flags).expect("memory");
        let mut shadow = vec![0_u8; length];
        for (value, offset, size, access, wrong_key) in steps {
            let access = [Access::LocalRead, Access::LocalWrite, Access::RemoteRead, Access::RemoteWrite,
                Access::RemoteAtomic][access];
            let tag = if wrong_key { Stag(region.rkey().0 ^ 1) } else { region.rkey() };
            let start = TaggedOffset(region.address().wrapping_add_signed(offset));
            let inside = offset >= 0 && offset as usize + size <= length;
            let bytes = vec![value; size];
            let cut = size / 3;
            let result = memory.place(tag, start, &[&bytes[..cut], &bytes[cut..]], access);
            prop_assert_eq!(memory.check(tag, start, size as u64, access), result);
            let expected_ok = size == 0 || (!wrong_key && inside && flags.allow(access));
            prop_assert_eq!(result.is_ok(), expected_ok, "{:?}", result);
            if result.is_ok() && size > 0 {
                shadow[offset as usize..offset as usize + size].fill(value);
            }
            prop_assert_eq!(&contents(&region), &shadow);
        }
    }
}
