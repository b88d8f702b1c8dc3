//! The receive half: a port's receive queue, the connections by their ends, and what each of them has received.
//!
//! It judges segments of synchronised connections (RFC 9293 §3.10.7.4, RFC 5961, RFC 7323 §5), keeps their payload where
//! it arrived, lends it to the layer above, and tells the send half what was acknowledged and what is owed. Handshakes are
//! the engine's own work (`handshake`), since they need both halves.

use std::collections::HashMap;
use std::time::Duration;

use super::receiver::{Offered, Receiver};
use super::segment::{ACK, FIN, RST, SYN, Segment};
use super::shared::{Acknowledgement, Message, Owed, SharedFlow};
use super::tuple::{Tuple, TupleHash};
use crate::port::{BURST, Port, ReceiveQueue};
use crate::stream::{Abort, ListenerId, Sink, StreamId, Streams};
use crate::table::{Name, Table};
use crate::time::Instant;

/// RFC 5961 §7: acknowledgements that challenge suspicious segments, in each [`CHALLENGE_PERIOD`], for all connections.
const CHALLENGES: u32 = 100;
const CHALLENGE_PERIOD: Duration = Duration::from_millis(100);

pub(super) type PacketOf<P> = <<P as Port>::Receive as ReceiveQueue>::Packet;

/// What has been received.
pub(super) struct ReceiveHalf<P: Port> {
    pub(super) queue: P::Receive,
    /// What was received and not looked at yet, the next one last.
    pub(super) burst: Vec<PacketOf<P>>,
    pub(super) flows: Table<ReceiveFlow<PacketOf<P>>>,
    tuples: HashMap<Tuple, Name, TupleHash>,
    /// The connection of the last packet: the next one is mostly its as well.
    last: Option<(Tuple, Name)>,
    /// Connections to be looked at when the burst is through, each once.
    pub(super) touched: Vec<Name>,
    held_packets: usize,
    max_held_packets: usize,
    challenges: u32,
    challenges_since: Instant,
    pub(super) received_bytes: u64,
    pub(super) copied_bytes: u64,
}

/// One connection, as the receive half knows it.
pub(super) struct ReceiveFlow<K> {
    pub(super) tuple: Tuple,
    pub(super) phase: Phase,
    pub(super) receiver: Receiver<K>,
    /// The acknowledgement that the burst asked for.
    owed: Owed,
    /// In the list of touched connections.
    is_touched: bool,
    /// There are bytes that were not offered yet, or are to be offered again.
    is_offer_due: bool,
    /// The peer's end was reported to the layer above.
    pub(super) is_end_reported: bool,
    /// What the last segment acknowledged, and its window.
    last_acknowledgement: (u32, u16),
}

/// How far the handshake is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Our SYN has no answer.
    SynSent,
    /// The peer's SYN was answered; whoever listened for it.
    SynReceived(Option<ListenerId>),
    /// Done.
    Synchronised,
}

/// What a segment does to its connection beyond its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Nothing.
    None,
    /// The peer reset it.
    Reset,
}

impl<K> ReceiveFlow<K> {
    pub(super) const fn new(tuple: Tuple, phase: Phase, receiver: Receiver<K>) -> Self {
        Self {
            tuple,
            phase,
            receiver,
            owed: Owed::Nothing,
            is_touched: false,
            is_offer_due: false,
            is_end_reported: false,
            last_acknowledgement: (0, 0),
        }
    }
}

impl<P: Port> ReceiveHalf<P> {
    pub(super) fn new(queue: P::Receive, max_connections: usize, max_held_packets: usize, hash: TupleHash) -> Self {
        Self {
            queue,
            burst: Vec::with_capacity(BURST),
            flows: Table::new(max_connections),
            tuples: HashMap::with_hasher(hash),
            last: None,
            touched: Vec::new(),
            held_packets: 0,
            max_held_packets,
            challenges: 0,
            challenges_since: Instant::ZERO,
            received_bytes: 0,
            copied_bytes: 0,
        }
    }

    /// The connection between the ends of `tuple`.
    #[inline]
    pub(super) fn find(&mut self, tuple: &Tuple) -> Option<Name> {
        if let Some((last, name)) = &self.last
            && last == tuple
        {
            return Some(*name);
        }
        let name = *self.tuples.get(tuple)?;
        self.last = Some((*tuple, name));
        Some(name)
    }

    pub(super) fn is_known(&self, tuple: &Tuple) -> bool {
        self.tuples.contains_key(tuple)
    }

    /// Adds a connection; `None` when the limit is reached.
    pub(super) fn insert(&mut self, flow: ReceiveFlow<PacketOf<P>>) -> Option<Name> {
        let tuple = flow.tuple;
        let name = self.flows.insert(flow)?;
        self.tuples.insert(tuple, name);
        Some(name)
    }

    pub(super) fn remove(&mut self, name: Name) -> Option<ReceiveFlow<PacketOf<P>>> {
        let mut flow = self.flows.remove(name)?;
        self.tuples.remove(&flow.tuple);
        self.last = None;
        self.held_packets -= flow.receiver.clear();
        Some(flow)
    }

