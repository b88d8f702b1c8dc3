use super::*;
use crate::configuration::DeviceLimits;
use crate::resources::BareDevice;

fn domain() -> ProtectionDomain {
    ProtectionDomain::new(BareDevice::new(DeviceLimits::default())).expect("the first")
}

#[test]
fn a_region_is_read_written_and_filled_within_its_bounds() {
    let region = domain().allocate(10_000, AccessFlags::LOCAL_WRITE).expect("memory");
    region.fill(10, 9000, 7).expect("inside");
    region.write(20, b"hello").expect("inside");
    let mut out = [0; 7];
    region.read(19, &mut out).expect("inside");
    assert_eq!(&out, b"\x07hello\x07");
    assert_eq!((region.load_u8(9), region.load_u8(9009), region.load_u8(9010)), (Ok(0), Ok(7), Ok(0)));
    region.store_u64(16, 0x0102).expect("aligned");
    assert_eq!(region.load_u64(16), Ok(0x0102));
}

#[test]
fn what_lies_outside_or_askew_is_refused_by_name() {
    let region = domain().allocate(100, AccessFlags::LOCAL_WRITE).expect("memory");
    let outside = |offset, length| Err(RegionAccessError::OutOfBounds { offset, length, region: 100 });
    assert_eq!(region.write(99, &[1, 2]), outside(99, 2));
    assert_eq!(region.read(usize::MAX, &mut [0; 2]), outside(usize::MAX, 2));
    assert_eq!(region.fill(50, 51, 1), outside(50, 51));
    assert_eq!(region.load_u8(50), Ok(0), "a refused fill changes nothing");
    assert_eq!(region.load_u64(96).map(|_| ()), outside(96, 8));
    assert_eq!(region.load_u64(4), Err(RegionAccessError::Misaligned { offset: 4 }));
    assert_eq!(region.store_u64(4, 0), Err(RegionAccessError::Misaligned { offset: 4 }));
    assert_eq!(region.read(100, &mut []), Ok(()));
}

#[test]
fn a_segment_starts_at_the_regions_address() {
    let region = domain().allocate(100, AccessFlags::LOCAL_READ).expect("memory");
    let segment = region.segment(40, 60);
    assert_eq!(segment.stag, region.lkey());
    assert_eq!(segment.offset, TaggedOffset(region.address() + 40));
    assert_eq!(segment.length, 60);
}

#[test]
fn the_flags_have_the_numbers_of_verbs() {
    let flags =
        [AccessFlags::LOCAL_WRITE, AccessFlags::REMOTE_WRITE, AccessFlags::REMOTE_READ, AccessFlags::REMOTE_ATOMIC];
    assert_eq!(flags.map(AccessFlags::bits), [1, 2, 4, 8]);
    assert_eq!(AccessFlags::from_bits_truncate(0xff), AccessFlags::ALL);
}

#[test]
fn clones_share_the_registration_and_the_last_one_ends_it() {
    let domain = domain();
    let region = domain.allocate(100, AccessFlags::LOCAL_READ).expect("memory");
    let clone = region.clone();
    drop(region);
    assert!(clone.is_valid());
    assert_eq!(domain.table().live(), 1);
    drop(clone);
    assert_eq!(domain.table().live(), 0);
}

#[test]
fn owned_memory_can_be_read_after_its_registration_ended() {
    let region = domain().allocate(100, AccessFlags::LOCAL_WRITE).expect("memory");
    region.write(0, &[5; 100]).expect("inside");
    region.deregister().expect("nothing holds it");
    assert!(!region.is_valid());
    let mut out = [0; 100];
    region.read(0, &mut out).expect("the memory is the handle's");
    assert_eq!(out, [5; 100]);
}

#[test]
fn what_is_busy_says_how_to_get_it_free() {
    let domain = domain();
    let region = domain.allocate(100, AccessFlags::LOCAL_READ).expect("memory");
    softrdma_mpa_ddp_rdmap::Memory::hold(&domain.memory(), region.lkey());
    let text = region.try_deregister().expect_err("it is held").to_string();
    assert!(text.starts_with("1 requests still refer") && text.contains("disconnect"), "{text}");
}
