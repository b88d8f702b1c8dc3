//! The send half: a port's transmit queue, and what each connection sends.
//!
//! A segment is born in [`SendHalf::transmit`]: the source is asked for records, a frame for them is taken from the port,
//! the source writes their bytes into it, behind them the headers are stamped. It is sent again by [`SendHalf::pump`], which has
//! the source write the same bytes once more.

mod flow;
mod output;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use flow::Want;
pub(super) use flow::{Fin, SendFlow, SendPhase};
use output::Output;

use super::capture::Capture;
use super::neighbours::{LONGEST_QUESTION, Lookup, Neighbours};
use super::segment::{ACK, Checksums, FIN, HeaderTemplate, Options, PSH, RST, SYN, Segment, Stamp, SynOptions};
use super::sender::{Established, Sender, SenderConfig, TimeoutOutcome, Transmission};
use super::shared::{Acknowledgement, Owed, Report, SackBlocks, SharedFlow};
use super::timer_wheel::TimerWheel;
use super::tuple::Tuple;
use crate::port::Port;
use crate::sequential::contains;
use crate::stream::{Source, StreamId, Streams, Transmitted};
use crate::table::Name;
use crate::time::Instant;

/// RFC 6298 §2.1: how long to wait for an answer to a SYN at first.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(1);
/// Flows whose deadlines are served in one poll.
const EXPIRIES: usize = 256;
/// An acknowledgement that waits for data waits for so many polls at least: the layer above may answer in the next one.
const GRACE_POLLS: u8 = 2;

/// What every connection of an engine has in common.
pub(super) struct SendSettings {
    pub(super) hardware: [u8; 6],
    pub(super) addresses: Vec<(IpAddr, u8)>,
    pub(super) gateways: Vec<IpAddr>,
    pub(super) checksums: Checksums,
    pub(super) sender: SenderConfig,
    pub(super) window_shift: u8,
    pub(super) acknowledgement_delay: Duration,
    pub(super) keep_alive_interval: Duration,
    pub(super) user_timeout: Duration,
}

/// What is sent.
pub(super) struct SendHalf<P: Port> {
    pub(super) output: Output<P::Transmit>,
    flows: Vec<Option<Box<SendFlow>>>,
    /// Flows that owe an acknowledgement, each once.
    owing: Vec<u32>,
    /// Flows that could not send for want of a frame, each once.
    starved: Vec<u32>,
    /// Flows that could not send for want of a neighbour's address, each once.
    unresolved: Vec<u32>,
    serving: Vec<u32>,
    /// Flows whose deadlines may have changed since [`Self::settle`], each once.
    unarmed: Vec<u32>,
    wheel: TimerWheel,
    pub(super) neighbours: Neighbours,
    /// [`Neighbours::news`] when those who wait for one were tried last.
    served_news: u32,
    settings: SendSettings,
    pub(super) transmitted_bytes: u64,
    pub(super) retransmitted_segments: u64,
}

/// What a deadline came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expired {
    /// Nothing that others have to know.
    Served,
    /// The flow has waited long enough: it is to be ended.
    GaveUp {
        /// The next hop never said its Ethernet address.
        unreachable: bool,
    },
}

impl<P: Port> SendHalf<P> {
    pub(super) fn new(queue: P::Transmit, settings: SendSettings, capture: Option<Capture>, now: Instant) -> Self {
        Self {
            output: Output::new(queue, capture),
            flows: Vec::new(),
            owing: Vec::new(),
            starved: Vec::new(),
            unresolved: Vec::new(),
            serving: Vec::new(),
            unarmed: Vec::new(),
            wheel: TimerWheel::new(now),
            neighbours: Neighbours::new(settings.hardware),
            served_news: 0,
            settings,
            transmitted_bytes: 0,
            retransmitted_segments: 0,
        }
    }

    pub(super) fn flow(&self, index: u32) -> Option<&SendFlow> {
        self.flows.get(index as usize)?.as_deref()
    }

