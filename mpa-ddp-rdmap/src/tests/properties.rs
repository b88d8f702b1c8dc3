//! What holds whatever is posted, however bytes are cut, and whoever is behind with acknowledging.

use proptest::prelude::*;

use crate::testing::frames::*;
use crate::testing::*;
use crate::wire::RdmapOpcode;
use crate::*;

/// Bytes of each end's source region, which never changes.
const SOURCE: usize = 8192;
/// Bytes of each end's sink region; every request and every receive has a place of its own in it.
const SINK: usize = 1 << 20;
const SINK_BASE: u64 = 0x7000_0000_0000;
const COUNTERS: usize = 4;
const RECEIVE: u64 = 4096;

#[derive(Clone, Copy, Debug)]
enum Kind {
    Send,
    SendInline,
    SendInvalidate,
    Write,
    WriteImmediate,
    Immediate,
    Read,
    ReadScattered,
    FetchAdd,
    LocalInvalidate,
}

#[derive(Clone, Debug)]
enum Command {
    Post { kind: Kind, length: u16, flags: u8 },
    PostReceive,
    Transmit { records: u8, room: u16 },
    Arrive { bytes: u16, slices: Vec<u16> },
    Acknowledge { bytes: u16 },
    Rewrite { from: u16, length: u16 },
    SegmentSize { bytes: u16 },
}

fn command() -> impl Strategy<Value = (bool, Command)> {
    use Kind::*;
    let kind = prop::sample::select(vec![
        Send,
        SendInline,
        SendInvalidate,
        Write,
        WriteImmediate,
        Immediate,
        Read,
        ReadScattered,
        FetchAdd,
        LocalInvalidate,
    ]);
    let command = prop_oneof![
        6 => (kind, 0u16..4000, any::<u8>()).prop_map(|(kind, length, flags)| Command::Post { kind, length, flags }),
        3 => Just(Command::PostReceive),
        6 => (1u8..20, 500u16..10_000).prop_map(|(records, room)| Command::Transmit { records, room }),
        6 => (any::<u16>(), prop::collection::vec(0u16..700, 0..6))
            .prop_map(|(bytes, slices)| Command::Arrive { bytes: bytes % 6000, slices }),
        4 => (0u16..6000).prop_map(|bytes| Command::Acknowledge { bytes }),
        2 => (any::<u16>(), 1u16..4000).prop_map(|(from, length)| Command::Rewrite { from, length }),
        1 => (300u16..9000).prop_map(|bytes| Command::SegmentSize { bytes }),
    ];
    (any::<bool>(), command)
}

/// One end, what it put on the wire, and what its sink must hold in the end.
struct End {
    endpoint: Endpoint,
    source: Stag,
    sink: Stag,
    counters: Stag,
    /// Everything it sent, from [`START`] on.
    stream: Vec<u8>,
    /// How much of it the peer has consumed, and how much is acknowledged.
    consumed: usize,
    acknowledged: usize,
    shadow: Vec<u8>,
    shadow_counters: [u64; COUNTERS],
    free: u64,
    /// Places of the receives, and messages that will take them, in order.
    receives: Vec<u64>,
    messages: Vec<Option<Vec<u8>>>,
    posted: Vec<(u64, bool)>,
}

impl End {
    fn new(role: Role, crc: bool, retention: Retention, depth: u32, reads: u16) -> Self {
        let negotiated = Negotiated { crc, ird: reads, ord: reads, ..agreed(role) };
        let limits = Limits { send_queue_depth: depth, ..Limits::default() };
        let endpoint = Endpoint::with(&negotiated, &limits, retention);
        let source = endpoint.memory.register(0, SOURCE);
        let salt = if role == Role::Initiator { 3 } else { 5 };
        let data: Vec<u8> = (0..SOURCE).map(|index| (index * salt % 253) as u8 | 1).collect();
        endpoint.memory.write(source, 0, &data);
        let sink = endpoint.memory.register(SINK_BASE, SINK);
        let counters = endpoint.memory.register(0, 8 * COUNTERS);
        Self {
            endpoint,
            source,
            sink,
            counters,
            stream: Vec::new(),
            consumed: 0,
            acknowledged: 0,
            shadow: vec![0; SINK],
            shadow_counters: [0; COUNTERS],
            free: SINK_BASE,
            receives: Vec::new(),
            messages: Vec::new(),
            posted: Vec::new(),
        }
    }

