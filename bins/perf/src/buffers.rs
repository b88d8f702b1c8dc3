//! Memory of one side: where messages arrive, where they come from, and the words that atomics work on.

use softrdma_verbs::{AccessFlags, MemoryRegion, ProtectionDomain};
use softrdma_verbs::{RemoteAddress, Segment, SegmentList, Stag, TaggedOffset};

use crate::failure::{Context, Failure};
use crate::message::{Findings, Remote};
use crate::pattern::Pattern;
use crate::plan::{Plan, Session};

/// What fresh memory holds: no page of zeros, of which the system may have one for all.
const FRESH: u8 = 0x5A;

/// One region: the incoming area, the outgoing area, a word for each active queue pair, and a word that is only ever read.
pub(crate) struct Buffers {
    region: MemoryRegion,
    layout: Layout,
}

/// Where things are within a side's region; both sides are laid out alike.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    area: u64,
    words: u64,
}

impl Layout {
    pub(crate) fn new(session: &Session) -> Self {
        Self { area: session.area, words: u64::from(session.active) }
    }

    pub(crate) fn incoming(&self, plan: &Plan, number: u64) -> u64 {
        plan.offset(number)
    }

    pub(crate) fn outgoing(&self, plan: &Plan, number: u64) -> u64 {
        self.area + plan.offset(number)
    }

    pub(crate) fn word(&self, link: usize) -> u64 {
        2 * self.area + 8 * link as u64
    }

    /// Where a Read takes its byte from that only asks whether everything before it is placed.
    pub(crate) fn flush_source(&self) -> u64 {
        self.word(self.words as usize)
    }

    /// Where that byte goes.
    pub(crate) fn flush_sink(&self) -> u64 {
        self.flush_source() + 8
    }

    /// Whether memory laid out like this can be where a peer says that its is.
    pub(crate) fn check(&self, memory: Remote) -> Result<(), Failure> {
        let end = memory.address.checked_add(self.length());
        end.map(|_| ()).ok_or_else(|| Failure::Protocol(format!("{memory:?} runs past the last address")))
    }

    fn length(&self) -> u64 {
        self.flush_sink() + 8
    }
}

impl Buffers {
    /// Memory for `session`, every page of it touched, so that the first measurement is like the others.
    pub(crate) fn new(domain: &ProtectionDomain, session: &Session) -> Result<Self, Failure> {
        let layout = Layout::new(session);
        let access = AccessFlags::LOCAL_WRITE
            | AccessFlags::REMOTE_WRITE
            | AccessFlags::REMOTE_READ
            | AccessFlags::REMOTE_ATOMIC;
        let region = domain
            .allocate(layout.length() as usize, access)
            .context(|| format!("cannot make {} bytes of memory; lower --size or --memory", layout.length()))?;
        let buffers = Self { region, layout };
        buffers.region.fill(0, layout.length() as usize, FRESH).context(|| "cannot write memory")?;
        Ok(buffers)
    }

    pub(crate) fn layout(&self) -> Layout {
        self.layout
    }

    /// What the peer needs to reach it.
    pub(crate) fn remote(&self) -> Remote {
        Remote { key: self.region.rkey().0, address: self.region.address() }
    }

    pub(crate) fn segment(&self, offset: u64, length: u64) -> Segment {
        self.region.segment(offset as usize, length as u32)
    }

    pub(crate) fn list(&self, offset: u64, length: u64) -> SegmentList {
        SegmentList::new(&[self.segment(offset, length)]).unwrap_or_default()
    }

    pub(crate) fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), Failure> {
        self.region.write(offset as usize, bytes).context(|| "cannot write memory")
    }

    pub(crate) fn load_word(&self, offset: u64) -> Result<u64, Failure> {
        self.region.load_u64(offset as usize).context(|| "cannot read memory")
    }

    pub(crate) fn store_word(&self, offset: u64, value: u64) -> Result<(), Failure> {
        self.region.store_u64(offset as usize, value).context(|| "cannot write memory")
    }

    /// Writes the bytes of a message that will leave.
    pub(crate) fn fill_outgoing(&self, plan: &Plan, number: u64, pattern: Pattern) -> Result<(), Failure> {
        let place = self.layout.outgoing(plan, number);
        pattern.fill(plan.size, |offset, bytes| self.write(place + offset, bytes))
    }

    /// Writes the last byte only: enough to be seen arriving.
    pub(crate) fn mark_outgoing(&self, plan: &Plan, number: u64, pattern: Pattern) -> Result<(), Failure> {
        let last = plan.size - 1;
        self.write(self.layout.outgoing(plan, number) + last, &[pattern.byte(last)])
    }

    /// Makes sure that a message which has not arrived is not taken for one that has.
    pub(crate) fn unmark_incoming(&self, plan: &Plan, number: u64, pattern: Pattern) -> Result<(), Failure> {
        let last = plan.size - 1;
        self.write(self.layout.incoming(plan, number) + last, &[!pattern.byte(last)])
    }

    /// Whether a message's last byte is there, and so all of it (memory is written in order).
    #[inline]
    pub(crate) fn has_arrived(&self, plan: &Plan, number: u64, pattern: Pattern) -> Result<bool, Failure> {
        let last = plan.size - 1;
        let place = self.layout.incoming(plan, number) + last;
        let byte = self.region.load_u8(place as usize).context(|| "cannot read memory")?;
        Ok(byte == pattern.byte(last))
    }

    /// Compares every byte of a message that arrived.
    pub(crate) fn check_incoming(
        &self,
        plan: &Plan,
        number: u64,
        pattern: Pattern,
        findings: &mut Findings,
    ) -> Result<(), Failure> {
        let place = self.layout.incoming(plan, number);
        let mismatch = pattern.compare(plan.size, |offset, bytes| {
            self.region.read((place + offset) as usize, bytes).context(|| "cannot read memory")
        })?;
        if let Some(mismatch) = mismatch {
            findings.add(|| {
                format!(
                    "{} message {number} of {} bytes: {} bytes are wrong, the first at offset {}: {:#04x} instead of {:#04x}",
                    plan.operation, plan.size, mismatch.wrong_bytes, mismatch.offset, mismatch.found, mismatch.expected
                )
            });
        }
        Ok(())
    }
}

/// A place in the peer's region.
pub(crate) fn remote(memory: Remote, offset: u64) -> RemoteAddress {
    RemoteAddress { stag: Stag(memory.key), offset: TaggedOffset(memory.address + offset) }
}