    pub(super) fn flow_mut(&mut self, index: u32) -> Option<&mut SendFlow> {
        self.flows.get_mut(index as usize)?.as_deref_mut()
    }

    /// Adds a connection whose SYN, or SYN with ACK, is to be sent; it is given up at `give_up`.
    pub(super) fn open(&mut self, now: Instant, name: Name, flow: SendFlow) {
        self.add(name, flow);
        self.send_handshake(now, name.index);
        self.arm(name.index);
    }

    /// Adds a connection whose SYN with ACK has left already, to a peer that was reached at `hardware`.
    pub(super) fn adopt(&mut self, name: Name, mut flow: SendFlow, hardware: [u8; 6]) {
        // It is used until the neighbour has said its address itself: it will be asked.
        flow.set_hardware(hardware, self.neighbours.version().wrapping_sub(1));
        self.add(name, flow);
    }

    fn add(&mut self, name: Name, flow: SendFlow) {
        let index = name.index as usize;
        if index >= self.flows.len() {
            self.flows.resize_with(index + 1, || None);
        }
        flow.shared.set_in_flight(flow.initial, flow.initial.wrapping_add(1));
        self.flows[index] = Some(Box::new(flow));
    }

    /// Ends a connection here, without a word.
    pub(super) fn remove(&mut self, index: u32) {
        self.wheel.set(index, None);
        if let Some(flow) = self.flows.get_mut(index as usize).and_then(Option::take) {
            self.retransmitted_segments += flow.retransmitted_segments();
            if flow.is_owing {
                self.owing.retain(|other| *other != index);
            }
            match flow.wants {
                Some(Want::Frame) => self.starved.retain(|other| *other != index),
                Some(Want::Neighbour) => self.unresolved.retain(|other| *other != index),
                None => {}
            }
        }
    }

    /// Segments that were sent again, by connections of now and before.
    pub(super) fn all_retransmitted(&self) -> u64 {
        self.retransmitted_segments + self.flows.iter().flatten().map(|flow| flow.retransmitted_segments()).sum::<u64>()
    }

    /// The next hop towards `remote`; `None` if there is no route.
    pub(super) fn next_hop(&self, remote: IpAddr) -> Option<IpAddr> {
        let settings = &self.settings;
        if settings.addresses.iter().any(|&(address, prefix)| contains(address, prefix, remote)) {
            return Some(remote);
        }
        settings.gateways.iter().copied().find(|gateway| gateway.is_ipv4() == remote.is_ipv4())
    }

    /// A new flow's headers and route.
    pub(super) fn new_flow(
        &self,
        (tuple, shared): (Tuple, Arc<SharedFlow>),
        initial: u32,
        phase: SendPhase,
        offer: SynOptions,
    ) -> SendFlow {
        let next_hop = self.next_hop(tuple.remote().ip()).unwrap_or(tuple.remote().ip());
        let header = HeaderTemplate::new(&tuple, self.settings.hardware, [0; 6]);
        SendFlow::new((tuple, shared), initial, phase, offer, header, next_hop)
    }

    /// The handshake is done: `window` is the peer's, as on the wire.
    pub(super) fn establish(
        &mut self,
        now: Instant,
        index: u32,
        (options, segment_size): (SynOptions, usize),
        window: u16,
    ) {
        let settings = self.settings.sender;
        let Some(flow) = self.flow_mut(index) else { return };
        let shift = if flow.phase == SendPhase::SynSent { 0 } else { flow.peer_shift };
        let first_round_trip = (flow.attempts == 1).then(|| now.saturating_since(flow.handshake_sent));
        flow.phase = SendPhase::Open;
        flow.segment_size = segment_size;
        let window_bytes = u64::from(window) << shift;
        flow.shared.note_window(window_bytes as u32);
        flow.shared.set_oldest(flow.initial.wrapping_add(1));
        flow.shared.set_heard(now);
        let established = Established { segment_size, window_bytes, sack: options.sack, first_round_trip };
        flow.sender = Some(Sender::new(&settings, now, established));
        self.arm(index);
    }