    /// A place of `length` bytes that nothing else uses, with a gap behind it that must stay zero.
    fn place(&mut self, length: u64) -> u64 {
        let place = self.free.next_multiple_of(8);
        self.free = place + length + 1;
        assert!(self.free < SINK_BASE + SINK as u64, "the sink is large enough");
        place
    }

    fn data(&self, from: usize, length: usize) -> Vec<u8> {
        self.endpoint.memory.read(self.source, from as u64, length)
    }

    fn expect(&mut self, place: u64, bytes: &[u8]) {
        let start = (place - SINK_BASE) as usize;
        self.shadow[start..start + bytes.len()].copy_from_slice(bytes);
    }

    fn post_receive(&mut self) {
        let place = self.place(RECEIVE);
        let third = RECEIVE as u32 / 3;
        let sink = self.sink;
        let pieces = [
            segment(sink, place, third),
            segment(sink, place + u64::from(third), third),
            segment(sink, place + 2 * u64::from(third), RECEIVE as u32 - 2 * third),
        ];
        self.endpoint.post_receive(self.receives.len() as u64, &pieces);
        self.receives.push(place);
    }

    fn transmit(&mut self, records: usize, room: usize) -> usize {
        self.endpoint.exchange();
        for count in 0..records {
            let endpoint = &mut self.endpoint;
            let record = endpoint.outbound.next(room, &endpoint.memory, &mut endpoint.upper);
            endpoint.exchange();
            let Some(record) = record else { return count };
            assert!(record.length as usize <= room);
            assert_eq!(record.start, START + self.stream.len() as u64, "no gaps");
            let start = self.stream.len();
            self.stream.resize(start + record.length as usize, 0xee);
            endpoint.outbound.write(record.start, &mut self.stream[start..], &endpoint.memory);
        }
        records
    }

    fn acknowledge(&mut self, bytes: usize) {
        self.acknowledged = (self.acknowledged + bytes).min(self.stream.len());
        let endpoint = &mut self.endpoint;
        let through = START + self.acknowledged as u64;
        endpoint.outbound.handle_acknowledged(through, &endpoint.memory, &mut endpoint.upper);
        endpoint.exchange();
    }

    fn rewrite(&mut self, from: usize, length: usize) {
        let unacknowledged = self.stream.len() - self.acknowledged;
        if unacknowledged == 0 {
            return;
        }
        let from = self.acknowledged + from % unacknowledged;
        let to = (from + length).min(self.stream.len());
        let mut again = vec![0x11; to - from];
        self.endpoint.outbound.write(START + from as u64, &mut again, &self.endpoint.memory);
        assert_eq!(again, self.stream[from..to], "the same bytes again");
    }
}

struct World {
    ends: [End; 2],
}

impl World {
    fn new(crc: bool, retention: Retention, depth: u32, reads: u16) -> Self {
        let end = |role| End::new(role, crc, retention, depth, reads);
        Self { ends: [end(Role::Initiator), end(Role::Responder)] }
    }

    /// The end at `index`, and its peer.
    fn both(&mut self, index: usize) -> (&mut End, &mut End) {
        let [a, b] = &mut self.ends;
        if index == 0 { (a, b) } else { (b, a) }
    }

    fn run(&mut self, index: usize, command: Command) {
        let (end, peer) = self.both(index);
        match command {
            Command::Post { kind, length, flags } => post(end, peer, kind, usize::from(length), flags),
            Command::PostReceive => end.post_receive(),
            Command::Transmit { records, room } => {
                end.transmit(usize::from(records), usize::from(room));
            }
            Command::Arrive { bytes, slices } => arrive(end, peer, usize::from(bytes), &slices),
            Command::Acknowledge { bytes } => end.acknowledge(usize::from(bytes)),
            Command::Rewrite { from, length } => end.rewrite(usize::from(from), usize::from(length)),
            Command::SegmentSize { bytes } => end.endpoint.outbound.set_segment_size(usize::from(bytes)),
        }
    }

    /// Lets everything happen that can, and checks the outcome.
    fn finish(mut self) {
        for round in 0.. {
            assert!(round < 10_000, "a queue is stuck");
            let mut progress = false;
            for index in 0..2 {
                let (end, peer) = self.both(index);
                if peer.endpoint.inbound.is_waiting_for_receive() {
                    peer.post_receive();
                    progress = true;
                }
                progress |= end.transmit(1000, 10_000) > 0;
                let before = end.consumed;
                let all = end.stream.len() - end.consumed;
                arrive(end, peer, all, &[]);
                progress |= end.consumed > before || end.acknowledged < end.stream.len();
                // It gets its receive in the next round.
                progress |= peer.endpoint.inbound.is_waiting_for_receive();
                end.acknowledge(usize::MAX / 2);
            }
            if !progress {
                break;
            }
        }
        for index in 0..2 {
            self.check(index);
        }
    }

