//! Files read back: headers, sums, numbers, and what happens when there is no room.

use std::fs::File;
use std::io::Read;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;

use rustix::fs::{MemfdFlags, SeekFrom, memfd_create, seek};

use super::*;

const CLIENT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 40_000);
const SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2)), 6379);

/// A file for a capture, and the same to read it back.
fn file() -> (OwnedFd, OwnedFd) {
    let file = memfd_create("capture", MemfdFlags::CLOEXEC).expect("a file in memory");
    let other = file.try_clone().expect("another descriptor of it");
    (file, other)
}

struct Frame {
    whole: usize,
    bytes: Vec<u8>,
}

fn word(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(bytes[..4].try_into().expect("four bytes"))
}

fn number(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes[..4].try_into().expect("four bytes"))
}

/// The frames of a file whose header is checked.
fn frames(file: OwnedFd, snapshot_bytes: u32) -> Vec<Frame> {
    seek(&file, SeekFrom::Start(0)).expect("a seekable file");
    let mut bytes = Vec::new();
    File::from(file).read_to_end(&mut bytes).expect("a readable file");
    let header: Vec<u32> = bytes[..24].chunks(4).map(word).collect();
    assert_eq!(header, [0xa1b2_3c4d, 0x0004_0002, 0, 0, snapshot_bytes, 1]);
    let mut frames = Vec::new();
    let mut rest = &bytes[24..];
    while !rest.is_empty() {
        assert!(word(rest) > 1_600_000_000, "time is of this century");
        assert!(word(&rest[4..]) < 1_000_000_000);
        let kept = word(&rest[8..]) as usize;
        frames.push(Frame { whole: word(&rest[12..]) as usize, bytes: rest[16..][..kept].to_vec() });
        rest = &rest[16 + kept..];
    }
    frames
}

/// The sum of 16-bit words with the carries added: 0xffff over what contains a right checksum.
fn sum(parts: &[&[u8]]) -> u32 {
    let bytes = parts.concat();
    let sum: u32 = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    (folded & 0xffff) + (folded >> 16)
}

impl Frame {
    fn is_ipv4(&self) -> bool {
        self.bytes[12..14] == [8, 0]
    }

    fn tcp(&self) -> &[u8] {
        &self.bytes[if self.is_ipv4() { 34 } else { 54 }..]
    }

    fn flags(&self) -> Flags {
        Flags::from_bits_retain(self.tcp()[13])
    }

    fn sequence(&self) -> u32 {
        number(&self.tcp()[4..])
    }

    fn acknowledged(&self) -> u32 {
        number(&self.tcp()[8..])
    }

    fn payload(&self) -> &[u8] {
        &self.tcp()[usize::from(self.tcp()[12] >> 4) * 4..]
    }

    /// Checks lengths and sums of a frame that is there as a whole.
    fn check(&self) {
        assert_eq!(self.whole, self.bytes.len());
        let length = (self.tcp().len() as u32).to_be_bytes();
        let addresses = if self.is_ipv4() {
            let header = &self.bytes[14..34];
            assert_eq!(sum(&[header]), 0xffff);
            assert_eq!(usize::from(u16::from_be_bytes([header[2], header[3]])), self.bytes.len() - 14);
            &header[12..]
        } else {
            let header = &self.bytes[14..54];
            assert_eq!(header[4..6], length[2..]);
            &header[8..]
        };
        assert_eq!(sum(&[addresses, &length, &[0, 6], self.tcp()]), 0xffff, "TCP's sum");
    }
}

#[test]
fn a_connection_begins_with_a_handshake_that_offers_smc() {
    let (output, input) = file();
    let capture = Capture::create(output, DEFAULT_SNAPSHOT_BYTES).expect("a capture");
    capture.connection(CLIENT, SERVER);
    let frames = frames(input, DEFAULT_SNAPSHOT_BYTES);
    frames.iter().for_each(Frame::check);
    let handshake: Vec<_> =
        frames.iter().map(|frame| (frame.flags(), frame.sequence(), frame.acknowledged())).collect();
    assert_eq!(handshake, [(Flags::SYN, 0, 0), (Flags::SYN | Flags::ACK, 0, 1), (Flags::ACK, 1, 1)]);
    let options = |frame: &Frame| tcp_options(frame).to_vec();
    assert!(crate::wire::tcp_option::is_among(&options(&frames[0])));
    assert!(crate::wire::tcp_option::is_among(&options(&frames[1])));
    assert!(options(&frames[2]).is_empty());
}

fn tcp_options(frame: &Frame) -> &[u8] {
    let tcp = frame.tcp();
    &tcp[20..usize::from(tcp[12] >> 4) * 4]
}