    /// Sends or repeats the SYN, or the SYN with ACK.
    fn send_handshake(&mut self, now: Instant, index: u32) {
        if let Some(flow) = self.flow_mut(index) {
            flow.probed = now;
        }
        if !self.is_ready(now, index) {
            return;
        }
        let checksums = self.settings.checksums;
        let Some(flow) = self.flows.get_mut(index as usize).and_then(Option::as_deref_mut) else { return };
        let is_answer = flow.phase == SendPhase::SynReceived;
        let clock = flow.clock(now);
        let announcement = flow.shared.announcement();
        let stamp = Stamp {
            sequence: flow.initial,
            acknowledgement: if is_answer { announcement.next } else { 0 },
            flags: if is_answer { SYN | ACK } else { SYN },
            // RFC 7323 §2.2: the window of a SYN is never scaled.
            window: announcement.edge.wrapping_sub(announcement.next).min(0xffff) as u16,
            options: Options::Syn(&flow.offer, (clock, flow.shared.recent_timestamp())),
        };
        let header = flow.header.length() + stamp.options.length();
        if self.output.build(now, header, |frame| flow.header.stamp(frame, &stamp, checksums)) {
            flow.attempts += 1;
            flow.handshake_sent = now;
            flow.note_sent(announcement, false);
        } else {
            self.starve(index, Want::Frame);
        }
    }

    /// Repeats the SYN with ACK: the peer did not hear it.
    pub(super) fn repeat_handshake(&mut self, now: Instant, index: u32) {
        self.send_handshake(now, index);
        self.arm(index);
    }

    /// Sees to it that the flow knows its next hop's Ethernet address.
    #[inline]
    fn resolve(&mut self, now: Instant, index: u32) -> bool {
        let version = self.neighbours.version();
        let Some(flow) = self.flows.get_mut(index as usize).and_then(Option::as_deref_mut) else { return false };
        if flow.is_resolved && flow.neighbour_version == version {
            return true;
        }
        let (local, next_hop) = (flow.tuple.local().ip(), flow.next_hop);
        if self.settings.addresses.iter().any(|(address, _)| *address == next_hop) {
            let own = self.settings.hardware;
            flow.set_hardware(own, version);
            return true;
        }
        let (hardware, asks) = match self.neighbours.look_up(now, next_hop) {
            Lookup::Known(hardware) => (Some(hardware), false),
            Lookup::Stale(hardware) => (Some(hardware), true),
            Lookup::Ask => (None, true),
            Lookup::Waiting => (None, false),
        };
        if let Some(hardware) = hardware {
            flow.set_hardware(hardware, version);
        }
        let is_resolved = flow.is_resolved;
        if asks {
            let mut question = [0; LONGEST_QUESTION];
            if let Some(length) = self.neighbours.write_question(local, next_hop, &mut question) {
                self.output.send_bytes(now, &question[..length]);
            }
        }
        is_resolved
    }

    /// Has the flow tried again once it can have what it wants.
    fn starve(&mut self, index: u32, want: Want) {
        let Some(flow) = self.flow_mut(index) else { return };
        if flow.wants.is_some() {
            return;
        }
        flow.wants = Some(want);
        match want {
            Want::Frame => self.starved.push(index),
            Want::Neighbour => self.unresolved.push(index),
        }
    }

    /// Whether a frame can be sent for the flow now. If not, it is tried again.
    #[inline]
    fn is_ready(&mut self, now: Instant, index: u32) -> bool {
        if !self.output.has_room() {
            self.starve(index, Want::Frame);
            return false;
        }
        if !self.resolve(now, index) {
            self.starve(index, Want::Neighbour);
            return false;
        }
        true
    }