    fn check(&mut self, index: usize) {
        let (end, _) = self.both(index);
        let endpoint = &end.endpoint;
        assert!(endpoint.outbound.is_idle(), "end {index} is stuck");
        assert!(!endpoint.outbound.has_work());
        let completed: Vec<_> = endpoint.upper.sent.iter().map(|c| (c.id, c.signaled)).collect();
        assert_eq!(completed, end.posted, "each request once, in order");
        assert!(endpoint.upper.sent.iter().all(|completion| completion.status == Status::Success));

        let messages = std::mem::take(&mut end.messages);
        assert_eq!(end.endpoint.upper.received.len(), messages.len(), "each message once");
        for (number, message) in messages.iter().enumerate() {
            let completion = end.endpoint.upper.received[number];
            assert_eq!((completion.id, completion.status), (number as u64, Status::Success));
            if let Some(bytes) = message {
                assert_eq!((completion.opcode, completion.length), (Opcode::Receive, bytes.len() as u32));
                end.expect(end.receives[number], bytes);
            } else {
                assert_eq!(completion.opcode, Opcode::ReceiveImmediate);
            }
        }
        assert!(
            end.endpoint.memory.read(end.sink, SINK_BASE, SINK) == end.shadow,
            "placed bytes equal the shadow copy"
        );
        let counters: Vec<u8> = end.shadow_counters.iter().flat_map(|counter| counter.to_ne_bytes()).collect();
        assert_eq!(end.endpoint.memory.read(end.counters, 0, 8 * COUNTERS), counters);
        assert_eq!(end.endpoint.memory.holds(), 0);
    }
}

/// Posts a request at `end`, and notes at both what must come of it.
fn post(end: &mut End, peer: &mut End, kind: Kind, length: usize, flags: u8) {
    let id = end.posted.len() as u64;
    let from = usize::from(flags) * 16;
    let length = if matches!(kind, Kind::SendInline) { length % (MAX_INLINE + 1) } else { length };
    let data = end.data(from, length);
    let half = length / 3;
    let pieces = [
        segment(end.source, from as u64, half as u32),
        segment(end.source, (from + half) as u64, (length - half) as u32),
    ];
    let payload = Payload::Segments(SegmentList::new(&pieces).unwrap());
    let mut message = None;
    let mut writes = None;
    let mut reads = Vec::new();
    let mut count = None;
    let operation = match kind {
        Kind::Send | Kind::SendInvalidate => {
            message = Some(Some(data));
            let invalidate = matches!(kind, Kind::SendInvalidate).then(|| peer.endpoint.memory.register(0, 1));
            Operation::Send { payload, invalidate }
        }
        Kind::SendInline => {
            message = Some(Some(data.clone()));
            send_inline(&data)
        }
        Kind::Immediate => {
            message = Some(None);
            Operation::Immediate { data: [flags; 8] }
        }
        Kind::Write | Kind::WriteImmediate => {
            let place = peer.place(length as u64);
            let immediate = matches!(kind, Kind::WriteImmediate).then_some([flags; 8]);
            message = immediate.map(|_| None);
            writes = Some((place, data));
            Operation::Write { payload, target: address(peer.sink, place), immediate }
        }
        Kind::Read | Kind::ReadScattered => {
            let parts = if matches!(kind, Kind::Read) { vec![length] } else { vec![half, 0, length - half] };
            let mut at = from;
            let sinks: Vec<Segment> = parts
                .into_iter()
                .map(|part| {
                    let place = end.place(part as u64);
                    reads.push((place, peer.data(at, part)));
                    at += part;
                    segment(end.sink, place, part as u32)
                })
                .collect();
            let source = address(peer.source, from as u64);
            Operation::Read { sinks: SegmentList::new(&sinks).unwrap(), source, invalidate: None }
        }
        Kind::FetchAdd => {
            let (counter, place) = (usize::from(flags) % COUNTERS, end.place(8));
            reads.push((place, peer.shadow_counters[counter].to_ne_bytes().to_vec()));
            count = Some((counter, length as u64));
            Operation::Atomic {
                sink: segment(end.sink, place, 8),
                target: address(peer.counters, 8 * counter as u64),
                operation: AtomicOperation::FetchAdd { add: length as u64, mask: 0 },
            }
        }
        Kind::LocalInvalidate => Operation::LocalInvalidate { stag: end.endpoint.memory.register(0, 1) },
    };
    let (signaled, solicited, fence) = (flags & 1 != 0, flags & 2 != 0, flags & 12 == 12);
    match end.endpoint.outbound.post(SendRequest { id, operation, signaled, solicited, fence }) {
        Ok(()) => {}
        Err(PostError::QueueFull { .. }) => return,
        Err(error) => panic!("{error}"),
    }
    end.posted.push((id, signaled));
    peer.messages.extend(message);
    if let Some((place, bytes)) = writes {
        peer.expect(place, &bytes);
    }
    for (place, bytes) in reads {
        end.expect(place, &bytes);
    }
    if let Some((counter, add)) = count {
        peer.shadow_counters[counter] += add;
    }
}

