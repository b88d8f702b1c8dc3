//! Arbitrary bytes behind an established handshake. Whatever they are and however they are cut: nothing is written where the
//! peer may not write, every receive that is taken ends once and in order, nothing stays held, and the cuts change nothing.

#![no_main]

use libfuzzer_sys::fuzz_target;
use softrdma_fuzz::arena::{Arena, Owner, base, stag};
use softrdma_fuzz::{Input, MAX_STREAM, ends, halves, stream};
use softrdma_mpa_ddp_rdmap::terminate::MAX_TERMINATE_LENGTH;
use softrdma_mpa_ddp_rdmap::{
    Completion, Inbound, Limits, Negotiated, ProtocolError, Role, RtrKind, Segment, TaggedOffset, Terminate, ToInbound,
    ToOutbound,
};

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let settings = Settings::new(&mut input);
    let cuts = input.cuts();
    let mut stream =
        if settings.raw { input.0[..input.0.len().min(MAX_STREAM)].to_vec() } else { stream::messages(input) };
    if settings.fix_crcs {
        stream::fix_crcs(&mut stream);
    }
    if let Some(byte) = stream.get_mut(usize::from(settings.damage)) {
        *byte ^= 1;
    }
    let cut = run(&settings, &stream, &ends(stream.len(), &cuts));
    // When responses are given depends on the cuts, and so does how many requests there are at a time.
    if !settings.responds {
        assert_eq!(cut, run(&settings, &stream, &[stream.len()]), "whole and cut");
    }
});

/// How the endpoint is set up, and which byte of the stream is damaged: ten bytes stand in front of the cuts.
struct Settings {
    raw: bool,
    fix_crcs: bool,
    responds: bool,
    negotiated: Negotiated,
    /// Receives posted, receives posted when waited for, bytes in each.
    receives: (u8, u8, u32),
    /// One bit a request of ours: a Read, or an atomic.
    outstanding: (u8, u8),
    read_length: u32,
    damage: u16,
}

impl Settings {
    fn new(input: &mut Input) -> Self {
        let bits = input.byte();
        let flag = |bit: u8| bits & bit != 0;
        let (ird, ord) = (u16::from(input.byte() & 0x0F), 8);
        let rtr = [None, Some(RtrKind::Send), Some(RtrKind::Write), Some(RtrKind::Read)][usize::from(input.byte() & 3)];
        let role = if flag(16) { Role::Initiator } else { Role::Responder };
        Self {
            raw: flag(1),
            fix_crcs: flag(2),
            responds: flag(4),
            negotiated: Negotiated { crc: flag(8), send_markers: false, ird, ord, rtr, role },
            receives: (input.byte() & 7, input.byte() & 7, input.byte().into()),
            outstanding: (input.byte() & 7, input.byte()),
            read_length: u32::from(bits & 0xE0),
            // Mostly none: the stream is not that long.
            damage: input.number(),
        }
    }

    /// Requests of ours that the peer has not answered.
    fn outstanding(&self) -> impl Iterator<Item = ToInbound> {
        let (count, atomics) = self.outstanding;
        let sink = |length| Segment { stag: stag(1), offset: TaggedOffset(base(1)), length };
        (0..count).map(move |index| match atomics >> index & 1 {
            0 => ToInbound::Read { sink: sink(self.read_length) },
            _ => ToInbound::Atomic { request: index.into(), sink: sink(8), compare_swap: index % 2 == 0 },
        })
    }
}

/// All that can be seen of a run.
#[derive(Debug, PartialEq)]
struct Seen {
    error: Option<ProtocolError>,
    received: Vec<Completion>,
    told: String,
    terminate: Option<Terminate>,
    statistics: String,
    memory: Vec<Vec<u8>>,
}

fn run(settings: &Settings, stream: &[u8], ends: &[usize]) -> Seen {
    let memory = Arena::default();
    let (posted, spare, capacity) = settings.receives;
    let mut owner = Owner::new(posted, spare, capacity);
    let mut inbound = Inbound::new(&settings.negotiated, &Limits::default());
    settings.outstanding().for_each(|request| inbound.handle(request));
    let mut error = feed(settings, &mut inbound, &memory, &mut owner, stream, ends).err();
    error = error.or_else(|| inbound.handle_end_of_stream().err());
    if let Some(error) = &error {
        let mut out = [0; MAX_TERMINATE_LENGTH];
        let length = error.terminate().encode(&mut out);
        assert!(Terminate::parse(&out[..length]).is_some(), "a TERMINATE that cannot be read");
        assert!(!error.to_string().is_empty());
        // What arrives after an error is not looked at any more.
        assert_eq!(inbound.handle_bytes(&halves(stream), &memory, &mut owner), Ok(stream.len()));
    }
    if settings.negotiated.crc {
        assert!(inbound.statistics().fpdus <= stream::good_fpdus(stream), "an FPDU with a wrong CRC was taken");
    }
    inbound.flush(&memory, &mut owner);
    owner.check();
    Seen {
        error,
        told: format!("{:?}", owner.told),
        received: owner.received,
        terminate: inbound.peer_terminated().map(|received| received.terminate),
        statistics: format!("{:?}", inbound.statistics()),
        memory: memory.contents(settings.read_length.max(8) as usize),
    }
}

fn feed(
    settings: &Settings,
    inbound: &mut Inbound,
    memory: &Arena,
    owner: &mut Owner,
    stream: &[u8],
    ends: &[usize],
) -> Result<(), ProtocolError> {
    let (mut consumed, mut answered) = (0, 0);
    for &end in ends {
        loop {
            let offered = &stream[consumed..end];
            let count = inbound.handle_bytes(&halves(offered), memory, owner)?;
            assert!(count <= offered.len(), "consumed more than there was");
            consumed += count;
            if !inbound.is_waiting_for_receive() {
                break;
            }
            if !owner.post_spare() {
                return Err(inbound.give_up_waiting());
            }
        }
        if settings.responds {
            let requests = |message: &&ToOutbound| {
                matches!(message, ToOutbound::ReadRequest { .. } | ToOutbound::AtomicResult { .. })
            };
            for _ in owner.told[answered..].iter().filter(requests) {
                inbound.handle(ToInbound::Responded);
            }
            answered = owner.told.len();
        }
    }
    Ok(())
}
