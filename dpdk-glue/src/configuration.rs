//! What a port is opened with.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Which end of a memif link a port is. The server listens on the socket; the client connects, and owns the shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemifRole {
    /// Listens.
    Server,
    /// Connects.
    Client,
}

/// What a port is opened with: the device, and how it is set up. Make one with a constructor, then change what differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortConfig {
    /// A virtual device with its arguments as DPDK writes them (`net_tap0,iface=tap0`), or a PCI address.
    ///
    /// To net_memif and net_af_packet, buffer sizes that fit `mtu` are added unless they are given here.
    pub device: String,
    /// Receive queues.
    pub receive_queues: u16,
    /// Transmit queues.
    pub transmit_queues: u16,
    /// Largest IP packet, in bytes. net_memif, net_ring and net_null take any; both ends should be set alike.
    pub mtu: usize,
    /// Bytes of packet that one buffer holds; `None`: a whole frame, so that no frame is ever chained.
    pub data_room: Option<usize>,
    /// Buffers in the port's pool; the queues' descriptors are added to it. Up to a quarter of them may lie in the caches of
    /// threads that do nothing.
    pub pool_packets: u32,
    /// Descriptors of each receive queue, within what the device takes; 0: what its driver likes best.
    pub receive_descriptors: u16,
    /// Descriptors of each transmit queue, likewise.
    pub transmit_descriptors: u16,
    /// Frames that a transmit queue holds while the device takes none.
    pub transmit_backlog: usize,
    /// Whether the work that the device offers to do (checksums, segmentation) is given to it.
    pub offloads: bool,
    /// How long the client of a memif or vhost link waits for somebody to listen.
    pub peer_wait: Duration,
}

impl PortConfig {
    /// The device as DPDK writes it, with one queue each way and an MTU of 1500.
    pub fn new(device: impl Into<String>) -> Self {
        Self {
            device: device.into(),
            receive_queues: 1,
            transmit_queues: 1,
            mtu: 1500,
            data_room: None,
            pool_packets: 4096,
            receive_descriptors: 0,
            transmit_descriptors: 0,
            transmit_backlog: 1024,
            offloads: true,
            peer_wait: Duration::from_secs(5),
        }
    }

    /// Shared memory between two processes. `socket` is the name of an abstract socket (within the network namespace), or
    /// with a slash in it a path; `id` tells the links of one socket apart.
    pub fn memif(role: MemifRole, id: u32, socket: &str) -> Self {
        let role = match role {
            MemifRole::Server => "server",
            MemifRole::Client => "client",
        };
        let kind = if socket.contains('/') { "no" } else { "yes" };
        let name = unique("net_memif");
        Self::new(format!("{name},role={role},id={id},socket={socket},socket-abstract={kind}"))
    }

    /// A tap interface of the kernel, made under the name `interface`. Needs CAP_NET_ADMIN.
    pub fn tap(interface: &str) -> Self {
        Self::new(format!("{},iface={interface}", unique("net_tap")))
    }

    /// A port that swallows what is sent and receives frames of `frame_bytes` zeros without end.
    pub fn null(frame_bytes: usize) -> Self {
        Self::new(format!("{},size={frame_bytes}", unique("net_null")))
    }

    /// A port that receives what it sends, without a copy.
    pub fn ring() -> Self {
        Self::new(unique("net_ring"))
    }

    /// An interface of the kernel through a packet socket. Needs CAP_NET_RAW. One queue each way.
    pub fn af_packet(interface: &str) -> Self {
        Self::new(format!("{},iface={interface}", unique("net_af_packet")))
    }

    /// An interface of the kernel through an XDP socket. Needs CAP_NET_RAW and CAP_BPF. One queue each way.
    pub fn af_xdp(interface: &str) -> Self {
        Self::new(format!("{},iface={interface}", unique("net_af_xdp")))
    }

    /// The host's end of a virtio link over the socket at `path`, with the offloads of virtio.
    pub fn vhost(path: &str) -> Self {
        Self::new(format!("{},iface={path},queues=1,tso=1", unique("net_vhost")))
    }

    /// The guest's end of a virtio link over the socket at `path`, which a vhost port of another process serves. The EAL must be
    /// started with `--single-file-segments`.
    pub fn virtio_user(path: &str) -> Self {
        Self::new(format!("{},path={path},queues=1,queue_size=1024", unique("net_virtio_user")))
    }

    /// A NIC by its PCI address (`0000:3b:00.0`), which [`crate::EalConfig::pci`] must name too.
    pub fn pci(address: &str) -> Self {
        Self { pool_packets: 16384, ..Self::new(address) }
    }

    /// The same with another MTU.
    pub fn with_mtu(self, mtu: usize) -> Self {
        Self { mtu, ..self }
    }

    /// The same with `queues` queues each way.
    pub fn with_queues(self, queues: u16) -> Self {
        Self { receive_queues: queues, transmit_queues: queues, ..self }
    }

    /// The name under which DPDK knows the device.
    pub fn device_name(&self) -> &str {
        self.device.split(',').next().unwrap_or_default().trim()
    }
}

/// Names of virtual devices must differ within a process.
fn unique(driver: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{driver}{}", NEXT.fetch_add(1, Ordering::Relaxed))
}