    /// Has a connection looked at when the burst is through.
    pub(super) fn touch(&mut self, name: Name) {
        if let Some(flow) = self.flows.get_mut(name)
            && !std::mem::replace(&mut flow.is_touched, true)
        {
            self.touched.push(name);
        }
    }

    /// Offers again what the layer above left.
    pub(super) fn resume(&mut self, name: Name) {
        if let Some(flow) = self.flows.get_mut(name) {
            flow.is_offer_due = true;
            self.touch(name);
        }
    }

    /// Handles a segment without SYN for a synchronised connection, RFC 9293 §3.10.7.4.
    pub(super) fn handle_segment(
        &mut self,
        now: Instant,
        name: Name,
        segment: &Segment,
        packet: PacketOf<P>,
        shared: &mut SharedFlow,
        messages: &mut Vec<Message>,
    ) -> Effect {
        let Some(flow) = self.flows.get_mut(name) else { return Effect::None };
        if !std::mem::replace(&mut flow.is_touched, true) {
            self.touched.push(name);
        }
        let receiver = &mut flow.receiver;
        // RFC 7323 §5.3 R1: an old timestamp is an old segment. A RST is judged by its sequence number alone.
        if let Some(recent) = receiver.recent_timestamp
            && !segment.has(RST)
        {
            // RFC 7323 §3.2: once agreed upon, every segment carries them.
            let Some((value, _)) = segment.timestamps else { return Effect::None };
            if (value.wrapping_sub(recent) as i32) < 0 {
                flow.owed = Owed::Pure;
                return Effect::None;
            }
        }
        shared.heard = now;
        if !receiver.is_acceptable(segment.sequence, segment.sequence_length()) {
            let is_reset = segment.has(RST);
            if !is_reset {
                return self.handle_unacceptable(now, name, segment, packet, shared, messages);
            }
            return Effect::None;
        }
        if segment.flags & (RST | SYN | ACK) != ACK {
            return self.handle_suspicious(now, name, segment);
        }
        // RFC 5961 §5.2: what acknowledges too little or too much comes from somebody who guesses.
        let progress = &shared.progress;
        let ahead = progress.next.wrapping_sub(segment.acknowledgement);
        let in_flight = progress.next.wrapping_sub(progress.oldest);
        if ahead > in_flight.saturating_add(progress.largest_window) {
            self.challenge(now, name);
            return Effect::None;
        }
        let length = segment.payload_length();
        Self::note_timestamp(flow, segment, shared);
        Self::note_acknowledgement(name, flow, segment, shared, messages);
        if length == 0 && !segment.has(FIN) {
            return Effect::None;
        }
        let may_hold = self.held_packets < self.max_held_packets;
        let accepted =
            flow.receiver.accept(packet, segment.payload, segment.sequence, length, segment.has(FIN), may_hold);
        flow.owed = flow.owed.max(accepted.owed);
        flow.is_offer_due |= accepted.is_news;
        self.held_packets = self.held_packets.saturating_add_signed(accepted.held);
        Effect::None
    }

    /// RFC 7323 §4.3: a segment that covers what was acknowledged last brings the timestamp to echo.
    #[inline]
    fn note_timestamp(flow: &mut ReceiveFlow<PacketOf<P>>, segment: &Segment, shared: &SharedFlow) {
        if let (Some(recent), Some((value, _))) = (&mut flow.receiver.recent_timestamp, segment.timestamps)
            && (segment.sequence.wrapping_sub(shared.progress.acknowledged) as i32) <= 0
        {
            *recent = value;
        }
    }

    /// Tells the send half what the segment acknowledges.
    #[inline]
    fn note_acknowledgement(
        name: Name,
        flow: &mut ReceiveFlow<PacketOf<P>>,
        segment: &Segment,
        shared: &SharedFlow,
        messages: &mut Vec<Message>,
    ) {
        let carries_data = segment.sequence_length() > 0;
        let said = (segment.acknowledgement, segment.window);
        let is_news = said != flow.last_acknowledgement || !segment.sack.is_empty();
        // One that says nothing new counts only where it may be a duplicate (RFC 5681 §2).
        if !is_news && (carries_data || shared.progress.oldest == shared.progress.next) {
            return;
        }
        flow.last_acknowledgement = said;
        let acknowledgement = Acknowledgement {
            sequence: segment.acknowledgement,
            window: segment.window,
            sack: segment.sack,
            carries_data,
        };
        // Of several in one burst that only move on, the last says it all.
        if let Some(Message::Acknowledged(last_name, last)) = messages.last_mut()
            && *last_name == name
            && last.sack.is_empty()
            && segment.sack.is_empty()
            && (segment.acknowledgement.wrapping_sub(last.sequence) as i32) > 0
        {
            *last = acknowledgement;
            return;
        }
        messages.push(Message::Acknowledged(name, acknowledgement));
    }

