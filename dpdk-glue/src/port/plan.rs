//! What is asked of a device, within what it offers.

use dpdk_sys::bindings::{self, rte_eth_dev_info};
use dpdk_sys::thread::MOST_REGISTERED;
use softrdma_stack::port::PortCapabilities;

use super::driver::{Driver, KERNEL_SLOT_ROOM, LINK_OVERHEAD, SMALLEST_DATA_ROOM, kernel_slot};
use super::{Device, PortError};
use crate::configuration::PortConfig;
use crate::mempool::MAX_CACHE_BUFFERS;

/// The MTU that every device takes.
pub(super) const STANDARD_MTU: usize = 1500;
/// Threads with a cache: those that are registered, and the one that started the EAL.
const CACHED_THREADS: u32 = MOST_REGISTERED + 1;
/// Buffers that a pool has for what lies in caches, besides a quarter of the packets that were asked for.
const CACHED_BUFFERS: u32 = 2048;
/// Descriptors of a queue where neither the configuration nor the driver has an opinion.
const DESCRIPTORS: u16 = 1024;

/// What is asked of a device, within what it offers.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) data_room: usize,
    pub(super) buffers: u32,
    /// Of which a thread may keep so many for itself.
    pub(super) cache: u32,
    pub(super) receive_queues: u16,
    pub(super) transmit_queues: u16,
    pub(super) receive_descriptors: u16,
    pub(super) transmit_descriptors: u16,
    pub(super) configured_mtu: u32,
    pub(super) receive_offloads: u64,
    pub(super) transmit_offloads: u64,
    pub(super) rss: u64,
    pub(super) capabilities: PortCapabilities,
}

impl Plan {
    pub(super) fn new(device: &Device, information: &rte_eth_dev_info, config: &PortConfig) -> Result<Self, PortError> {
        let (most_receive, most_transmit) = (information.max_rx_queues, information.max_tx_queues);
        if config.receive_queues > most_receive || config.transmit_queues > most_transmit {
            return Err(PortError::Queues {
                device: device.text.clone(),
                receive: most_receive,
                transmit: most_transmit,
            });
        }
        let frame = config.mtu + LINK_OVERHEAD;
        // net_af_packet wants buffers as large as the kernel's slots.
        let whole =
            if device.driver == Driver::AfPacket && frame > KERNEL_SLOT_ROOM { kernel_slot(frame) } else { frame };
        let data_room = config.data_room.unwrap_or(whole).max(SMALLEST_DATA_ROOM).next_multiple_of(64);
        let receive_descriptors =
            within(config.receive_descriptors, information.default_rxportconf.ring_size, &information.rx_desc_lim);
        let transmit_descriptors =
            within(config.transmit_descriptors, information.default_txportconf.ring_size, &information.tx_desc_lim);
        let descriptors = u32::from(config.receive_queues) * u32::from(receive_descriptors)
            + u32::from(config.transmit_queues) * u32::from(transmit_descriptors);
        let offered = |mask: u64, capable: u64, wanted: bool| if wanted && capable & mask == mask { mask } else { 0 };
        let receive_checksums =
            bindings::SOFTRDMA_RX_OFFLOAD_IPV4_CHECKSUM | bindings::SOFTRDMA_RX_OFFLOAD_TCP_CHECKSUM;
        let transmit_checksums =
            bindings::SOFTRDMA_TX_OFFLOAD_IPV4_CHECKSUM | bindings::SOFTRDMA_TX_OFFLOAD_TCP_CHECKSUM;
        let (receive, transmit) = (information.rx_offload_capa, information.tx_offload_capa);
        let receive_offloads = offered(receive_checksums, receive, config.offloads)
            | offered(bindings::SOFTRDMA_RX_OFFLOAD_SCATTER, receive, data_room < frame);
        let transmit_offloads = offered(transmit_checksums, transmit, config.offloads)
            | offered(bindings::SOFTRDMA_TX_OFFLOAD_TCP_SEGMENTATION, transmit, config.offloads)
            | offered(bindings::SOFTRDMA_TX_OFFLOAD_CHAINS, transmit, true);
        Ok(Self {
            data_room,
            buffers: config.pool_packets + descriptors + CACHED_BUFFERS,
            cache: cache(config.pool_packets),
            receive_queues: config.receive_queues,
            transmit_queues: config.transmit_queues,
            receive_descriptors,
            transmit_descriptors,
            configured_mtu: config.mtu.min(usize::from(information.max_mtu)).min(largest_mtu(information)) as u32,
            receive_offloads,
            transmit_offloads,
            rss: if config.receive_queues > 1 {
                bindings::SOFTRDMA_RSS_TCP & information.flow_type_rss_offloads
            } else {
                0
            },
            capabilities: PortCapabilities {
                mtu: config.mtu,
                receive_checksum: receive_offloads & receive_checksums == receive_checksums,
                transmit_checksum: transmit_offloads & transmit_checksums == transmit_checksums,
                segmentation: transmit_offloads & bindings::SOFTRDMA_TX_OFFLOAD_TCP_SEGMENTATION != 0,
                attachments: transmit_offloads & bindings::SOFTRDMA_TX_OFFLOAD_CHAINS != 0,
            },
        })
    }
}

/// Buffers that a thread may keep for itself so that, whoever sleeps on a full cache, three quarters of `pool_packets` are there
/// for those who work. A cache gives back when it is half as full again.
fn cache(pool_packets: u32) -> u32 {
    let in_caches = CACHED_BUFFERS + pool_packets / 4;
    (in_caches / CACHED_THREADS * 2 / 3).min(MAX_CACHE_BUFFERS)
}

/// The MTU at which frames reach the device's limit.
pub(super) fn largest_mtu(information: &rte_eth_dev_info) -> usize {
    (information.max_rx_pktlen as usize).saturating_sub(18).max(STANDARD_MTU)
}

/// Descriptors of a queue: what is wanted, or else what the driver likes best, within its limits.
pub(super) fn within(wanted: u16, preferred: u16, limits: &bindings::rte_eth_desc_lim) -> u16 {
    let wanted = [wanted, preferred, DESCRIPTORS].into_iter().find(|count| *count > 0).unwrap_or(DESCRIPTORS);
    let most = if limits.nb_max == 0 { u16::MAX } else { limits.nb_max };
    let aligned = wanted.next_multiple_of(limits.nb_align.max(1));
    aligned.max(limits.nb_min).min(most)
}