    /// Takes records from `source` and sends them, see [`crate::stream::Engine::transmit`].
    pub(super) fn transmit(&mut self, now: Instant, index: u32, source: &mut dyn Source) -> Transmitted {
        let Some(flow) = self.flow_mut(index) else { return Transmitted::Gone };
        if flow.fin != Fin::None {
            return Transmitted::Gone;
        }
        if flow.sender.is_none() {
            flow.is_blocked = true;
            return Transmitted::Blocked;
        }
        let before = flow.committed;
        let outcome = self.take_records(now, index, source);
        let Some(flow) = self.flow_mut(index) else { return Transmitted::Gone };
        flow.is_blocked = outcome == Transmitted::Blocked;
        let taken = flow.committed - before;
        self.transmitted_bytes += taken;
        self.arm(index);
        outcome
    }

    fn take_records(&mut self, now: Instant, index: u32, source: &mut dyn Source) -> Transmitted {
        let mut is_drained = false;
        loop {
            if !self.is_ready(now, index) {
                return Transmitted::Blocked;
            }
            let Some(flow) = self.flow_mut(index) else { return Transmitted::Gone };
            let Some(sender) = &mut flow.sender else { return Transmitted::Blocked };
            let room = match sender.poll_segment(now) {
                None => return Transmitted::Blocked,
                Some(Transmission::Retransmit { start, length }) => {
                    if !self.send_range(now, index, (start, length), source) {
                        return Transmitted::Blocked;
                    }
                    continue;
                }
                Some(Transmission::New { room }) => room,
            };
            let next = sender.next_offset();
            let full = flow.segment_size;
            if flow.committed == next {
                if room < full && !flow.takes_crumbs(room) {
                    return Transmitted::Blocked;
                }
                // RFC 5044 §4: several FPDUs may share a segment, as long as none of them is cut.
                while !is_drained
                    && flow.committed - next < full as u64
                    && let Some(record) = source.next(full - (flow.committed - next) as usize)
                {
                    flow.committed = record.end();
                    is_drained = !source.has_more();
                }
                if flow.committed == next {
                    if flow.handle_drained(now) {
                        continue;
                    }
                    return Transmitted::Drained;
                }
            }
            let length = (flow.committed - next).min(room as u64) as u32;
            let is_crumb = room < full && !flow.takes_crumbs(room);
            if is_crumb || !self.send_range(now, index, (next, length), source) {
                return Transmitted::Blocked;
            }
            // Nothing is left, and nothing is being repaired in whose place something old would be due.
            if is_drained && self.flow(index).is_some_and(SendFlow::is_plain) {
                return Transmitted::Drained;
            }
        }
    }

    /// Sends what is due and needs nothing new from the layer above: lost segments, the rest of a record, FIN. Whether the
    /// flow has room for more.
    pub(super) fn pump(&mut self, now: Instant, name: Name, streams: &mut dyn Streams) -> bool {
        let index = name.index;
        loop {
            let Some(flow) = self.flow_mut(index) else { return false };
            let Some(sender) = &mut flow.sender else { return false };
            let (start, length) = match sender.poll_segment(now) {
                None => return false,
                Some(Transmission::Retransmit { start, length }) => (start, length),
                Some(Transmission::New { room }) => {
                    let next = sender.next_offset();
                    let end = flow.committed + u64::from(flow.fin == Fin::Due);
                    if next == end || flow.fin == Fin::Sent {
                        // The layer above was asked last time, and had nothing.
                        if !flow.is_blocked && flow.handle_drained(now) {
                            continue;
                        }
                        return room >= flow.segment_size || flow.takes_crumbs(room);
                    }
                    if room < flow.segment_size && end - next > room as u64 && !flow.takes_crumbs(room) {
                        return false;
                    }
                    (next, (end - next).min(room as u64) as u32)
                }
            };
            if !self.is_ready(now, index) {
                return false;
            }
            let flow_end = self.flow(index).map_or(0, |flow| flow.committed);
            let mut sent = false;
            if start >= flow_end {
                // Nothing but the FIN.
                sent = self.send_range(now, index, (start, length), &mut NoSource);
            } else {
                streams.with_source(StreamId::from(name), &mut |source| {
                    sent = self.send_range(now, index, (start, length), source);
                });
            }
            if !sent {
                return false;
            }
        }
    }