/// Like [`offer`], and the peer's other half takes what it is told.
fn arrive(end: &mut End, peer: &mut End, bytes: usize, slices: &[u16]) {
    peer.endpoint.exchange();
    offer(end, peer, bytes, slices);
    peer.endpoint.exchange();
}

/// Offers the next bytes that `end` sent to `peer`, in slices of the given lengths, the last one as long as it takes.
fn offer(end: &mut End, peer: &mut End, bytes: usize, slices: &[u16]) {
    let offered = &end.stream[end.consumed..(end.consumed + bytes).min(end.stream.len())];
    let mut rest = offered;
    let mut parts = Vec::new();
    for &slice in slices {
        let (part, behind) = rest.split_at(usize::from(slice).min(rest.len()));
        parts.push(part);
        rest = behind;
    }
    parts.push(rest);
    let to = &mut peer.endpoint;
    let consumed = to.inbound.handle_bytes(&parts, &to.memory, &mut to.upper).expect("the peer does nothing wrong");
    assert!(consumed <= offered.len());
    end.consumed += consumed;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_posted_happens_once_in_order_and_nowhere_else(
        commands in prop::collection::vec(command(), 1..80),
        crc in any::<bool>(),
        kept in any::<bool>(),
        depth in 1u32..30,
        reads in 1u16..6,
    ) {
        let retention = if kept { Retention::UntilAcknowledged } else { Retention::None };
        let mut world = World::new(crc, retention, depth, reads);
        for (side, command) in commands {
            world.run(usize::from(side), command);
        }
        // A responder is silent until the initiator has spoken. Either something leaves here, or there is room for the Write.
        world.run(0, Command::Transmit { records: 255, room: 10_000 });
        world.run(0, Command::Post { kind: Kind::Write, length: 1, flags: 1 });
        world.finish();
    }

    #[test]
    fn a_stream_cut_anywhere_gives_the_same_events(
        posts in prop::collection::vec((0usize..9, 0u16..4000, any::<u8>()), 1..12),
        cuts in prop::collection::vec(prop::collection::vec(0u16..900, 0..5), 1..50),
        steps in prop::collection::vec(0u16..3000, 1..50),
    ) {
        use Kind::*;
        let kinds = [Send, SendInline, SendInvalidate, Write, WriteImmediate, Immediate, Read, ReadScattered, FetchAdd];
        let seen = |cuts: &[Vec<u16>], steps: &[u16]| {
            // More reads may be outstanding than there are requests: nothing is answered.
            let mut world = World::new(true, Retention::None, 100, 64);
            for end in &mut world.ends {
                let negotiated = Negotiated { ird: 64, ord: 64, ..agreed(Role::Initiator) };
                let limits = Limits { receive_read_requests: 64, send_read_requests: 64, ..Limits::default() };
                end.endpoint.inbound = Inbound::new(&negotiated, &limits);
                end.endpoint.outbound = Outbound::new(&negotiated, &limits, START, Retention::None);
                end.endpoint.outbound.set_segment_size(1460);
            }
            for &(kind, length, flags) in &posts {
                let kind = kinds[kind];
                world.run(0, Command::Post { kind, length, flags });
                world.run(1, Command::PostReceive);
            }
            let (from, to) = world.both(0);
            from.transmit(1000, MAX_FPDU);
            let mut turns = steps.iter().zip(cuts.iter().cycle());
            let mut window = 0;
            while from.consumed < from.stream.len() {
                match turns.next() {
                    Some((&step, cut)) => {
                        window = (window + usize::from(step)).min(from.stream.len() - from.consumed);
                        let before = from.consumed;
                        offer(from, to, window, cut);
                        window -= from.consumed - before;
                    }
                    None => {
                        let all = from.stream.len() - from.consumed;
                        offer(from, to, all, &[]);
                    }
                }
            }
            let told: Vec<String> = to.endpoint.upper.to_outbound.iter().map(|message| format!("{message:?}")).collect();
            (
                to.endpoint.upper.received.clone(),
                told,
                to.endpoint.memory.read(to.sink, SINK_BASE, SINK),
                to.endpoint.inbound.statistics(),
            )
        };
        let whole = seen(&[vec![]], &[]);
        let cut = seen(&cuts, &steps);
        prop_assert!(whole == cut, "whole: {:?}\ncut: {:?}", (&whole.0, &whole.1, &whole.3), (&cut.0, &cut.1, &cut.3));
    }

    #[test]
    fn garbage_is_refused_or_taken_but_never_leaves_its_place(
        frames in prop::collection::vec((0u8..16, 0u32..5, 0u32..4, 0u32..50, 0usize..60, any::<u16>()), 1..20),
        flips in prop::collection::vec((any::<u16>(), 0u8..8), 0..4),
    ) {
        let negotiated = Negotiated { crc: false, ..agreed(Role::Initiator) };
        let mut endpoint = Endpoint::new(&negotiated);
        let guarded = endpoint.memory.register(0x1000, 512);
        let open = endpoint.memory.register(0x1000, 64);
        endpoint.memory.change(guarded, |region| region.denied = vec![Access::RemoteWrite, Access::LocalWrite, Access::RemoteAtomic]);
        for id in 0..4 {
            endpoint.post_receive(id, &[segment(open, 0x1000, 32)]);
            let sinks = one(open, 0x1020, 20);
            endpoint.post(id, Operation::Read { sinks, source: address(Stag(1), 0), invalidate: None });
        }
        endpoint.transmit();
        let mut stream = Vec::new();
        for (opcode, queue, message, offset, length, tail) in frames {
            let payload = vec![0xa5; length];
            let stag = if tail % 3 == 0 { guarded } else { open };
            let last = tail % 2 == 0;
            let frame = match opcode {
                0 | 2 => tagged(RdmapOpcode(opcode), last, stag, 0x1000 + u64::from(offset), &payload),
                1 => read_request(message, address(stag, 0), address(stag, 0x1000), u32::from(tail)),
                10 => fetch_add(message, u32::from(tail % 3), address(stag, 0x1000 + u64::from(offset))),
                _ => untagged(RdmapOpcode(opcode), last, queue, message, offset, &payload),
            };
            stream.extend(frame.fpdu());
        }
        for (at, bit) in flips {
            let at = usize::from(at) % stream.len();
            stream[at] ^= 1 << bit;
        }
        let result = endpoint.receive(&mut stream);
        if let Err(error) = result {
            endpoint.outbound.terminate(error.terminate());
        }
        endpoint.transmit();
        let _ = endpoint.inbound.handle_end_of_stream();
        endpoint.flush();
        prop_assert_eq!(endpoint.memory.read(guarded, 0x1000, 512), vec![0; 512]);
        prop_assert_eq!(endpoint.memory.holds(), 0);
        prop_assert_eq!(endpoint.upper.sent.len(), 4);
    }
}

/// Found by the property above: only the message's wait for a receive is left to happen.
#[test]
fn a_message_that_waits_holds_up_the_answer_behind_it_until_its_receive_comes() {
    use Command::*;
    let mut world = World::new(false, Retention::None, 1, 1);
    let commands = [
        (0, Post { kind: Kind::FetchAdd, length: 0, flags: 0 }),
        (0, Transmit { records: 1, room: 500 }),
        (1, Post { kind: Kind::Send, length: 0, flags: 0 }),
        (0, Arrive { bytes: 76, slices: Vec::new() }),
        (1, Transmit { records: 2, room: 500 }),
        (0, Acknowledge { bytes: 76 }),
        (1, Acknowledge { bytes: 60 }),
    ];
    for (side, command) in commands {
        world.run(side, command);
    }
    world.finish();
}