    /// RFC 9293 §3.10.7.4, first: a segment outside the window is answered with an acknowledgement. With a closed window,
    /// what it acknowledges counts nevertheless.
    fn handle_unacceptable(
        &mut self,
        now: Instant,
        name: Name,
        segment: &Segment,
        packet: PacketOf<P>,
        shared: &SharedFlow,
        messages: &mut Vec<Message>,
    ) -> Effect {
        let Some(flow) = self.flows.get_mut(name) else { return Effect::None };
        flow.owed = Owed::Pure;
        let progress = &shared.progress;
        let ahead = progress.next.wrapping_sub(segment.acknowledgement);
        let in_flight = progress.next.wrapping_sub(progress.oldest);
        if segment.flags & (SYN | ACK) == SYN {
            // RFC 5961 §4: perhaps the peer has forgotten us; then the acknowledgement makes it reset.
            flow.owed = Owed::Nothing;
            self.challenge(now, name);
        } else if segment.flags & (SYN | ACK) == ACK && ahead <= in_flight {
            // What lies before the window has arrived already; what it acknowledges is judged by itself. So both sides
            // hear each other though both repeat themselves.
            Self::note_acknowledgement(name, flow, segment, shared, messages);
            if flow.receiver.distance(segment.sequence) < 0 && segment.payload_length() > 0 {
                // Only to report that it arrived twice (RFC 2883).
                let accepted = flow.receiver.accept(
                    packet,
                    segment.payload,
                    segment.sequence,
                    segment.payload_length(),
                    false,
                    false,
                );
                self.held_packets = self.held_packets.saturating_add_signed(accepted.held);
            }
        }
        Effect::None
    }

    /// RFC 5961 §3 and §4: a RST or SYN inside the window, or a segment that acknowledges nothing.
    fn handle_suspicious(&mut self, now: Instant, name: Name, segment: &Segment) -> Effect {
        let Some(flow) = self.flows.get_mut(name) else { return Effect::None };
        if segment.has(RST) {
            // Only the very number that is expected next resets at once.
            if flow.receiver.distance(segment.sequence) == 0 {
                return Effect::Reset;
            }
            self.challenge(now, name);
        } else if segment.has(SYN) {
            self.challenge(now, name);
        }
        Effect::None
    }

    /// RFC 5961 §7: asks the peer, at a limited rate, whether it meant that.
    pub(super) fn challenge(&mut self, now: Instant, name: Name) {
        if now.saturating_since(self.challenges_since) >= CHALLENGE_PERIOD {
            self.challenges_since = now;
            self.challenges = 0;
        }
        if self.challenges < CHALLENGES
            && let Some(flow) = self.flows.get_mut(name)
        {
            self.challenges += 1;
            flow.owed = Owed::Pure;
            self.touch(name);
        }
    }

    /// An acknowledgement is owed whatever the segment was.
    pub(super) fn owe(&mut self, name: Name, owed: Owed) {
        if let Some(flow) = self.flows.get_mut(name) {
            flow.owed = flow.owed.max(owed);
            self.touch(name);
        }
    }

    /// The handshake is done: bytes of the peer count from `initial` on.
    pub(super) fn synchronise(&mut self, name: Name, segment_size: usize) {
        if let Some(flow) = self.flows.get_mut(name) {
            flow.phase = Phase::Synchronised;
            flow.receiver.segment_size = segment_size;
        }
    }

    /// Offers what arrived for a touched connection, announces its state and says what it owes. Whether the peer's end is
    /// to be reported now.
    pub(super) fn serve(
        &mut self,
        name: Name,
        shared: &mut SharedFlow,
        streams: &mut dyn Streams,
        messages: &mut Vec<Message>,
    ) -> bool {
        let Some(flow) = self.flows.get_mut(name) else { return false };
        flow.is_touched = false;
        if flow.phase != Phase::Synchronised {
            return false;
        }
        if std::mem::take(&mut flow.is_offer_due) && flow.receiver.is_holding() {
            let mut outcome = Offered::default();
            let mut sink = StreamSink { stream: name.into(), streams };
            // A layer above that cannot go on is not asked again; the receiver remembers.
            let _ = flow.receiver.offer(&mut sink, &mut outcome);
            let pressed = self.held_packets.saturating_add_signed(outcome.held) > self.max_held_packets;
            if pressed && flow.receiver.is_holding() {
                flow.receiver.copy_together(&mut outcome);
            }
            self.held_packets = self.held_packets.saturating_add_signed(outcome.held);
            self.received_bytes += outcome.new_bytes;
            self.copied_bytes += outcome.copied_bytes;
        }
        let progress = &shared.progress;
        let owed = flow.receiver.owed(progress.acknowledged, progress.announced_edge).max(flow.owed);
        flow.owed = Owed::Nothing;
        shared.announcement = flow.receiver.announce();
        if owed != Owed::Nothing {
            messages.push(Message::Owed(name, owed));
        }
        let is_end_due = flow.receiver.is_drained() && !flow.is_end_reported;
        flow.is_end_reported |= is_end_due;
        is_end_due
    }
}

/// The layer above, as the sink of one stream.
struct StreamSink<'a> {
    stream: StreamId,
    streams: &'a mut dyn Streams,
}

impl Sink for StreamSink<'_> {
    #[inline]
    fn handle_bytes(&mut self, parts: &[&[u8]]) -> Result<usize, Abort> {
        self.streams.handle_bytes(self.stream, parts)
    }
}