    /// Sends `length` places of the stream from `start` on; the last may be the FIN's. Whether they left.
    fn send_range(&mut self, now: Instant, index: u32, (start, length): (u64, u32), source: &mut dyn Source) -> bool {
        let settings = &self.settings;
        let Some(flow) = self.flows.get_mut(index as usize).and_then(Option::as_deref_mut) else { return false };
        let end = start + u64::from(length);
        let has_fin = end > flow.committed;
        let payload = length as usize - usize::from(has_fin);
        let mut flags = ACK;
        if has_fin {
            flags |= FIN;
        }
        if end >= flow.committed || payload < flow.segment_size {
            flags |= PSH;
        }
        // The announcement first: with a new one goes the timestamp that came with it, or a newer one.
        let announcement = flow.shared.announcement();
        let options = flow.data_options(now);
        let stamp = flow.stamp(start, flags, options, announcement, settings.window_shift);
        flow.note_leaving(end);
        let header = flow.header.length() + options.length();
        let template = &flow.header;
        let sent = self.output.build(now, header + payload, |frame| {
            if payload > 0 {
                source.write(start, &mut frame[header..]);
            }
            template.stamp(frame, &stamp, settings.checksums)
        });
        if !sent {
            self.starve(index, Want::Frame);
            return false;
        }
        let Some(sender) = &mut flow.sender else { return false };
        if start == sender.next_offset() {
            sender.sent_new(start, length, now);
            flow.may_crumble = false;
        } else {
            sender.sent_again(start, length, now);
        }
        if has_fin {
            flow.fin = Fin::Sent;
        }
        flow.note_sent(announcement, true);
        true
    }

    /// Takes in what a received segment said; whether the flow may have room for more now.
    pub(super) fn handle_acknowledgement(
        &mut self,
        now: Instant,
        name: Name,
        said: &Acknowledgement,
        streams: &mut dyn Streams,
    ) -> bool {
        let Some(flow) = self.flow_mut(name.index) else { return false };
        let Some((source_through, before)) = flow.handle_acknowledgement(now, said) else { return false };
        if source_through > before {
            streams.with_source(StreamId::from(name), &mut |source| source.handle_acknowledged(source_through));
        }
        let has_room = self.pump(now, name, streams);
        self.arm(name.index);
        has_room
    }

    /// The flow owes an acknowledgement.
    pub(super) fn handle_owed(&mut self, now: Instant, index: u32, owed: Owed, report: Report) {
        let Some(flow) = self.flow_mut(index) else { return };
        flow.report = report;
        // Whatever left meanwhile said it all.
        if owed < Owed::Pure && flow.shared.told() == flow.shared.announcement() {
            return;
        }
        if flow.owed == Owed::Nothing {
            flow.owed_since = now;
            flow.owed_polls = 0;
        }
        flow.owed = flow.owed.max(owed);
        if !std::mem::replace(&mut flow.is_owing, true) {
            self.owing.push(index);
        }
    }

    /// Sends the acknowledgements that nothing carried. One that may wait is sent once it has waited long enough; `polled`
    /// says that a poll has begun.
    pub(super) fn send_owed(&mut self, now: Instant, polled: bool) {
        if self.owing.is_empty() {
            return;
        }
        let mut kept = 0;
        for place in 0..self.owing.len() {
            let index = self.owing[place];
            let longest = self.settings.acknowledgement_delay;
            let Some(flow) = self.flow_mut(index) else { continue };
            flow.owed_polls = flow.owed_polls.saturating_add(u8::from(polled));
            let waits = flow.owed == Owed::Soon
                && (flow.owed_polls < GRACE_POLLS || now < flow.acknowledgement_deadline(longest));
            let is_done = flow.owed == Owed::Nothing || (!waits && self.send_acknowledgement(now, index));
            if is_done {
                if let Some(flow) = self.flow_mut(index) {
                    flow.is_owing = false;
                }
            } else {
                self.owing[kept] = index;
                kept += 1;
            }
        }
        self.owing.truncate(kept);
    }

