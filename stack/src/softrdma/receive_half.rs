//! The receive half: a port's receive queue, the connections by their ends, and what each of them has received.
//!
//! It judges segments of synchronised connections (RFC 9293 §3.10.7.4, RFC 5961, RFC 7323 §5), keeps their payload where
//! it arrived, lends it to the layer above, and tells the send half what was acknowledged and what is owed. Packets of no
//! connection that it knows go to the send half as they are, which does handshakes (`handshake`) and everything that is not
//! TCP, and has connections installed here once they are synchronised.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::capture::Capture;
use super::gaps::Gaps;
use super::receiver::{Offered, Receiver};
use super::segment::{ACK, FIN, RST, SYN, Segment};
use super::shared::{
    Acknowledgement, Installed, Outbox, Owed, PeerEnd, ReceiveCounters, SharedFlow, ToReceive, ToSend, add,
};
use super::tuple::{Tuple, TupleHash};
use crate::port::{BURST, Packet, Port, ReceiveQueue};
use crate::stream::{Abort, ReceiveStreams, Sink, StreamEvent, StreamId};
use crate::table::Name;
use crate::time::Instant;

/// RFC 5961 §7: so many acknowledgements in each [`CHALLENGE_PERIOD`] answer segments that brought nothing. Each connection
/// has its own count: from one that all share, a stranger could learn what others were sent.
const CHALLENGES: u8 = 10;
const CHALLENGE_PERIOD: Duration = Duration::from_millis(100);

pub(super) type PacketOf<P> = <<P as Port>::Receive as ReceiveQueue>::Packet;

/// What has been received.
pub(super) struct ReceiveHalf<P: Port> {
    queue: P::Receive,
    /// What was received and not looked at yet.
    burst: Vec<PacketOf<P>>,
    /// By slot.
    flows: Vec<Option<ReceiveFlow<PacketOf<P>>>>,
    tuples: HashMap<Tuple, Name, TupleHash>,
    /// The connection of the last packet: the next one is mostly its as well.
    last: Option<(Tuple, Name)>,
    /// Connections to be looked at when the burst is through, each once.
    touched: Vec<Name>,
    /// A field to keep its memory.
    serving: Vec<Name>,
    /// Bytes that the burst brought.
    news: usize,
    /// What continues a stream is offered as it comes, before the rest of the burst is looked at.
    passes: bool,
    /// The send half works meanwhile: what a segment acknowledged is told before its bytes are offered.
    pub(super) tells_first: bool,
    /// Something that the burst brought is left to [`Self::serve_touched`].
    is_serve_due: bool,
    pub(super) to_send: Outbox<ToSend<PacketOf<P>>>,
    pub(super) held_packets: usize,
    pub(super) max_held_packets: usize,
    pub(super) gaps: Gaps,
    pub(super) hardware: [u8; 6],
    /// Checksums of received packets count.
    pub(super) verifies: bool,
    pub(super) capture: Option<Capture>,
    pub(super) counters: Arc<ReceiveCounters>,
}

/// One connection, as the receive half knows it.
struct ReceiveFlow<K> {
    name: Name,
    tuple: Tuple,
    receiver: Receiver<K>,
    shared: Arc<SharedFlow>,
    /// The acknowledgement that the burst asked for.
    owed: Owed,
    /// What the burst said about our direction, as far as the send half was not told.
    said: Option<Acknowledgement>,
    /// In the list of touched connections.
    is_touched: bool,
    /// There are bytes that were not offered yet, or are to be offered again.
    is_offer_due: bool,
    /// The peer's end was reported to the layer above.
    is_end_reported: bool,
    /// What the last segment acknowledged, and its window.
    last_acknowledgement: (u32, u16),
    /// Challenges since then.
    challenges: u8,
    challenges_since: Instant,
    /// When the gap began that packets are kept behind.
    gap_since: Instant,
}

/// What a segment does to its connection beyond its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    /// Nothing.
    None,
    /// The peer reset it.
    Reset,
}

impl<K> ReceiveFlow<K> {
    fn new(installed: Installed<K>) -> Self {
        let Installed { name, tuple, receiver, shared } = installed;
        Self {
            name,
            tuple,
            receiver,
            shared,
            // The peer may wait for the last word of the handshake. The send half knows whether it was said.
            owed: Owed::Nothing,
            said: None,
            is_touched: false,
            is_offer_due: false,
            is_end_reported: false,
            last_acknowledgement: (0, 0),
            challenges: 0,
            challenges_since: Instant::ZERO,
            gap_since: Instant::ZERO,
        }
    }
}

