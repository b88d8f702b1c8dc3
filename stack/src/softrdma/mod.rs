//! The softrdma engine: TCP made for RDMA, over a packet port, with one copy from the packet into memory.
//!
//! Where things happen, from the first byte of a segment to the last:
//!
//! - **A segment is born** in `send_half`, `SendHalf::transmit`: the source above says which bytes travel together, writes them
//!   straight into a frame of the port, and `segment::HeaderTemplate::stamp` puts the headers in front.
//! - **It is placed** in `receiver`, `Receiver::pass`: what continues the stream is lent to the layer above where it lies, as it
//!   comes; what that leaves, or what comes behind a gap, stays in its packets (`reassembly`) and is lent again with what
//!   follows, by `Receiver::offer`. Before that `receive_half`, `ReceiveHalf::judge`, judges the segment.
//! - **It is acknowledged** in `send_half`, `SendHalf::send_owed`, at most once for each connection and burst, unless data leaves
//!   that carries the acknowledgement.
//! - **It is sent again** in `send_half`, `SendHalf::pump`, when `sender` finds it lost; the source writes the same bytes again.
//!
//! The engine is two values that may run on two threads ([`Engine::split`]): the receive half, which has the segments of
//! connections that are synchronised, and `sending`, which has the rest: what is sent (`send_half`), how connections begin
//! (`handshake`, `listeners`, `cookies`) and end (`ending`, `time_wait`), and frames that are not TCP. Those go to smoltcp
//! (`interface`), which also brings the wire formats of ARP, NDP and ICMP; the table of neighbours is ours (`neighbours`). What the
//! two share is in `shared`, and nothing else. In one piece they are driven here, one after the other.
//!
//! [`Engine::poll`] receives and offers; what there is to send, acknowledgements included, leaves with [`Engine::flush`], so
//! that an answer carries its acknowledgement. Without a flush it leaves with the next poll. A poll that brings bytes does
//! nothing but offer them: acknowledgements, timers and bookkeeping are for the poll behind it, off the path of an answer, or for
//! [`Engine::settle`].

mod capture;
mod config;
mod cookies;
mod ending;
mod gaps;
mod handshake;
mod ingress;
mod interface;
mod listeners;
mod neighbours;
mod reassembly;
mod receive_half;
mod receiver;
mod segment;
mod send_half;
mod sender;
mod sending;
mod shared;
mod split;
mod strays;
mod sum;
#[cfg(test)]
mod tests;
mod time_wait;
mod timer_wheel;
mod tuple;

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::port::Port;
use crate::stream::{
    Abort, Activity, ConnectError, Engine, EngineStatistics, Halves, ListenError, ListenerId, ReceiveStreams, Source,
    StreamEvent, StreamId, Streams, Transmitted,
};
use crate::time::Instant;
use capture::Capture;
pub use config::{
    CongestionControl, MAX_ADDRESSES, MAX_CONNECTIONS, MAX_MTU, MAX_RECEIVE_WINDOW, MIN_MTU_IPV4, MIN_MTU_IPV6,
    MIN_RECEIVE_WINDOW, SoftrdmaConfig, SoftrdmaError, UnknownCongestionControl,
};
use receive_half::ReceiveHalf;
use sending::{Outside, Sending};
use tuple::TupleHash;

/// Most packets of a burst behind which everything but their bytes is left to the next poll.
pub const SMALL_BURST_PACKETS: usize = 4;

/// And most bytes.
pub const SMALL_BURST_BYTES: usize = 4096;

/// One-copy TCP over a port. See the [module](self).
pub struct SoftrdmaEngine<P: Port> {
    receive: ReceiveHalf<P>,
    sending: Sending<P>,
    /// The last poll offered what had arrived and left the rest of its work to this one.
    is_rest_due: bool,
}

impl<P: Port> SoftrdmaEngine<P> {
    /// An engine with the addresses of `config` on queue 0 of `port`.
    pub fn new(mut port: P, mut config: SoftrdmaConfig, now: Instant) -> Result<Self, SoftrdmaError> {
        let mtu = config.validate(port.capabilities().mtu)?;
        let hardware = port.hardware_address();
        if hardware[0] & 1 != 0 || hardware == [0; 6] {
            return Err(SoftrdmaError::HardwareAddress { address: hardware });
        }
        let receive = port.take_receive_queue(0).ok_or(SoftrdmaError::QueueTaken)?;
        let transmit = port.take_transmit_queue(0).ok_or(SoftrdmaError::QueueTaken)?;
        let capture = config.capture.take().map(Capture::new);
        let mut random = StdRng::seed_from_u64(config.random_seed);
        let hash = TupleHash { key: [random.random(), random.random()] };
        let mut receive = ReceiveHalf::new(receive, config.max_held_packets, hash);
        receive.hardware = hardware;
        receive.verifies = config.checksum;
        receive.gaps.set_shortest_timeout(config.min_retransmission_timeout);
        receive.capture = capture.clone();
        let counters = receive.counters.clone();
        let outside = Outside { port, transmit, capture, counters };
        let sending = Sending::new(outside, config, mtu, (hash, random), now);
        Ok(Self { receive, sending, is_rest_due: false })
    }

