//! Memory and owner of an endpoint under fuzz, which watch over what is done to them.

use std::cell::RefCell;

use softrdma_mpa_ddp_rdmap::{
    Access, AccessError, AtomicOperation, Completion, Memory, ReceiveRequest, Segment, SegmentList, Stag, TaggedOffset,
    ToInbound, ToOutbound, Upper,
};

/// Regions that there are, by the number in their tag.
pub const REGIONS: usize = 5;
/// Bytes in each.
pub const REGION_LENGTH: u64 = 256;

/// What each region allows. The first is for receives and for what the peer may do, the second for responses to our Reads and
/// atomics. Nobody may write the last two.
const ALLOWED: [&[Access]; REGIONS] = [
    &[Access::LocalRead, Access::LocalWrite, Access::RemoteRead, Access::RemoteWrite, Access::RemoteAtomic],
    &[Access::LocalWrite],
    &[Access::RemoteWrite],
    &[Access::LocalRead, Access::RemoteRead],
    &[],
];
const RESPONSES: usize = 1;
const UNWRITABLE: std::ops::Range<usize> = 3..5;

/// The tag of a region; a number that names none gives a tag that names none.
pub fn stag(region: u8) -> Stag {
    Stag::new(u32::from(region) + 1, 0x5A)
}

/// The address at which a region begins. The last ends where the address space does.
pub fn base(region: u8) -> u64 {
    if usize::from(region) == REGIONS - 1 { u64::MAX - REGION_LENGTH + 1 } else { 0x1000 * (u64::from(region) + 1) }
}

/// A few regions of memory.
#[derive(Debug)]
pub struct Arena {
    regions: RefCell<[Region; REGIONS]>,
}

#[derive(Debug)]
struct Region {
    bytes: Vec<u8>,
    valid: bool,
    holds: u32,
}

impl Default for Arena {
    fn default() -> Self {
        let region = || Region { bytes: vec![0; REGION_LENGTH as usize], valid: true, holds: 0 };
        Self { regions: RefCell::new(std::array::from_fn(|_| region())) }
    }
}

impl Arena {
    /// What is in memory. Panics if something is written that must not be, or is still held; of the region for responses only
    /// the first `asked` bytes may be written.
    pub fn contents(self, asked: usize) -> Vec<Vec<u8>> {
        let regions = self.regions.into_inner();
        assert!(regions[UNWRITABLE].iter().all(|region| region.bytes.iter().all(|&byte| byte == 0)));
        assert!(regions[RESPONSES].bytes[asked..].iter().all(|&byte| byte == 0), "a response beyond its sink");
        assert!(regions.iter().all(|region| region.holds == 0), "a region is still held");
        regions.into_iter().map(|region| region.bytes).collect()
    }

    fn with<R>(
        &self,
        tag: Stag,
        offset: TaggedOffset,
        length: u64,
        access: Access,
        then: impl FnOnce(&mut [u8]) -> R,
    ) -> Result<R, AccessError> {
        let mut regions = self.regions.borrow_mut();
        let number = number(tag).ok_or(AccessError::InvalidStag(tag))?;
        let region = Some(&mut regions[number]).filter(|region| region.valid).ok_or(AccessError::InvalidStag(tag))?;
        if !ALLOWED[number].contains(&access) {
            return Err(AccessError::Denied(tag, access));
        }
        // The end may be 2^64.
        let start = offset.0.wrapping_sub(base(number as u8));
        if u128::from(offset.0) + u128::from(length) > 1 << 64 {
            return Err(AccessError::Wrap(offset));
        }
        if start > REGION_LENGTH || length > REGION_LENGTH - start {
            return Err(AccessError::OutOfBounds { stag: tag, offset, length });
        }
        Ok(then(&mut region.bytes[start as usize..(start + length) as usize]))
    }
}

fn number(tag: Stag) -> Option<usize> {
    (0..REGIONS).find(|&region| stag(region as u8) == tag)
}

impl Memory for Arena {
    fn check(&self, stag: Stag, offset: TaggedOffset, length: u64, access: Access) -> Result<(), AccessError> {
        if length == 0 { Ok(()) } else { self.with(stag, offset, length, access, |_| ()) }
    }