impl<P: Port> ReceiveHalf<P> {
    pub(super) fn new(queue: P::Receive, max_held_packets: usize, hash: TupleHash) -> Self {
        Self {
            queue,
            burst: Vec::with_capacity(BURST),
            flows: Vec::new(),
            tuples: HashMap::with_hasher(hash),
            last: None,
            touched: Vec::new(),
            serving: Vec::new(),
            news: 0,
            passes: false,
            tells_first: false,
            is_serve_due: false,
            to_send: Outbox::new(),
            held_packets: 0,
            max_held_packets,
            gaps: Gaps::new(),
            hardware: [0; 6],
            verifies: true,
            capture: None,
            counters: Arc::default(),
        }
    }

    /// Receives one burst; how many packets.
    pub(super) fn receive(&mut self) -> usize {
        self.queue.receive(&mut self.burst)
    }

    /// Handles what [`Self::receive`] brought. If it `passes`, what continues a stream is offered to the layer above at once:
    /// whoever waits for it waits for nothing else. The rest is left to [`Self::serve_touched`].
    pub(super) fn handle_burst(
        &mut self,
        now: Instant,
        passes: bool,
        streams: &mut (impl ReceiveStreams + ?Sized),
    ) -> usize {
        let mut burst = std::mem::take(&mut self.burst);
        self.news = 0;
        self.passes = passes;
        let mut events = 0;
        for packet in burst.drain(..) {
            if let Some(capture) = &self.capture {
                capture.handle_received(now, &packet);
            }
            events += self.handle_packet(now, packet, streams);
        }
        self.burst = burst;
        self.passes = false;
        events
    }

    /// Packets that are kept.
    #[cfg(test)]
    pub(super) const fn held_packets(&self) -> usize {
        self.held_packets
    }

    /// Whether the connection still has the gap that began at `since`.
    pub(super) fn has_gap(&self, name: Name, since: Instant) -> bool {
        let flow = self.flows.get(name.index as usize).and_then(Option::as_ref);
        flow.is_some_and(|flow| flow.name == name && flow.gap_since == since && flow.receiver.held_behind_gaps() > 0)
    }

    /// Drops what the connection keeps behind gaps; how many packets that were.
    pub(super) fn drop_gap(&mut self, name: Name) -> usize {
        self.flow_mut(name).map_or(0, |flow| flow.receiver.drop_behind_gaps())
    }