    /// When [`Self::send_owed`] has something to do.
    pub(super) fn owed_deadline(&self, now: Instant) -> Option<Instant> {
        let index = *self.owing.first()?;
        let flow = self.flow(index)?;
        let longest = self.settings.acknowledgement_delay;
        Some(if flow.owed == Owed::Soon { flow.acknowledgement_deadline(longest) } else { now })
    }

    /// Sends a segment without data now.
    pub(super) fn send_acknowledgement(&mut self, now: Instant, index: u32) -> bool {
        if !self.output.has_room() || !self.resolve(now, index) {
            return false;
        }
        let settings = &self.settings;
        let Some(flow) = self.flows.get_mut(index as usize).and_then(Option::as_deref_mut) else { return false };
        let announcement = flow.shared.announcement();
        // RFC 2018 §2: only to whom asked for it. RFC 2883 §4: what has been acknowledged since would pass for a duplicate.
        let sack = match flow.offer.sack {
            true => flow.report.blocks.beyond(announcement.next, flow.report.has_duplicate),
            false => SackBlocks::default(),
        };
        let options = Options::Sack(flow.timestamps(now), &sack);
        let stamp = flow.stamp(flow.next_place(), ACK, options, announcement, settings.window_shift);
        let header = flow.header.length() + options.length();
        let template = &flow.header;
        if !self.output.build(now, header, |frame| template.stamp(frame, &stamp, settings.checksums)) {
            return false;
        }
        flow.note_sent(announcement, false);
        true
    }

    /// RFC 9293 §3.8.4: a segment that the peer has to answer, with a number that it has acknowledged already.
    fn send_probe(&mut self, now: Instant, index: u32) {
        if !self.output.has_room() || !self.resolve(now, index) {
            return;
        }
        let settings = &self.settings;
        let Some(flow) = self.flows.get_mut(index as usize).and_then(Option::as_deref_mut) else { return };
        // The announcement first: with a new one goes the timestamp that came with it, or a newer one.
        let announcement = flow.shared.announcement();
        let options = flow.data_options(now);
        let mut stamp = flow.stamp(flow.next_place(), ACK, options, announcement, settings.window_shift);
        stamp.sequence = flow.oldest_sequence().wrapping_sub(1);
        let header = flow.header.length() + options.length();
        let template = &flow.header;
        self.output.build(now, header, |frame| template.stamp(frame, &stamp, settings.checksums));
    }

    /// Resets the peer's end of a connection, as far as a frame can be had.
    pub(super) fn send_reset(&mut self, now: Instant, index: u32) {
        if !self.output.has_room() || !self.resolve(now, index) {
            return;
        }
        let settings = &self.settings;
        let Some(flow) = self.flows.get_mut(index as usize).and_then(Option::as_deref_mut) else { return };
        if flow.phase == SendPhase::SynSent {
            return;
        }
        let stamp =
            flow.stamp(flow.next_place(), RST | ACK, Options::None, flow.shared.announcement(), settings.window_shift);
        let template = &flow.header;
        self.output.build(now, template.length(), |frame| template.stamp(frame, &stamp, settings.checksums));
    }

