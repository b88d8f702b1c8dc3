//! Captures: a sink that an engine shows every frame to, and one that writes them as a pcap file.
//!
//! The file format is the one of libpcap with nanosecond timestamps (magic number `0xa1b23c4d`), link type Ethernet.

#[cfg(test)]
mod tests;

use std::io::{self, Write};
use std::time::Duration;

use crate::time::Instant;

/// Which way a captured frame went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameDirection {
    /// It came from the port.
    Received,
    /// It was handed to the port.
    Transmitted,
}

/// Is shown every frame that an engine receives or sends.
pub trait FrameSink: Send {
    /// Takes note of one frame; `parts` in order are the whole frame.
    fn handle_frame(&mut self, now: Instant, direction: FrameDirection, parts: &[&[u8]]);
}

/// Writes frames as a pcap file. After the first failure of its writer it writes nothing more; [`Self::finish`] tells.
#[derive(Debug)]
pub struct PcapWriter<W> {
    writer: W,
    origin: Duration,
    snapshot_bytes: u32,
    failure: Option<io::Error>,
}

impl<W: Write + Send> PcapWriter<W> {
    /// Writes the file's header. `origin` is the time since the Unix epoch at which the clock of the frames stood at zero;
    /// of each frame at most `snapshot_bytes` are kept.
    pub fn new(mut writer: W, origin: Duration, snapshot_bytes: u32) -> io::Result<Self> {
        const MAGIC_NANOSECONDS: u32 = 0xa1b2_3c4d;
        const VERSION: (u16, u16) = (2, 4);
        const LINK_TYPE_ETHERNET: u32 = 1;
        let mut header = [0; 24];
        header[0..4].copy_from_slice(&MAGIC_NANOSECONDS.to_le_bytes());
        header[4..6].copy_from_slice(&VERSION.0.to_le_bytes());
        header[6..8].copy_from_slice(&VERSION.1.to_le_bytes());
        // Bytes 8 to 15, time zone and accuracy, are zero by convention.
        header[16..20].copy_from_slice(&snapshot_bytes.to_le_bytes());
        header[20..24].copy_from_slice(&LINK_TYPE_ETHERNET.to_le_bytes());
        writer.write_all(&header)?;
        Ok(Self { writer, origin, snapshot_bytes, failure: None })
    }

    /// Flushes and gives the writer back, or the first failure.
    pub fn finish(mut self) -> io::Result<W> {
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        self.writer.flush()?;
        Ok(self.writer)
    }

    fn write_frame(&mut self, now: Instant, parts: &[&[u8]]) -> io::Result<()> {
        let time = self.origin + Duration::from_nanos(now.as_nanoseconds());
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let mut left = length.min(self.snapshot_bytes as usize);
        let mut header = [0; 16];
        // The format's seconds are 32 bits wide; they wrap in 2106.
        header[0..4].copy_from_slice(&(time.as_secs() as u32).to_le_bytes());
        header[4..8].copy_from_slice(&time.subsec_nanos().to_le_bytes());
        header[8..12].copy_from_slice(&(left as u32).to_le_bytes());
        header[12..16].copy_from_slice(&(length as u32).to_le_bytes());
        self.writer.write_all(&header)?;
        for part in parts {
            let kept = part.len().min(left);
            self.writer.write_all(&part[..kept])?;
            left -= kept;
        }
        Ok(())
    }
}

impl<W: Write + Send> FrameSink for PcapWriter<W> {
    fn handle_frame(&mut self, now: Instant, _direction: FrameDirection, parts: &[&[u8]]) {
        if self.failure.is_some() {
            return;
        }
        if let Err(failure) = self.write_frame(now, parts) {
            tracing::warn!(%failure, "the packet capture ends here: its file cannot be written");
            self.failure = Some(failure);
        }
    }
}