    /// What the send half has to say.
    pub(super) fn handle_message(
        &mut self,
        now: Instant,
        message: ToReceive<PacketOf<P>>,
        streams: &mut (impl ReceiveStreams + ?Sized),
    ) -> usize {
        match message {
            ToReceive::Install(installed) => self.install(*installed),
            ToReceive::Packet(packet) => return self.handle_packet(now, packet, streams),
            ToReceive::Remove(name) => self.remove(name),
        }
        0
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

    fn install(&mut self, installed: Installed<PacketOf<P>>) {
        let (name, tuple) = (installed.name, installed.tuple);
        let index = name.index as usize;
        if index >= self.flows.len() {
            self.flows.resize_with(index + 1, || None);
        }
        self.flows[index] = Some(ReceiveFlow::new(installed));
        self.tuples.insert(tuple, name);
        self.last = None;
    }

    fn remove(&mut self, name: Name) {
        if self.flow_mut(name).is_none() {
            return;
        }
        let Some(mut flow) = self.flows[name.index as usize].take() else { return };
        self.tuples.remove(&flow.tuple);
        self.last = None;
        self.held_packets -= flow.receiver.clear();
    }

    #[inline]
    fn flow_mut(&mut self, name: Name) -> Option<&mut ReceiveFlow<PacketOf<P>>> {
        self.flows.get_mut(name.index as usize)?.as_mut().filter(|flow| flow.name == name)
    }

    /// Has a connection looked at when the burst is through.
    fn touch(&mut self, name: Name) {
        if let Some(flow) = self.flow_mut(name)
            && !std::mem::replace(&mut flow.is_touched, true)
        {
            self.touched.push(name);
        }
    }

    /// Connections wait for [`Self::serve_touched`].
    pub(super) const fn has_touched(&self) -> bool {
        !self.touched.is_empty()
    }

    /// Bytes that the burst brought.
    pub(super) const fn news(&self) -> usize {
        self.news
    }

    /// The burst brought something that was not offered yet.
    pub(super) const fn is_serve_due(&self) -> bool {
        self.is_serve_due
    }

    /// Offers again what the layer above left.
    pub(super) fn resume(&mut self, name: Name) {
        if let Some(flow) = self.flow_mut(name) {
            flow.is_offer_due = true;
            self.is_serve_due = true;
            self.touch(name);
        }
    }

    /// Handles a segment for a connection that is synchronised; how many events there were.
    #[inline]
    pub(super) fn handle_segment(
        &mut self,
        now: Instant,
        name: Name,
        segment: &Segment,
        packet: PacketOf<P>,
        streams: &mut (impl ReceiveStreams + ?Sized),
    ) -> usize {
        match self.judge(now, name, segment, packet, streams) {
            Effect::None => 0,
            Effect::Reset => {
                // What came before the reset arrived.
                let events = self.serve(name, streams);
                self.to_send.push(ToSend::Reset(name));
                self.remove(name);
                events
            }
        }
    }

    /// Handles a segment for a synchronised connection, RFC 9293 §3.10.7.4.
    fn judge(
        &mut self,
        now: Instant,
        name: Name,
        segment: &Segment,
        packet: PacketOf<P>,
        streams: &mut (impl ReceiveStreams + ?Sized),
    ) -> Effect {
        // Not `flow_mut`: the lists beside the flows are needed as well.
        let flow = self.flows.get_mut(name.index as usize).and_then(Option::as_mut);
        let Some(flow) = flow.filter(|flow| flow.name == name) else { return Effect::None };
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
        flow.shared.set_heard(now);
        if !receiver.is_acceptable(segment.sequence, segment.sequence_length()) {
            let is_reset = segment.has(RST);
            if !is_reset {
                return self.handle_unacceptable(now, name, segment, packet);
            }
            return Effect::None;
        }
        if segment.flags & (RST | SYN | ACK) != ACK {
            return self.handle_suspicious(now, name, segment);
        }
        // RFC 5961 §5.2: what acknowledges too little or too much comes from somebody who guesses.
        let (oldest, next) = flow.shared.in_flight();
        let ahead = next.wrapping_sub(segment.acknowledgement);
        let in_flight = next.wrapping_sub(oldest);
        if ahead > in_flight.saturating_add(flow.shared.largest_window()) {
            flow.challenge(now);
            return Effect::None;
        }
        flow.note_timestamp(segment);
        flow.note_acknowledgement(segment, oldest == next, &mut self.to_send);
        if segment.payload_length() == 0 && !segment.has(FIN) {
            return Effect::None;
        }
        self.take(name, segment, packet, streams);
        Effect::None
    }

    /// Takes the payload of a segment that was found good, and its FIN.
    #[inline]
    fn take(
        &mut self,
        name: Name,
        segment: &Segment,
        packet: PacketOf<P>,
        streams: &mut (impl ReceiveStreams + ?Sized),
    ) {
        let Some(Some(flow)) = self.flows.get_mut(name.index as usize) else { return };
        let length = segment.payload_length();
        if self.passes
            && flow.awaits(segment)
            && let Some(bytes) = payload(&packet, segment)
        {
            if self.tells_first
                && let Some(said) = flow.said.take()
            {
                self.to_send.push(ToSend::Acknowledged(name, said));
            }
            let mut sink = StreamSink { stream: name.into(), streams };
            let passed = flow.receiver.pass(segment.payload, bytes, &mut sink);
            self.news += length;
            add(&self.counters.bytes, length as u64);
            if passed.left > 0 {
                flow.receiver.hold_rest(packet, &passed);
                self.held_packets += 1;
            }
            return;
        }
        // Nobody may keep more than what is left for the others: few connections with many gaps do not take it all.
        let left = self.max_held_packets.saturating_sub(self.held_packets);
        let (behind, next) = (flow.receiver.held_behind_gaps(), flow.receiver.next_sequence());
        let may_hold = behind < left;
        let accepted =
            flow.receiver.accept(packet, segment.payload, segment.sequence, length, segment.has(FIN), may_hold);
        flow.owed = flow.owed.max(accepted.owed);
        flow.is_offer_due |= accepted.is_news;
        self.is_serve_due |= accepted.is_news;
        self.news += if accepted.is_news { length } else { 0 };
        self.held_packets = self.held_packets.saturating_add_signed(accepted.held);
        // One that has moved on is being repaired: the next gap is another.
        let is_other = behind == 0 || next != flow.receiver.next_sequence();
        let has_new_gap = is_other && flow.receiver.held_behind_gaps() > 0;
        let is_short = left <= self.max_held_packets / 2;
        if has_new_gap || is_short {
            // The segment was heard now.
            let now = flow.shared.heard();
            if has_new_gap {
                flow.gap_since = now;
                self.note_gap(name, now);
            }
            if is_short {
                self.relieve(now);
            }
        }
    }

    /// RFC 9293 §3.10.7.4, first: a segment outside the window is answered with an acknowledgement. One from just before the
    /// window was good once, or would be with an open window: what it acknowledges counts.
    fn handle_unacceptable(&mut self, now: Instant, name: Name, segment: &Segment, packet: PacketOf<P>) -> Effect {
        let flow = self.flows.get_mut(name.index as usize).and_then(Option::as_mut);
        let Some(flow) = flow else { return Effect::None };
        let length = segment.payload_length();
        if length == 0 || segment.has(SYN) {
            // RFC 5961 §4: perhaps the peer has forgotten us; then the acknowledgement makes it reset.
            flow.challenge(now);
        } else {
            flow.owed = Owed::Pure;
        }
        let (oldest, next) = flow.shared.in_flight();
        let in_flight = next.wrapping_sub(oldest);
        let distance = flow.receiver.distance(segment.sequence);
        // RFC 5961 §5: a stranger who guesses sequence numbers must not have an acknowledgement believed.
        // One without data may stand at the window's very end: of a peer that has filled it.
        let is_at_end = length == 0 && i64::from(distance) == flow.receiver.room();
        let is_near = (distance <= 0 && i64::from(distance) >= -flow.receiver.window()) || is_at_end;
        let is_sane = next.wrapping_sub(segment.acknowledgement) <= in_flight;
        if segment.flags & (SYN | ACK) == ACK && is_near && is_sane {
            // Both sides hear each other though both repeat themselves.
            flow.note_acknowledgement(segment, oldest == next, &mut self.to_send);
            if distance < 0 && length > 0 {
                // Only to report that it arrived twice (RFC 2883).
                let accepted = flow.receiver.accept(packet, segment.payload, segment.sequence, length, false, false);
                self.held_packets = self.held_packets.saturating_add_signed(accepted.held);
            }
        }
        Effect::None
    }

    /// RFC 5961 §3 and §4: a RST or SYN inside the window, or a segment that acknowledges nothing.
    fn handle_suspicious(&mut self, now: Instant, name: Name, segment: &Segment) -> Effect {
        let Some(flow) = self.flow_mut(name) else { return Effect::None };
        // Only the very number that is expected next resets at once.
        if segment.has(RST) && flow.receiver.distance(segment.sequence) == 0 {
            return Effect::Reset;
        }
        if segment.flags & (RST | SYN) != 0 {
            flow.challenge(now);
        }
        Effect::None
    }

    /// Tells the send half what the burst acknowledged.
    pub(super) fn tell_acknowledgements(&mut self) {
        for name in &self.touched {
            if let Some(Some(flow)) = self.flows.get_mut(name.index as usize)
                && let Some(said) = flow.said.take()
            {
                self.to_send.push(ToSend::Acknowledged(flow.name, said));
            }
        }
    }

    /// Announces what arrived, for [`Self::serve_touched`] comes later.
    pub(super) fn announce_touched(&mut self) {
        for name in &self.touched {
            if let Some(Some(flow)) = self.flows.get_mut(name.index as usize) {
                let timestamp = flow.receiver.recent_timestamp.unwrap_or(0);
                flow.shared.announce(flow.receiver.announcement(), timestamp);
            }
        }
    }

    /// Offers what arrived; how many events there were.
    pub(super) fn serve_touched(&mut self, streams: &mut (impl ReceiveStreams + ?Sized)) -> usize {
        let mut events = 0;
        self.is_serve_due = false;
        let mut touched = std::mem::replace(&mut self.touched, std::mem::take(&mut self.serving));
        for name in touched.drain(..) {
            events += self.serve(name, streams);
        }
        self.serving = touched;
        events
    }

    /// Offers what arrived for a touched connection, announces its state and says what it owes; how many events there were.
    fn serve(&mut self, name: Name, streams: &mut (impl ReceiveStreams + ?Sized)) -> usize {
        let flow = self.flows.get_mut(name.index as usize).and_then(Option::as_mut);
        let Some(flow) = flow.filter(|flow| flow.name == name) else { return 0 };
        flow.is_touched = false;
        if let Some(said) = flow.said.take() {
            self.to_send.push(ToSend::Acknowledged(name, said));
        }
        let is_offer_due = std::mem::take(&mut flow.is_offer_due);
        if flow.receiver.is_holding() {
            let mut outcome = Offered::default();
            if is_offer_due {
                let mut sink = StreamSink { stream: name.into(), streams: &mut *streams };
                // A layer above that cannot go on is not asked again; the receiver remembers.
                let _ = flow.receiver.offer(&mut sink, &mut outcome);
            }
            // Half of the room is for what is behind gaps: that cannot be copied and let go.
            let pressed = self.held_packets.saturating_add_signed(outcome.held) > self.max_held_packets / 2;
            if pressed && flow.receiver.is_holding() {
                flow.receiver.copy_together(&mut outcome);
            }
            self.held_packets = self.held_packets.saturating_add_signed(outcome.held);
            add(&self.counters.bytes, outcome.new_bytes);
            if outcome.copied_bytes > 0 {
                add(&self.counters.copied_bytes, outcome.copied_bytes);
            }
        }
        let told = flow.shared.told();
        let owed = flow.receiver.owed(told.next, told.edge).max(flow.owed);
        flow.owed = Owed::Nothing;
        let (announcement, report) = flow.receiver.announce();
        flow.shared.announce(announcement, flow.receiver.recent_timestamp.unwrap_or(0));
        if owed != Owed::Nothing {
            self.to_send.push(ToSend::Owed(name, owed, report));
        }
        if !flow.receiver.is_drained() || std::mem::replace(&mut flow.is_end_reported, true) {
            return 0;
        }
        let end = PeerEnd { next: announcement.next, recent_timestamp: flow.receiver.recent_timestamp };
        streams.handle_event(StreamEvent::PeerClosed { stream: name.into() });
        self.to_send.push(ToSend::Ended(name, end));
        1
    }
}

impl<K: Packet> ReceiveFlow<K> {
    /// Whether the segment brings what the layer above waits for, and nothing else.
    #[inline]
    fn awaits(&self, segment: &Segment) -> bool {
        !segment.has(FIN) && self.receiver.is_awaited(segment.sequence, segment.payload_length())
    }