    /// Answers a segment of no connection: back to where the frame came from. Lost if there is no frame for it.
    pub(super) fn send_answer(&mut self, now: Instant, to: &Segment, stamp: &Stamp<'_>) {
        if !self.output.has_room() {
            return;
        }
        let template = HeaderTemplate::new(&to.tuple, self.settings.hardware, to.hardware_source);
        let checksums = self.settings.checksums;
        let length = template.length() + stamp.options.length();
        self.output.build(now, length, |frame| template.stamp(frame, stamp, checksums));
    }

    /// Ends our direction behind everything taken so far.
    pub(super) fn close(&mut self, now: Instant, index: u32) {
        let Some(flow) = self.flow_mut(index) else { return };
        if flow.fin != Fin::None {
            return;
        }
        flow.fin = Fin::Due;
        flow.is_blocked = false;
        let Some(sender) = &mut flow.sender else { return };
        // What is lost is sent from the next poll, where its source is at hand.
        if flow.committed == sender.next_offset()
            && matches!(sender.poll_segment(now), Some(Transmission::New { room: 1.. }))
            && self.output.has_room()
            && self.resolve(now, index)
        {
            let start = self.flow(index).map_or(0, |flow| flow.committed);
            self.send_range(now, index, (start, 1), &mut NoSource);
        } else {
            self.starve(index, Want::Frame);
        }
        self.arm(index);
    }

    /// Flows that waited and should try again: for frames, once there are any; for a neighbour, once something is known that
    /// was not.
    pub(super) fn take_starved(&mut self) -> Option<Vec<u32>> {
        let news = self.neighbours.news();
        let is_news = std::mem::replace(&mut self.served_news, news) != news;
        self.serving.clear();
        if !self.starved.is_empty() && self.output.has_room() {
            self.serving.append(&mut self.starved);
        }
        if is_news {
            self.serving.append(&mut self.unresolved);
        }
        if self.serving.is_empty() {
            return None;
        }
        for &index in &self.serving {
            if let Some(flow) = self.flows.get_mut(index as usize).and_then(Option::as_deref_mut) {
                flow.wants = None;
            }
        }
        Some(std::mem::take(&mut self.serving))
    }

    /// Gives back what [`Self::take_starved`] or [`Self::take_expired`] gave, to keep its memory.
    pub(super) fn give_back(&mut self, list: Vec<u32>) {
        self.serving = list;
    }

    /// Tries a starved flow again; whether it has room for more.
    pub(super) fn retry(&mut self, now: Instant, name: Name, streams: &mut dyn Streams) -> bool {
        let Some(flow) = self.flow_mut(name.index) else { return false };
        let has_room = if flow.sender.is_none() {
            self.send_handshake(now, name.index);
            false
        } else {
            self.pump(now, name, streams)
        };
        self.arm(name.index);
        has_room
    }

    /// Flows whose deadline has come.
    pub(super) fn take_expired(&mut self, now: Instant) -> Option<Vec<u32>> {
        self.settle();
        self.serving.clear();
        self.wheel.expire(now, &mut self.serving, EXPIRIES);
        if self.serving.is_empty() { None } else { Some(std::mem::take(&mut self.serving)) }
    }

    /// Serves a flow whose deadline has come; whether it has room for more besides.
    pub(super) fn handle_deadline(&mut self, now: Instant, name: Name, streams: &mut dyn Streams) -> (Expired, bool) {
        let index = name.index;
        let Some(flow) = self.flow_mut(index) else { return (Expired::Served, false) };
        if flow.sender.is_none() {
            if now >= flow.give_up {
                return (Expired::GaveUp { unreachable: flow.attempts == 0 }, false);
            }
            if flow.attempts == 0 || now >= flow.handshake_deadline() {
                self.send_handshake(now, index);
            }
            self.arm(index);
            return (Expired::Served, false);
        }
        let heard = flow.shared.heard();
        let outcome = flow.sender.as_mut().map_or(TimeoutOutcome::Nothing, |sender| {
            sender.note_heard(heard);
            sender.handle_timeout(now)
        });
        let mut has_room = false;
        match outcome {
            TimeoutOutcome::GiveUp => return (Expired::GaveUp { unreachable: false }, false),
            TimeoutOutcome::RetransmitDue => {
                flow.timeouts += 1;
                if flow.timeouts.is_multiple_of(3) {
                    let next_hop = flow.next_hop;
                    self.neighbours.doubt(next_hop);
                }
                has_room = self.pump(now, name, streams);
            }
            TimeoutOutcome::Nothing => {}
        }
        if self.keep_alive(now, index) {
            return (Expired::GaveUp { unreachable: false }, false);
        }
        if self.flow(index).is_some_and(|flow| flow.may_crumble) {
            has_room |= self.pump(now, name, streams);
        }
        self.arm(index);
        (Expired::Served, has_room)
    }

