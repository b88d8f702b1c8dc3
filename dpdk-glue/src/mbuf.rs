//! Owned packet buffers.

use std::marker::PhantomData;
use std::ptr::NonNull;

use dpdk_sys::bindings::{self, rte_mbuf};
use dpdk_sys::pool::Pool;
use dpdk_sys::thread;
use softrdma_stack::port::{Frame, Packet, ReceivedChecksum, TransmitOffload};

use crate::headers::{self, HeaderLengths};
use crate::mempool::HEADROOM;

/// A packet buffer, or a chain of them, owned: dropping it gives the memory back to its pool, on whatever thread.
///
/// Nobody else refers to the memory while it is received, and its bytes can only be read. One pointer wide.
#[derive(Debug)]
#[repr(transparent)]
pub struct Mbuf(NonNull<rte_mbuf>);

// SAFETY: an Mbuf is the only owner of its chain, and pools take buffers back on any thread (multi-producer operations,
// and they live as long as the process: dpdk_sys::pool).
unsafe impl Send for Mbuf {}
// SAFETY: through a shared reference the chain is only read.
unsafe impl Sync for Mbuf {}

impl Mbuf {
    /// Takes over what a burst received, or what a pool gave.
    ///
    /// # Safety
    /// `mbuf` heads a valid chain that nobody else owns.
    pub(crate) unsafe fn from_raw(mbuf: NonNull<rte_mbuf>) -> Self {
        Self(mbuf)
    }

    /// Hands the chain over, for example to a driver.
    pub(crate) fn into_raw(self) -> *mut rte_mbuf {
        let mbuf = self.0.as_ptr();
        std::mem::forget(self);
        mbuf
    }

    /// Drops all of `mbufs` at once, which their pool takes back sooner than one by one.
    pub(crate) fn free_all(mbufs: &mut Vec<Self>) {
        let count = mbufs.len();
        // SAFETY: the list's elements are pointers to valid chains (transparent), owned here; it forgets them first.
        unsafe {
            mbufs.set_len(0);
            bindings::softrdma_mbuf_free_bulk(mbufs.as_mut_ptr().cast(), count as u32);
        }
    }

    /// Bytes in the whole chain.
    pub fn total_length(&self) -> usize {
        self.head().pkt_len as usize
    }

    /// Buffers in the chain.
    pub fn segments(&self) -> usize {
        usize::from(self.head().nb_segs)
    }

    fn head(&self) -> &rte_mbuf {
        // SAFETY: the pointer heads a valid chain that this value owns.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for Mbuf {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: the chain is valid and owned here; this is its end.
        unsafe { bindings::softrdma_mbuf_free(self.0.as_ptr()) }
    }
}

impl Packet for Mbuf {
    fn parts(&self) -> impl Iterator<Item = &[u8]> {
        Parts { next: self.0.as_ptr(), chain: PhantomData }
    }

    fn length(&self) -> usize {
        self.total_length()
    }

    fn checksum(&self) -> ReceivedChecksum {
        let flags = self.head().ol_flags;
        let network = flags & bindings::SOFTRDMA_RX_IP_CHECKSUM_MASK;
        let transport = flags & bindings::SOFTRDMA_RX_L4_CHECKSUM_MASK;
        if network == bindings::SOFTRDMA_RX_IP_CHECKSUM_BAD || transport == bindings::SOFTRDMA_RX_L4_CHECKSUM_BAD {
            return ReceivedChecksum::Bad;
        }
        // "None": the sum was never written, because the packet never left this machine; its data is sound.
        let is_sound = |value, good, none| value == good || value == none;
        let transport_is_sound =
            is_sound(transport, bindings::SOFTRDMA_RX_L4_CHECKSUM_GOOD, bindings::SOFTRDMA_RX_L4_CHECKSUM_NONE);
        let network_is_sound =
            is_sound(network, bindings::SOFTRDMA_RX_IP_CHECKSUM_GOOD, bindings::SOFTRDMA_RX_IP_CHECKSUM_NONE);
        match transport_is_sound && (network_is_sound || self.parts().next().is_some_and(headers::is_ipv6)) {
            true => ReceivedChecksum::Good,
            false => ReceivedChecksum::Unknown,
        }
    }
}

/// Walks a chain.
struct Parts<'a> {
    next: *mut rte_mbuf,
    chain: PhantomData<&'a Mbuf>,
}

impl<'a> Iterator for Parts<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        // SAFETY: `next` is null or a buffer of a chain that is borrowed for 'a.
        let mbuf = unsafe { self.next.as_ref() }?;
        self.next = mbuf.next;
        // SAFETY: DPDK keeps data_off + data_len within the buffer; the driver has finished writing, and nobody writes
        // while the chain is borrowed. Pool memory is mapped zeroed, so every byte is initialised.
        Some(unsafe {
            std::slice::from_raw_parts(
                mbuf.buf_addr.cast::<u8>().add(usize::from(mbuf.data_off)),
                usize::from(mbuf.data_len),
            )
        })
    }
}

/// A frame under construction in a fresh buffer.
#[derive(Debug)]
pub struct TransmitFrame {
    mbuf: Mbuf,
    /// Whether the port sends chains.
    chains: bool,
}