    /// RFC 5961 §7: asks the peer, at a limited rate, whether it meant that.
    fn challenge(&mut self, now: Instant) {
        if now.saturating_since(self.challenges_since) >= CHALLENGE_PERIOD {
            self.challenges_since = now;
            self.challenges = 0;
        }
        if self.challenges < CHALLENGES {
            self.challenges += 1;
            self.owed = Owed::Pure;
        }
    }

    /// RFC 7323 §4.3: a segment that covers what was acknowledged last brings the timestamp to echo.
    #[inline]
    fn note_timestamp(&mut self, segment: &Segment) {
        if let (Some(recent), Some((value, _))) = (&mut self.receiver.recent_timestamp, segment.timestamps)
            && (segment.sequence.wrapping_sub(self.shared.told().next) as i32) <= 0
        {
            *recent = value;
        }
    }

    /// Notes what the segment acknowledges, for the send half. `is_quiet`: nothing of ours is in flight.
    #[inline]
    fn note_acknowledgement(&mut self, segment: &Segment, is_quiet: bool, to_send: &mut Outbox<ToSend<K>>) {
        let carries_data = segment.sequence_length() > 0;
        let said = (segment.acknowledgement, segment.window);
        let is_news = said != self.last_acknowledgement || !segment.sack.is_empty();
        // One that says nothing new counts only where it may be a duplicate (RFC 5681 §2).
        if !is_news && (carries_data || is_quiet) {
            return;
        }
        self.last_acknowledgement = said;
        let acknowledgement = Acknowledgement {
            sequence: segment.acknowledgement,
            said_at: segment.sequence,
            window: segment.window,
            sack: segment.sack,
            carries_data,
        };
        // Of several in one burst that only move on, the last says it all.
        if let Some(last) = self.said.replace(acknowledgement)
            && !(last.sack.is_empty()
                && segment.sack.is_empty()
                && (segment.acknowledgement.wrapping_sub(last.sequence) as i32) > 0)
        {
            to_send.push(ToSend::Acknowledged(self.name, last));
        }
    }
}

/// The payload of `segment`, if it lies in one piece at the beginning of `packet`.
#[inline]
fn payload<'a, K: Packet>(packet: &'a K, segment: &Segment) -> Option<&'a [u8]> {
    packet.parts().next()?.get(segment.payload..segment.end)
}

/// The layer above, as the sink of one stream.
struct StreamSink<'a, S: ?Sized> {
    stream: StreamId,
    streams: &'a mut S,
}

impl<S: ReceiveStreams + ?Sized> Sink for StreamSink<'_, S> {
    #[inline]
    fn handle_bytes(&mut self, parts: &[&[u8]]) -> Result<usize, Abort> {
        self.streams.handle_bytes(self.stream, parts)
    }
}