    /// Everything but receiving; how many events there were.
    fn do_rest(&mut self, now: Instant, streams: &mut dyn Streams) -> usize {
        self.is_rest_due = false;
        let mut events = self.sending.poll(now, streams);
        // What the burst acknowledged, before what of it waits to be offered; all of it is known before the layer above acts.
        self.receive.tell_acknowledgements();
        events += self.deliver(now, streams);
        while self.receive.has_touched() {
            events += self.receive.serve_touched(&mut Arriving(streams));
            events += self.deliver(now, streams);
        }
        self.sending.flush_frames();
        events
    }

    /// Hands messages over until neither half has any for the other; how many events that brought.
    fn deliver(&mut self, now: Instant, streams: &mut dyn Streams) -> usize {
        let mut events = 0;
        loop {
            while let Some(message) = self.receive.to_send.pop() {
                events += self.sending.handle_message(now, message, streams);
            }
            let Some(message) = self.sending.to_receive.pop() else { return events };
            events += self.receive.handle_message(now, message, &mut Arriving(streams));
        }
    }
}

/// The layer above as the receive half sees it.
struct Arriving<'a>(&'a mut dyn Streams);

impl ReceiveStreams for Arriving<'_> {
    fn handle_burst(&mut self) {}

    #[inline]
    fn handle_bytes(&mut self, stream: StreamId, parts: &[&[u8]]) -> Result<usize, Abort> {
        self.0.handle_bytes(stream, parts)
    }

    fn handle_event(&mut self, event: StreamEvent) {
        self.0.handle_event(event);
    }
}

impl<P: Port> Engine for SoftrdmaEngine<P> {
    fn split(self: Box<Self>) -> Option<Halves> {
        Some(split::split(self.receive, self.sending))
    }

    fn connect(&mut self, now: Instant, remote: SocketAddr, local: Option<IpAddr>) -> Result<StreamId, ConnectError> {
        self.sending.begin_connection(now, remote, local)
    }

    fn listen(&mut self, _now: Instant, local: SocketAddr, backlog: usize) -> Result<ListenerId, ListenError> {
        self.sending.add_listener(local, backlog)
    }

    fn listener_address(&self, listener: ListenerId) -> Option<SocketAddr> {
        self.sending.listener_address(listener)
    }

    fn close_listener(&mut self, _now: Instant, listener: ListenerId) {
        self.sending.close_listener(listener);
    }

    fn poll(&mut self, now: Instant, streams: &mut dyn Streams) -> Activity {
        let received = self.receive.receive();
        // Bytes first, for whoever waits for them: what else there is to do is done by the next poll, while the peer is at work.
        // Never twice in a row, nor behind a large burst: under load acknowledgements are what the peer waits for.
        let may_leave_rest = received <= SMALL_BURST_PACKETS && !self.is_rest_due;
        let mut events = self.receive.handle_burst(now, true, &mut Arriving(streams));
        self.is_rest_due = may_leave_rest && (1..=SMALL_BURST_BYTES).contains(&self.receive.news());
        if self.is_rest_due && self.receive.is_serve_due() {
            events += self.receive.serve_touched(&mut Arriving(streams));
            return Activity { received, events };
        }
        // An acknowledgement that leaves before the connections are served, alone or with an answer, says what this burst brought.
        self.receive.announce_touched();
        if self.is_rest_due {
            return Activity { received, events };
        }
        events += self.do_rest(now, streams);
        Activity { received, events }
    }

    fn has_rest(&self) -> bool {
        self.is_rest_due
    }

    fn settle(&mut self, now: Instant, streams: &mut dyn Streams) {
        if self.is_rest_due {
            self.do_rest(now, streams);
        }
    }

    fn transmit(&mut self, now: Instant, stream: StreamId, source: &mut dyn Source) -> Transmitted {
        self.sending.transmit(now, stream, source)
    }

    fn flush(&mut self, now: Instant) {
        self.sending.flush(now);
    }

    fn resume(&mut self, stream: StreamId) {
        self.receive.resume(stream.into());
    }

    fn segment_size(&self, stream: StreamId) -> usize {
        self.sending.segment_size(stream)
    }

    fn addresses(&self, stream: StreamId) -> Option<(SocketAddr, SocketAddr)> {
        self.sending.addresses(stream)
    }

    fn local_addresses(&self) -> Vec<IpAddr> {
        self.sending.local_addresses()
    }

    fn close(&mut self, now: Instant, stream: StreamId) {
        self.sending.close_stream(now, stream);
    }

    fn abort(&mut self, now: Instant, stream: StreamId) {
        self.sending.abort_stream(now, stream);
    }

    fn next_deadline(&mut self, now: Instant) -> Option<Instant> {
        let has_work = self.is_rest_due || self.receive.has_touched() || !self.sending.to_receive.is_empty();
        if has_work { Some(now) } else { self.sending.next_deadline(now) }
    }

    fn readiness(&self) -> Option<Arc<OwnedFd>> {
        self.sending.readiness()
    }

    fn statistics(&self) -> EngineStatistics {
        self.sending.statistics()
    }
}