#[test]
fn numbers_follow_messages_and_offsets() {
    let (output, input) = file();
    let capture = Capture::create(output, DEFAULT_SNAPSHOT_BYTES).expect("a capture");
    let connection = capture.connection(CLIENT, SERVER);
    connection.clc(End::Client, &[1; 92]);
    connection.clc(End::Server, &[2; 48]);
    connection.clc(End::Client, &[3; 48]);
    connection.data(End::Client, 0, b"hello");
    connection.data(End::Server, 0, b"good day");
    connection.data(End::Client, 5, b"!");
    connection.close(End::Client, Ending::Finished);
    connection.close(End::Server, Ending::Reset);
    let frames = frames(input, DEFAULT_SNAPSHOT_BYTES);
    frames.iter().for_each(Frame::check);
    let stream: Vec<_> = frames[3..]
        .iter()
        .map(|frame| (frame.bytes[11], frame.sequence(), frame.acknowledged(), frame.payload().len()))
        .collect();
    let (client, server) = (1, 2);
    assert_eq!(
        stream,
        [
            (client, 1, 1, 92),
            (server, 1, 93, 48),
            (client, 93, 49, 48),
            (client, 141, 49, 5),
            (server, 49, 146, 8),
            (client, 146, 57, 1),
            (client, 147, 57, 0),
            (server, 57, 148, 0),
        ]
    );
    assert_eq!(frames[6].payload(), b"hello");
    assert_eq!(frames[9].flags(), Flags::FIN | Flags::ACK);
    assert_eq!(frames[10].flags(), Flags::RST | Flags::ACK);
    // Ports and addresses go with the direction.
    assert_eq!(frames[3].tcp()[..4], [0x9c, 0x40, 0x18, 0xeb]);
    assert_eq!(frames[4].tcp()[..4], [0x18, 0xeb, 0x9c, 0x40]);
    assert_eq!(frames[4].bytes[26..34], [127, 0, 0, 2, 127, 0, 0, 1]);
}

#[test]
fn long_data_takes_several_frames_and_numbers_go_around() {
    let (output, input) = file();
    let capture = Capture::create(output, DEFAULT_SNAPSHOT_BYTES).expect("a capture");
    let connection = capture.connection(CLIENT, SERVER);
    let bytes: Vec<u8> = (0..2 * MAX_PAYLOAD + 7).map(|index| index as u8).collect();
    let offset = (3 << 32) - MAX_PAYLOAD as u64;
    connection.data(End::Server, offset, &bytes);
    let frames = frames(input, DEFAULT_SNAPSHOT_BYTES);
    frames.iter().for_each(Frame::check);
    let pieces: Vec<_> = frames[3..].iter().map(|frame| (frame.sequence(), frame.payload().len())).collect();
    let before = 0u32.wrapping_sub(MAX_PAYLOAD as u32) + 1;
    assert_eq!(pieces, [(before, MAX_PAYLOAD), (1, MAX_PAYLOAD), (MAX_PAYLOAD as u32 + 1, 7)]);
    let all: Vec<u8> = frames[3..].iter().flat_map(|frame| frame.payload().to_vec()).collect();
    assert_eq!(all, bytes);
}

#[test]
fn of_long_frames_only_the_beginning_is_kept() {
    for snapshot_bytes in [20, 60, 100] {
        let (output, input) = file();
        let capture = Capture::create(output, snapshot_bytes).expect("a capture");
        capture.connection(CLIENT, SERVER).data(End::Client, 0, &[7; 1000]);
        let frames = frames(input, snapshot_bytes);
        let last = frames.last().expect("frames");
        assert_eq!((last.bytes.len(), last.whole), (snapshot_bytes as usize, 1054));
    }
}

#[test]
fn ipv6_and_mapped_addresses_are_what_they_are() {
    let mapped = |address: SocketAddr| match address.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), address.port()),
        IpAddr::V6(_) => address,
    };
    let ipv6 = |port| SocketAddr::new(Ipv6Addr::LOCALHOST.into(), port);
    for (client, server, is_ipv4) in
        [(mapped(CLIENT), SERVER, true), (ipv6(4), ipv6(6), false), (CLIENT, ipv6(6), false)]
    {
        let (output, input) = file();
        let capture = Capture::create(output, DEFAULT_SNAPSHOT_BYTES).expect("a capture");
        capture.connection(client, server).data(End::Server, 0, b"odd");
        for frame in frames(input, DEFAULT_SNAPSHOT_BYTES) {
            assert_eq!(frame.is_ipv4(), is_ipv4);
            frame.check();
        }
    }
}

#[test]
fn a_file_may_be_continued() {
    let (output, input) = file();
    let again = output.try_clone().expect("another descriptor");
    Capture::create(output, DEFAULT_SNAPSHOT_BYTES).expect("a capture").connection(CLIENT, SERVER);
    Capture::resume(again, DEFAULT_SNAPSHOT_BYTES).connection(SERVER, CLIENT);
    assert_eq!(frames(input, DEFAULT_SNAPSHOT_BYTES).len(), 6);
}

#[test]
fn threads_do_not_tear_each_others_records() {
    let (output, input) = file();
    let capture = Capture::create(output, DEFAULT_SNAPSHOT_BYTES).expect("a capture");
    std::thread::scope(|scope| {
        for thread in 0..4u8 {
            let capture = &capture;
            scope.spawn(move || {
                let connection = capture.connection(CLIENT, SERVER);
                for index in 0..500 {
                    connection.data(End::Client, index * 10, &[thread; 10]);
                }
            });
        }
    });
    let frames = frames(input, DEFAULT_SNAPSHOT_BYTES);
    assert_eq!(frames.len(), 4 * 503);
    frames.iter().for_each(Frame::check);
    assert!(frames.iter().all(|frame| frame.payload().windows(2).all(|pair| pair[0] == pair[1])));
}

#[test]
fn a_file_that_cannot_be_written_ends_the_capture_and_says_why() {
    let full = || File::options().write(true).open("/dev/full").expect("a device that is always full");
    assert_eq!(Capture::create(full(), 100).err(), Some(Errno::NOSPC));
    let capture = Capture::resume(full(), 100);
    assert_eq!(capture.failure(), None);
    let connection = capture.connection(CLIENT, SERVER);
    assert_eq!(capture.failure(), Some(Errno::NOSPC));
    connection.data(End::Client, 0, b"lost");
    assert_eq!(capture.failure(), Some(Errno::NOSPC));
}
