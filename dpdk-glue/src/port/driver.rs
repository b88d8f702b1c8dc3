//! What is peculiar about the drivers.

use crate::configuration::PortConfig;
use crate::mempool::Operations;

/// Ethernet header, two VLAN tags and the trailing checksum that some devices deliver.
pub(super) const LINK_OVERHEAD: usize = 14 + 8 + 4;
/// The smallest buffers worth having, and the size of memif's own by default.
pub(super) const SMALLEST_DATA_ROOM: usize = 2048;
/// Bytes of frame that fit the slots which net_af_packet shares with the kernel by default.
pub(super) const KERNEL_SLOT_ROOM: usize = 1600;

/// What kind of device it is, as far as that matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Driver {
    Memif,
    /// Carries frames of any length, whatever its MTU says.
    AnyLength,
    AfPacket,
    AfXdp,
    Tap,
    VirtioUser,
    Vhost,
    Other,
}

impl Driver {
    pub(super) fn of(device_name: &str) -> Self {
        const NAMES: [(&str, Driver); 8] = [
            ("net_memif", Driver::Memif),
            ("net_ring", Driver::AnyLength),
            ("net_null", Driver::AnyLength),
            ("net_af_packet", Driver::AfPacket),
            ("net_af_xdp", Driver::AfXdp),
            ("net_tap", Driver::Tap),
            ("net_virtio_user", Driver::VirtioUser),
            ("net_vhost", Driver::Vhost),
        ];
        NAMES.iter().find(|(prefix, _)| device_name.starts_with(prefix)).map_or(Self::Other, |(_, driver)| *driver)
    }

    /// Whether the driver writes to a socket whose other end is another process.
    pub(super) fn is_signalled_by_pipes(self) -> bool {
        matches!(self, Self::Memif | Self::VirtioUser | Self::Vhost)
    }

    /// Whether its receive queues are descriptors of the kernel that can be waited for.
    pub(super) fn has_descriptors(self) -> bool {
        self == Self::Tap
    }

    pub(super) fn pool_operations(self) -> Operations {
        if self == Self::AfXdp { Operations::Ring } else { Operations::Stack }
    }

    pub(super) fn carries_any_length(self) -> bool {
        matches!(self, Self::Memif | Self::AnyLength | Self::AfPacket | Self::Vhost)
    }
}

/// The device's text with the buffer sizes that its MTU asks for, where it has such arguments and they are not given.
pub(super) fn complete_arguments(driver: Driver, config: &PortConfig) -> String {
    let text = &config.device;
    let frame = config.mtu + LINK_OVERHEAD;
    let lacks = |key: &str| !text.split(',').any(|argument| argument.trim_start().starts_with(key));
    match driver {
        // A frame in one memif buffer: a chain that meets a dry pool half way is lost with its buffers (22.11).
        Driver::Memif if lacks("bsize=") && lacks("rsize=") => {
            let buffer = memif_buffer(frame);
            format!("{text},bsize={buffer},rsize={}", memif_ring(buffer))
        }
        Driver::Memif if lacks("bsize=") => format!("{text},bsize={}", memif_buffer(frame)),
        Driver::AfPacket if frame > KERNEL_SLOT_ROOM && lacks("framesz=") => {
            // Blocks hold whole frames and consist of whole pages.
            let slot = kernel_slot(frame);
            format!("{text},framesz={slot},blocksz={},framecnt=512", 8 * slot)
        }
        _ => text.clone(),
    }
}

/// A memif buffer for a frame of `frame` bytes. Two small ones fill a page, so that none reaches into a second one, at which
/// a CPU's prefetcher stops. Larger ones have an odd number of cache lines, so that the beginnings of a ring's buffers use all
/// sets of a cache and do not displace each other.
fn memif_buffer(frame: usize) -> usize {
    const LINE: usize = 64;
    let lines = frame.div_ceil(LINE);
    let lines = if lines * LINE <= SMALLEST_DATA_ROOM { SMALLEST_DATA_ROOM / LINE } else { lines | 1 };
    (lines * LINE).min(usize::from(u16::MAX))
}

/// The binary logarithm of a memif ring's slots. Both sides go round the whole ring, whatever the load: the shorter it is, the
/// more of it stays in their caches. The driver's own 1024 slots do not.
fn memif_ring(buffer: usize) -> u32 {
    const BYTES: usize = 1 << 20;
    (BYTES / buffer.clamp(1, BYTES)).max(1).next_power_of_two().ilog2().clamp(5, 8)
}

/// A slot for a frame of `frame` bytes in the ring shared with the kernel, whose own header stands in front.
pub(super) fn kernel_slot(frame: usize) -> usize {
    (frame + 128).next_multiple_of(2048)
}

pub(super) fn advice(driver: Driver) -> &'static str {
    match driver {
        Driver::Memif => "Is the socket's name taken by another server, or its folder not writable?",
        Driver::Tap => "It needs CAP_NET_ADMIN (root), /dev/net/tun and a name that no interface has.",
        Driver::AfXdp => "It needs root, an interface that exists, and a kernel with XDP sockets.",
        Driver::AfPacket => "It needs CAP_NET_RAW (root) and an interface that exists.",
        Driver::VirtioUser => "Start the vhost process first; the EAL wants `--single-file-segments`.",
        Driver::Vhost => "Can the socket's folder be written?",
        Driver::AnyLength => "Is its number taken?",
        Driver::Other => "Check the spelling, the permissions, and for PCI the binding to vfio-pci.",
    }
}
