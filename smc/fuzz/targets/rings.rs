//! A connection over shared memory whose peer writes anything anywhere: our end moves no more bytes than it was given and
//! than a ring holds, or says that this cannot be, and its own place stays its own.

#![no_main]

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use libfuzzer_sys::fuzz_target;
use rustix::fs::fstat;
use softrdma_smc::arena::{Arena, Connection, Geometry};
use softrdma_smc::ring::{PROGRESS, Progress, Rings};
use softrdma_smc::shared_memory::{Region, Source, Target};
use softrdma_smc::wire::cdc::{SharedControl, TYPE};

const GEOMETRY: Geometry = Geometry { capacity: 2, ring_bytes: 16 << 10 };
const RING: usize = GEOMETRY.ring_bytes as usize;

/// Bytes of one thing that happens: what, where, and a number.
const STEP: usize = 1 + 2 + 8;
const MAX_STEPS: usize = 64;

fuzz_target!(|data: &[u8]| {
    let (arena, memory) = Arena::create(GEOMETRY, 7).expect("an arena");
    let length = fstat(&memory).expect("its size").st_size as usize;
    let hostile = Region::attach(&memory, length).expect("the peer's mapping");
    let peer = Arc::new(Arena::attach(&memory, GEOMETRY, 7).expect("the peer's end"));
    let arena = Arc::new(arena);
    let connection = arena.claim(3).expect("a connection");
    let peer = peer.join(connection.own_token()).expect("the same connection");
    let words: [AtomicU64; PROGRESS] = Default::default();
    let end = End { arena: &arena, connection: &connection, progress: Progress::new(&words) };
    let buffer = own_buffer(&peer, &hostile);
    end.rings().begin();
    for step in data.as_chunks::<STEP>().0.iter().take(MAX_STEPS) {
        let [what, high, low, number @ ..] = *step;
        let place = usize::from(u16::from_be_bytes([high, low]));
        if what % 2 == 1 {
            end.act(what / 2, place);
            continue;
        }
        // Its own cursors more often than by chance.
        let offset = match place % 4 {
            0 => buffer + SharedControl::PRODUCER_OFFSET,
            1 => buffer + SharedControl::CONSUMER_OFFSET,
            _ => place / 4 * 8 % length,
        };
        hostile.word(offset).store(u64::from_ne_bytes(number), Ordering::SeqCst);
    }
});

/// Where the buffer begins that our end receives in: there the peer writes the first byte of a CDC message.
fn own_buffer(peer: &Connection, memory: &Region) -> usize {
    static OFFSET: OnceLock<usize> = OnceLock::new();
    let words: [AtomicU64; PROGRESS] = Default::default();
    Rings::new(peer, Progress::new(&words)).begin();
    *OFFSET.get_or_init(|| {
        let mut offsets = (0..memory.length()).step_by(8);
        let is_begin = |offset: &usize| memory.word(*offset).load(Ordering::SeqCst) == u64::from(TYPE).to_le();
        offsets.rfind(is_begin).expect("what the peer has just written")
    })
}

struct End<'a> {
    arena: &'a Arena,
    connection: &'a Connection,
    progress: Progress<'a>,
}

impl End<'_> {
    fn rings(&self) -> Rings<'_> {
        Rings::new(self.connection, self.progress)
    }

    fn act(&self, what: u8, length: usize) {
        match what % 8 {
            0 => self.send(length),
            1 => self.receive(length),
            2 => self.peek_and_skip(length),
            3 => self.look(),
            4 => self.rings().say(length as u8),
            5 => {
                self.connection.fall_asleep();
                let _ = self.connection.notify();
                self.connection.wake_up(|| false);
            }
            6 => self.take_ready(),
            _ => {
                let _ = self.connection.peer_switch();
                self.connection.switch_sending(length as u64);
            }
        }
    }

    fn send(&self, length: usize) {
        let before = self.progress.produced();
        let bytes = vec![7; length];
        let (head, tail) = bytes.split_at(length / 3);
        match self.rings().send(&[Source::new(head), Source::new(tail)], 0) {
            Ok(sent) => {
                assert!(sent <= length.min(RING));
                assert_eq!(self.progress.produced(), before + sent as u64);
            }
            Err(_) => assert_eq!(self.progress.produced(), before),
        }
    }

    fn receive(&self, length: usize) {
        let before = self.progress.consumed();
        let mut bytes = vec![0_u8; length];
        match self.rings().receive(&[Target::new(&mut bytes)], 0) {
            Ok((received, _)) => {
                assert!(received <= length.min(RING));
                assert_eq!(self.progress.consumed(), before + received as u64);
            }
            Err(_) => assert_eq!(self.progress.consumed(), before),
        }
    }

    fn peek_and_skip(&self, length: usize) {
        let mut bytes = vec![0_u8; length];
        if let Ok(seen) = self.rings().peek(&[Target::new(&mut bytes)], length / 2) {
            assert!(seen <= length.min(RING));
        }
        let before = self.progress.consumed();
        let _ = self.rings().skip(length);
        assert!(self.progress.consumed() - before <= length.min(RING) as u64);
    }

    fn look(&self) {
        let rings = self.rings();
        for result in [rings.room(), rings.readable()] {
            assert!(result.is_ok_and(|bytes| bytes <= RING) || result.is_err());
        }
        let _ = (rings.in_flight(), rings.is_writable(), rings.peer_state());
        assert!(self.progress.acknowledged() <= self.progress.produced());
    }

    fn take_ready(&self) {
        let _ = self.arena.has_ready();
        let mut taken = 0;
        self.arena.take_ready(|index| {
            assert!(index < GEOMETRY.capacity);
            taken += 1;
        });
        assert!(taken <= GEOMETRY.capacity);
    }
}
