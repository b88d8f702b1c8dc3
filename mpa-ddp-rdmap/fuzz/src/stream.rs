//! Streams of FPDUs that a receiver looks at closely: with good CRCs, and with message numbers that follow each other.

use softrdma_mpa_ddp_rdmap::wire::RdmapOpcode;

use crate::arena::{base, stag};
use crate::{Input, MAX_STREAM};

/// Bytes of an FPDU whose ULPDU has `ulpdu` bytes (RFC 5044 §4).
fn fpdu_length(ulpdu: usize) -> usize {
    (2 + ulpdu).next_multiple_of(4) + 4
}

/// Puts the right CRC into every whole FPDU of `stream`.
pub fn fix_crcs(stream: &mut [u8]) {
    let mut rest = stream;
    while let Some(length) = first_fpdu(rest) {
        let (fpdu, behind) = rest.split_at_mut(length);
        let (covered, field) = fpdu.split_at_mut(length - 4);
        field.copy_from_slice(&crc32c(covered).to_le_bytes());
        rest = behind;
    }
}

/// FPDUs at the front of `stream` that are whole and have the right CRC.
pub fn good_fpdus(stream: &[u8]) -> u64 {
    let mut rest = stream;
    let mut count = 0;
    while let Some(length) = first_fpdu(rest) {
        let (fpdu, behind) = rest.split_at(length);
        let (covered, field) = fpdu.split_at(length - 4);
        if field != crc32c(covered).to_le_bytes() {
            break;
        }
        count += 1;
        rest = behind;
    }
    count
}

/// Length of the FPDU at the front of `stream`, if it is whole.
fn first_fpdu(stream: &[u8]) -> Option<usize> {
    let &[high, low, ..] = stream else { return None };
    Some(fpdu_length(u16::from_be_bytes([high, low]).into())).filter(|&length| length <= stream.len())
}

/// CRC32c bit by bit: a second opinion on the one in the crate.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0x82F6_3B78 } else { crc >> 1 })
    })
}

/// A peer that mostly keeps to the rules.
#[derive(Default)]
struct Peer {
    /// Messages begun on each queue, and bytes of the unfinished Send.
    messages: [u32; 4],
    offset: u32,
    stream: Vec<u8>,
}

/// The messages that `input` describes, each by an opcode, its exceptions, and its fields.
pub fn messages(mut input: Input) -> Vec<u8> {
    let mut peer = Peer::default();
    while !input.0.is_empty() && peer.stream.len() < MAX_STREAM {
        peer.message(&mut input);
    }
    peer.stream
}

impl Peer {
    fn message(&mut self, input: &mut Input) {
        let (opcode, exceptions) = (RdmapOpcode(input.byte() & 0x0F), input.byte());
        let payload = payload(opcode, input);
        let last = exceptions & 1 == 0;
        let tagged = matches!(opcode, RdmapOpcode::WRITE | RdmapOpcode::READ_RESPONSE) != (exceptions & 2 != 0);
        let mut ulpdu = vec![
            if tagged { 0x80 } else { 0 } | if last { 0x40 } else { 0 } | if exceptions & 4 == 0 { 1 } else { 2 },
            if exceptions & 8 == 0 { 0x40 } else { 0 } | opcode.0,
        ];
        if tagged {
            ulpdu.extend(address(input));
        } else {
            let queue = match opcode {
                RdmapOpcode::READ_REQUEST | RdmapOpcode::ATOMIC_REQUEST => 1,
                RdmapOpcode::TERMINATE => 2,
                RdmapOpcode::ATOMIC_RESPONSE => 3,
                _ => 0,
            };
            let shift = |bit: u8| u32::from(exceptions & bit != 0);
            let number = self.messages[queue] + 1 + shift(32);
            let offset = if queue == 0 { self.offset } else { 0 } + shift(64);
            let invalidate = stag(input.byte() & 7).0;
            for field in [invalidate, queue as u32 + shift(16), number, offset] {
                ulpdu.extend(field.to_be_bytes());
            }
            self.messages[queue] += u32::from(last);
            if queue == 0 {
                self.offset = if last { 0 } else { self.offset + payload.len() as u32 };
            }
        }
        ulpdu.extend(payload);
        if exceptions & 128 != 0 {
            ulpdu.truncate(input.byte().into());
        }
        let start = self.stream.len();
        self.stream.extend((ulpdu.len() as u16).to_be_bytes());
        self.stream.extend(&ulpdu);
        self.stream.resize(start + fpdu_length(ulpdu.len()), 0);
    }
}

/// What stands behind the DDP header.
fn payload(opcode: RdmapOpcode, input: &mut Input) -> Vec<u8> {
    let mut payload = Vec::new();
    match opcode {
        RdmapOpcode::READ_REQUEST => {
            payload.extend(address(input));
            payload.extend(u32::from(input.number()).to_be_bytes());
            payload.extend(address(input));
        }
        RdmapOpcode::ATOMIC_REQUEST => {
            payload.extend(u32::from(input.byte()).to_be_bytes());
            payload.extend(u32::from(input.byte()).to_be_bytes());
            payload.extend(address(input));
            for _ in 0..4 {
                payload.extend([input.byte(); 8]);
            }
        }
        RdmapOpcode::ATOMIC_RESPONSE => {
            payload.extend(u32::from(input.byte()).to_be_bytes());
            payload.extend([input.byte(); 8]);
        }
        RdmapOpcode::IMMEDIATE | RdmapOpcode::IMMEDIATE_SOLICITED => payload.extend([input.byte(); 8]),
        RdmapOpcode::TERMINATE => payload.extend(std::array::from_fn::<_, 52, _>(|_| input.byte())),
        _ => {
            let length = usize::from(input.byte());
            payload.resize(length, input.byte());
        }
    }
    payload
}

/// A tag and an offset near the start of its region.
fn address(input: &mut Input) -> Vec<u8> {
    let region = input.byte() & 7;
    let shift = i16::from_be_bytes([input.byte(), input.byte()]);
    let offset = base(region).wrapping_add_signed(shift.into());
    [&stag(region).0.to_be_bytes()[..], &offset.to_be_bytes()].concat()
}