impl TransmitFrame {
    /// A frame of `length` bytes in `mbuf`.
    ///
    /// # Safety
    /// `mbuf` is a single buffer straight from its pool, owned by nobody else, with room for `length` bytes.
    pub(crate) unsafe fn new(mbuf: NonNull<rte_mbuf>, length: u16, chains: bool) -> Self {
        // SAFETY: the buffer is valid and ours alone.
        let head = unsafe { &mut *mbuf.as_ptr() };
        // What the last user may have changed and a driver looks at; all of it in the buffer's first cache line.
        head.data_off = HEADROOM as u16;
        head.ol_flags = 0;
        head.data_len = length;
        head.pkt_len = u32::from(length);
        Self { mbuf: Mbuf(mbuf), chains }
    }

    /// Bytes in the frame, attachments included.
    pub fn total_length(&self) -> usize {
        self.mbuf.total_length()
    }

    /// Writes down what the port has to do, and hands the buffers over. True if there is work for the port.
    #[inline]
    pub(crate) fn finish(mut self, offload: TransmitOffload) -> (*mut rte_mbuf, bool) {
        let wants_work = offload.ipv4_checksum || offload.tcp_checksum || offload.segment_size != 0;
        let lengths = if wants_work { HeaderLengths::of(self.bytes_mut()) } else { None };
        if let Some(lengths) = lengths {
            // SAFETY: the buffer is owned here; the lengths were read from it.
            unsafe {
                bindings::softrdma_mbuf_set_headers(
                    self.mbuf.0.as_ptr(),
                    lengths.link,
                    lengths.network,
                    lengths.transport,
                    offload.segment_size,
                    flags(offload, lengths.is_ipv6),
                );
            }
        }
        (self.mbuf.into_raw(), lengths.is_some())
    }
}

impl Frame for TransmitFrame {
    type Attachment = Mbuf;

    #[inline]
    fn bytes_mut(&mut self) -> &mut [u8] {
        let mbuf = self.mbuf.head();
        let (start, length) = (mbuf.buf_addr.cast::<u8>(), usize::from(mbuf.data_len));
        let offset = usize::from(mbuf.data_off);
        // SAFETY: offset and length lie within the buffer (see `new`); it came fresh from its pool, so nobody else refers
        // to it, and it is borrowed mutably. Pool memory is mapped zeroed, so every byte is initialised.
        unsafe { std::slice::from_raw_parts_mut(start.add(offset), length) }
    }

    fn attach(&mut self, attachment: Mbuf) -> Result<(), Mbuf> {
        if !self.chains {
            return Err(attachment);
        }
        let tail = attachment.into_raw();
        // SAFETY: both chains are valid and owned here; on success the head owns the tail.
        if unsafe { bindings::softrdma_mbuf_chain(self.mbuf.0.as_ptr(), tail) } == 0 {
            return Ok(());
        }
        // SAFETY: DPDK refused (too many segments) and left both as they were; `tail` came from an Mbuf.
        Err(unsafe { Mbuf::from_raw(NonNull::new_unchecked(tail)) })
    }
}

fn flags(offload: TransmitOffload, is_ipv6: bool) -> u64 {
    let mut flags = if is_ipv6 { bindings::SOFTRDMA_TX_IPV6 } else { bindings::SOFTRDMA_TX_IPV4 };
    // Segments need their IPv4 header checksummed anew, whether or not it was asked for.
    if !is_ipv6 && (offload.ipv4_checksum || offload.segment_size != 0) {
        flags |= bindings::SOFTRDMA_TX_IP_CHECKSUM;
    }
    if offload.tcp_checksum || offload.segment_size != 0 {
        flags |= bindings::SOFTRDMA_TX_TCP_CHECKSUM;
    }
    if offload.segment_size != 0 {
        flags |= bindings::SOFTRDMA_TX_TCP_SEGMENTATION;
    }
    flags
}

/// Fresh buffers, taken from a pool by the burst and handed out one by one.
#[derive(Debug)]
pub(crate) struct Stock {
    pool: Pool,
    buffers: [*mut rte_mbuf; Self::SIZE],
    filled: usize,
}

// SAFETY: the buffers are owned by the stock, as in Mbuf.
unsafe impl Send for Stock {}

impl Stock {
    const SIZE: usize = 32;

    pub(crate) fn new(pool: Pool) -> Self {
        Self { pool, buffers: [std::ptr::null_mut(); Self::SIZE], filled: 0 }
    }

    /// A fresh buffer; `None` while the pool is dry.
    #[inline]
    pub(crate) fn take(&mut self) -> Option<NonNull<rte_mbuf>> {
        if self.filled == 0 {
            self.fill()?;
        }
        self.filled -= 1;
        NonNull::new(self.buffers[self.filled])
    }

    #[cold]
    fn fill(&mut self) -> Option<()> {
        thread::register();
        // The last few buffers of a pool are worth having one by one.
        [Self::SIZE, 1]
            .into_iter()
            .find(|count| {
                // SAFETY: the array has room for `count` pointers; on success (0) all of them are fresh buffers.
                unsafe {
                    bindings::softrdma_mbuf_allocate(self.pool.as_ptr(), self.buffers.as_mut_ptr(), *count as u32) == 0
                }
            })
            .map(|count| self.filled = count)
    }
}

impl Drop for Stock {
    fn drop(&mut self) {
        // SAFETY: the first `filled` pointers are fresh buffers that nobody else owns.
        unsafe { bindings::softrdma_mbuf_free_bulk(self.buffers.as_mut_ptr(), self.filled as u32) }
    }
}