    /// RFC 9293 §3.8.4 and §3.8.6.1: probes a peer that has been silent, or whose window is closed. Whether it is dead.
    fn keep_alive(&mut self, now: Instant, index: u32) -> bool {
        let (interval, user_timeout) = (self.settings.keep_alive_interval, self.settings.user_timeout);
        let Some(flow) = self.flow_mut(index) else { return false };
        let Some(at) = flow.probe_deadline(interval, user_timeout) else { return false };
        if at > now {
            return false;
        }
        let silent = now.saturating_since(flow.shared.heard());
        if silent >= user_timeout && flow.probes > 1 {
            return true;
        }
        flow.probes = flow.probes.saturating_add(1);
        flow.probed = now;
        flow.may_crumble = flow.wants_window() && flow.sender.as_ref().is_some_and(|sender| sender.window_room() > 0);
        if !flow.may_crumble {
            self.send_probe(now, index);
        }
        false
    }

    /// Has the flow's deadline looked at once everything else is done.
    #[inline]
    fn arm(&mut self, index: u32) {
        if let Some(flow) = self.flows.get_mut(index as usize).and_then(Option::as_deref_mut)
            && !std::mem::replace(&mut flow.is_unarmed, true)
        {
            self.unarmed.push(index);
        }
    }

    /// Sets the deadlines of all flows whose state has changed: once for whatever has happened to them, and behind the frames
    /// that leave.
    #[inline]
    pub(super) fn settle(&mut self) {
        while let Some(index) = self.unarmed.pop() {
            self.arm_now(index);
        }
    }

    /// Sees to it that the flow is looked at no later than at the earliest deadline that it has. Sooner does no harm: then the
    /// next one is found. So what moves on with every segment is not moved in the wheel.
    fn arm_now(&mut self, index: u32) {
        let (interval, user_timeout) = (self.settings.keep_alive_interval, self.settings.user_timeout);
        let Some(flow) = self.flows.get_mut(index as usize).and_then(Option::as_deref_mut) else { return };
        flow.is_unarmed = false;
        let at = match &flow.sender {
            None => Some(flow.give_up.min(flow.handshake_deadline())),
            Some(sender) => {
                let probe = flow.probe_deadline(interval, user_timeout);
                [sender.next_deadline(), probe].into_iter().flatten().min()
            }
        };
        if !self.wheel.is_due_by(index, at) {
            self.wheel.set(index, at);
        }
    }

    /// The earliest deadline of any flow, or something before it.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.wheel.next()
    }

    /// Flows wait for a neighbour, and something has been learnt since they were tried.
    pub(super) fn has_neighbour_news(&self) -> bool {
        !self.unresolved.is_empty() && self.served_news != self.neighbours.news()
    }

    /// Flows wait for a frame.
    pub(super) fn is_starved(&self) -> bool {
        !self.starved.is_empty()
    }
}

/// The source of a segment that has no bytes.
struct NoSource;

impl Source for NoSource {
    fn next(&mut self, _room: usize) -> Option<crate::stream::Record> {
        None
    }

    fn write(&mut self, _start: u64, _out: &mut [u8]) {}

    fn handle_acknowledged(&mut self, _through: u64) {}
}
