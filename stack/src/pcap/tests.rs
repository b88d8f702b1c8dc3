//! The bytes of the file format.

use std::io::{self, Write};
use std::time::Duration;

use super::{FrameDirection, FrameSink, PcapWriter};
use crate::time::Instant;

#[test]
fn a_file_has_a_header_and_a_record_for_each_frame() {
    let mut writer = PcapWriter::new(Vec::new(), Duration::from_secs(100), 4).expect("a header");
    let now = Instant::from_nanoseconds(2_000_000_003);
    writer.handle_frame(now, FrameDirection::Received, &[&[1, 2, 3], &[4, 5]]);
    writer.handle_frame(now, FrameDirection::Transmitted, &[&[6]]);
    let file = writer.finish().expect("a file");
    let words: Vec<u32> =
        file[..40].chunks(4).map(|word| u32::from_le_bytes(word.try_into().expect("four bytes"))).collect();
    assert_eq!(words[..6], [0xa1b2_3c4d, 0x0004_0002, 0, 0, 4, 1]);
    assert_eq!(words[6..], [102, 3, 4, 5], "seconds, nanoseconds, kept, whole");
    assert_eq!(file[40..44], [1, 2, 3, 4]);
    assert_eq!(file[44 + 8..], [1, 0, 0, 0, 1, 0, 0, 0, 6]);
}

struct Full(usize);

impl Write for Full {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::StorageFull)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_full_disk_ends_the_capture_and_is_told_at_the_end() {
    let mut writer = PcapWriter::new(Full(24 + 17), Duration::ZERO, 100).expect("a header");
    for _ in 0..3 {
        writer.handle_frame(Instant::ZERO, FrameDirection::Received, &[&[7]]);
    }
    assert_eq!(writer.finish().err().map(|error| error.kind()), Some(io::ErrorKind::StorageFull));
}
