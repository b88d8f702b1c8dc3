//! DPDK ports for softrdma: NICs by PCI address, and the virtual devices memif, tap, null, ring, af_packet, af_xdp, vhost
//! and virtio_user.
//!
//! From the top down:
//!
//! - [`port`]: [`EthPort`], which implements `softrdma_stack::port::Port`, and its queues.
//! - [`configuration`]: what a port is opened with.
//! - [`mbuf`]: owned packet buffers.
//! - [`mempool`]: where they come from.
//! - [`eal`]: DPDK's environment, started once per process.
//! - [`raw`]: plain frames between two ports: the limit that everything above is measured against.
//!
//! Unsafe code lives in `port`, in `mbuf` and in the `dpdk-sys` package; nowhere else.

#![deny(unsafe_code)]

pub mod configuration;
pub mod eal;
mod headers;
#[allow(unsafe_code)]
pub mod mbuf;
mod memif;
pub mod mempool;
#[allow(unsafe_code)]
pub mod port;
pub mod raw;

pub use dpdk_sys::thread::shorten_slices;

pub use configuration::{MemifRole, PortConfig};
pub use eal::{Eal, EalConfig, EalError, HugePages};
pub use mbuf::{Mbuf, TransmitFrame};
pub use mempool::{Mempool, MempoolError, Operations};
pub use port::{EthPort, EthReceiveQueue, EthTransmitQueue, PortError};