    fn place(&self, stag: Stag, offset: TaggedOffset, parts: &[&[u8]], access: Access) -> Result<(), AccessError> {
        let length = parts.iter().map(|part| part.len() as u64).sum();
        self.with(stag, offset, length, access, |bytes| bytes.copy_from_slice(&parts.concat()))
    }

    fn fetch(&self, stag: Stag, offset: TaggedOffset, out: &mut [u8], access: Access) -> Result<(), AccessError> {
        self.with(stag, offset, out.len() as u64, access, |bytes| out.copy_from_slice(bytes))
    }

    fn execute(&self, stag: Stag, offset: TaggedOffset, operation: AtomicOperation) -> Result<u64, AccessError> {
        if !offset.0.is_multiple_of(8) {
            return Err(AccessError::Misaligned(offset));
        }
        self.with(stag, offset, 8, Access::RemoteAtomic, |bytes| {
            let original = u64::from_ne_bytes(bytes.try_into().expect("eight bytes"));
            bytes.copy_from_slice(&operation.apply(original).to_ne_bytes());
            original
        })
    }

    fn invalidate(&self, stag: Stag, _remote: bool) -> Result<(), AccessError> {
        let mut regions = self.regions.borrow_mut();
        let number = number(stag).ok_or(AccessError::InvalidStag(stag))?;
        if std::mem::take(&mut regions[number].valid) { Ok(()) } else { Err(AccessError::InvalidStag(stag)) }
    }

    fn hold(&self, stag: Stag) {
        if let Some(number) = number(stag) {
            self.regions.borrow_mut()[number].holds += 1;
        }
    }

    fn release(&self, stag: Stag) {
        if let Some(number) = number(stag) {
            let holds = &mut self.regions.borrow_mut()[number].holds;
            *holds = holds.checked_sub(1).expect("released more often than held");
        }
    }
}

/// Posts receives and writes down what it hears.
#[derive(Debug, Default)]
pub struct Owner {
    posted: u64,
    taken: u64,
    spare: u64,
    capacity: u32,
    /// Receives that ended.
    pub received: Vec<Completion>,
    /// Messages to the other half.
    pub told: Vec<ToOutbound>,
}

impl Owner {
    /// An owner that has posted `posted` receives of `capacity` bytes, and posts `spare` more when they are waited for.
    pub fn new(posted: u8, spare: u8, capacity: u32) -> Self {
        Self { posted: posted.into(), spare: spare.into(), capacity, ..Self::default() }
    }

    /// Posts one of the spare receives.
    pub fn post_spare(&mut self) -> bool {
        let has = self.spare > 0;
        self.spare -= u64::from(has);
        self.posted += u64::from(has);
        has
    }

    /// Panics unless every receive that was taken ended, once and in order.
    pub fn check(&self) {
        let ids: Vec<u64> = self.received.iter().map(|completion| completion.id).collect();
        assert_eq!(ids, (0..self.taken).collect::<Vec<_>>(), "receives taken and ended");
    }
}

impl Upper for Owner {
    fn take_receive(&mut self) -> Option<ReceiveRequest> {
        let id = self.taken;
        (id < self.posted).then(|| {
            self.taken += 1;
            // Three pieces, the middle one empty, the last not behind the first.
            let first = self.capacity / 3;
            let piece = |shift, length| Segment { stag: stag(0), offset: TaggedOffset(base(0) + shift), length };
            let pieces = [piece(REGION_LENGTH - u64::from(first), first), piece(0, 0), piece(0, self.capacity - first)];
            ReceiveRequest { id, segments: SegmentList::new(&pieces).expect("few pieces") }
        })
    }

    fn complete_receive(&mut self, completion: Completion) {
        assert!(completion.length <= self.capacity || completion.immediate.is_some());
        self.received.push(completion);
    }

    fn complete_send(&mut self, completion: Completion) {
        panic!("the receiving half completed a send: {completion:?}");
    }

    fn tell_outbound(&mut self, message: ToOutbound) {
        self.told.push(message);
    }

    fn tell_inbound(&mut self, message: ToInbound) {
        panic!("the receiving half told itself something: {message:?}");
    }
}
