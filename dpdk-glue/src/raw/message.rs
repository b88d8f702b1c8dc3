//! What the two ends of a raw run tell each other: a few numbers behind the Ethernet header of each frame.

use softrdma_stack::port::Packet;

/// Bytes of an Ethernet header.
pub(super) const ETHERNET_HEADER: usize = 14;
/// The first of the two types that IEEE 802 leaves to local experiments.
const ETHERTYPE_EXPERIMENT: [u8; 2] = [0x88, 0xb5];
const BROADCAST: [u8; 6] = [0xff; 6];
/// Bytes of a message, from the start of the frame.
const LENGTH: usize = ETHERNET_HEADER + 1 + 8 + 4 * 8;

const _: () = assert!(LENGTH <= super::SMALLEST_FRAME);

/// What a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Hello = 1,
    Welcome,
    Ping,
    Pong,
    Data,
    End,
    Result,
    Goodbye,
}

impl Kind {
    const ALL: [Self; 8] =
        [Self::Hello, Self::Welcome, Self::Ping, Self::Pong, Self::Data, Self::End, Self::Result, Self::Goodbye];

    fn has_tally(self) -> bool {
        self == Self::Result
    }
}

/// What a responder counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Frames, warm-up included.
    pub(super) total: u64,
    /// Frames while measuring.
    pub(super) frames: u64,
    /// Bytes in them.
    pub(super) bytes: u64,
    /// How long measuring took.
    pub(super) nanoseconds: u64,
}

impl Tally {
    /// Counts packets that arrived while measuring.
    pub(super) fn count(&mut self, packets: &[impl Packet]) {
        self.total += packets.len() as u64;
        self.frames += packets.len() as u64;
        self.bytes += packets.iter().map(|packet| packet.length() as u64).sum::<u64>();
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) kind: Kind,
    pub(super) sequence: u64,
    pub(super) tally: Tally,
}

impl Message {
    /// Writes the head of `frame`; the rest stays as it is.
    #[inline]
    pub(super) fn write(&self, source: [u8; 6], frame: &mut [u8]) {
        let frame = &mut frame[..LENGTH];
        frame[..6].copy_from_slice(&BROADCAST);
        frame[6..12].copy_from_slice(&source);
        frame[12..14].copy_from_slice(&ETHERTYPE_EXPERIMENT);
        frame[14] = self.kind as u8;
        frame[15..23].copy_from_slice(&self.sequence.to_be_bytes());
        if self.kind.has_tally() {
            let numbers = [self.tally.total, self.tally.frames, self.tally.bytes, self.tally.nanoseconds];
            for (place, number) in frame[23..].chunks_exact_mut(8).zip(numbers) {
                place.copy_from_slice(&number.to_be_bytes());
            }
        }
    }

    /// What a frame is for; `None` as for [`Self::read`].
    #[inline]
    pub(super) fn kind(packet: &impl Packet) -> Option<Kind> {
        Self::kind_of(packet.parts().next()?.get(..LENGTH)?)
    }

    #[inline]
    fn kind_of(frame: &[u8]) -> Option<Kind> {
        if frame[12..14] != ETHERTYPE_EXPERIMENT {
            return None;
        }
        Kind::ALL.get(usize::from(frame[14]).checked_sub(1)?).copied()
    }

    /// Reads a frame's message; `None` for frames that are not ours (a kernel's, on a shared link).
    #[inline]
    pub(super) fn read(packet: &impl Packet) -> Option<Self> {
        let frame = packet.parts().next()?.get(..LENGTH)?;
        let kind = Self::kind_of(frame)?;
        let number = |at: usize| frame[at..at + 8].try_into().map_or(0, u64::from_be_bytes);
        let tally = match kind.has_tally() {
            true => Tally { total: number(23), frames: number(31), bytes: number(39), nanoseconds: number(47) },
            false => Tally::default(),
        };
        Some(Self { kind, sequence: number(15), tally })
    }
}
