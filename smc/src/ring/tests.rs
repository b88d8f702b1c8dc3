use std::collections::VecDeque;
use std::sync::Arc;

use proptest::prelude::*;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::arena::{Arena, Geometry};

const GEOMETRY: Geometry = Geometry { capacity: 70, ring_bytes: 16_384 };

fn pair() -> (Connection, Connection) {
    let (acceptor, memory) = Arena::create(GEOMETRY, 7).unwrap();
    let connector = Arc::new(Arena::attach(memory, GEOMETRY, 7).unwrap());
    let one = Arc::new(acceptor).claim(3).unwrap();
    let other = connector.join(one.own_token()).unwrap();
    (one, other)
}

fn words() -> [AtomicU64; PROGRESS] {
    Default::default()
}

fn receive(rings: &Rings<'_>, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let (taken, _) = rings.receive(&[Target::new(&mut bytes)], 0).unwrap();
    bytes.truncate(taken);
    bytes
}

proptest! {
    /// Against a queue of bytes, for any sizes of sends and receives, in two parts each.
    #[test]
    fn bytes_come_out_as_they_went_in(steps in prop::collection::vec((0_usize..20_000, 0_usize..20_000), 1..60)) {
        let (one, other) = pair();
        let (ours, theirs) = (words(), words());
        let sender = Rings::new(&one, Progress::new(&ours));
        let receiver = Rings::new(&other, Progress::new(&theirs));
        let mut oracle = VecDeque::new();
        let mut next = 0_u32;
        for (sent, received) in steps {
            let bytes: Vec<u8> = (0..sent).map(|at| (next + at as u32).to_be_bytes()[at % 4]).collect();
            let (head, tail) = bytes.split_at(sent / 3);
            let taken = sender.send(&[Source::new(head), Source::new(tail)], 0).unwrap();
            // What the receiver took and kept to itself is at most what it need not announce. Up to half of the ring goes whole.
            let might = if sent <= 8192 { sent } else { taken };
            prop_assert!(taken == sent || might + oracle.len() + 2048 >= 16_384);
            prop_assert!(taken == sent || taken == 0 || sent > 8192);
            oracle.extend(&bytes[..taken]);
            next += taken as u32;
            prop_assert_eq!(receiver.readable().unwrap(), oracle.len());
            let got = receive(&receiver, received);
            prop_assert_eq!(got.len(), received.min(oracle.len()));
            prop_assert!(got.iter().all(|byte| oracle.pop_front() == Some(*byte)));
        }
    }

    /// Whatever the peer writes into its words, we take no more than there is room for, or say that it cannot be.
    #[test]
    fn a_peer_that_writes_anything_gets_nothing(producer: u64, consumer: u64, sent in 0_usize..16_384) {
        let (one, other) = pair();
        let ours = words();
        let rings = Rings::new(&one, Progress::new(&ours));
        rings.send(&[Source::new(&vec![1; sent])], 0).unwrap();
        let region = other.region();
        region.word(other.peer_buffer() + PRODUCER).store(producer, Ordering::Release);
        region.word(other.peer_buffer() + CONSUMER).store(consumer, Ordering::Release);
        if let Ok(readable) = rings.readable() {
            prop_assert!(readable <= 16_384);
            prop_assert_eq!(receive(&rings, 20_000).len(), readable);
        }
        if let Ok(room) = rings.room() {
            prop_assert!(room >= 16_384 - sent && room <= 16_384);
        }
    }
}

#[test]
fn a_cursor_that_goes_back_or_too_far_is_a_violation() {
    let at = |position| CursorWord::at(position, 16_384, 0, 0);
    assert_eq!(at(100).ahead_of(100, 16_384), Ok(0));
    assert_eq!(at(16_384 + 50).ahead_of(100, 16_384), Ok(16_334));
    assert_eq!(at(16_384 + 100).ahead_of(100, 16_384), Ok(16_384));
    assert_eq!(at(16_384 + 101).ahead_of(100, 16_384), Err(Violation));
    assert_eq!(at(99).ahead_of(100, 16_384), Err(Violation));
    assert_eq!(at(2 * 16_384).ahead_of(100, 16_384), Err(Violation));
    // The count of wraps has sixteen bits.
    let last = 65_535 * 16_384 + 16_000;
    assert_eq!(at(last + 384).ahead_of(last, 16_384), Ok(384));
    assert_eq!(CursorWord { wrap: 0, count: 16_384, flags: 0, state: 0 }.ahead_of(100, 16_384), Err(Violation));
}

#[test]
fn a_word_is_what_linux_has_in_memory() {
    let word = CursorWord { wrap: 0x0102, count: 0x0304_0506, flags: 0x07, state: 0x08 };
    assert_eq!(word.to_word().to_ne_bytes(), [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(CursorWord::from_word(word.to_word()), word);
}

#[test]
fn a_writer_that_waits_is_told_once_there_is_room() {
    let (one, other) = pair();
    let (ours, theirs) = (words(), words());
    let (sender, receiver) = (Rings::new(&one, Progress::new(&ours)), Rings::new(&other, Progress::new(&theirs)));
    assert_eq!(sender.send(&[Source::new(&[7; 20_000])], 0).unwrap(), 16_384);
    assert!(!sender.is_writable().unwrap());
    let mut bytes = [0; 8192];
    let mut told = || receiver.receive(&[Target::new(&mut bytes)], 0).unwrap().1;
    assert_eq!([told(), told()], [true, true]);
    assert!(sender.is_writable().unwrap());
    assert_eq!(sender.room().unwrap(), 16_384);
}

#[test]
fn who_sleeps_is_woken_once() {
    let (one, other) = pair();
    assert!(!one.notify());
    other.fall_asleep();
    assert!(one.notify() && !one.notify());
    other.set_waiter(Some(5));
    assert!(!one.notify());
    other.arena().fall_asleep(5);
    assert!(one.notify() && !one.notify());
    assert!(other.arena().has_ready());
    let mut ready = Vec::new();
    other.arena().take_ready(|index| ready.push(index));
    assert_eq!(ready, [one.index()]);
    assert!(!other.arena().has_ready());
    other.set_waiter(Some(crate::arena::WAITERS));
    assert!(one.notify() && one.notify());
}

#[test]
fn an_index_is_given_out_again_once_both_ends_have_left() {
    let (acceptor, memory) = Arena::create(GEOMETRY, 7).unwrap();
    let (acceptor, connector) = (Arc::new(acceptor), Arc::new(Arena::attach(memory, GEOMETRY, 7).unwrap()));
    let mut ours: Vec<_> = (0..70).map(|at| acceptor.claim(at).unwrap()).collect();
    assert!(acceptor.claim(99).is_err());
    let token = ours[66].own_token();
    let theirs = connector.join(token).unwrap();
    assert!(connector.join(token).is_err(), "joined twice");
    assert!(connector.join(token ^ 1 << 40).is_err() && connector.join(ours[66].peer_token()).is_err());
    drop(ours.swap_remove(66));
    assert!(acceptor.claim(99).is_err());
    drop(theirs);
    let again = acceptor.claim(99).unwrap();
    assert_eq!(again.index(), 66);
    assert!(connector.join(token).is_err(), "the token of the connection before");
}

/// Two threads, each end of a ring, any sizes: nothing is lost, doubled or torn.
#[test]
fn two_threads_move_bytes_both_ways() {
    let (one, other) = pair();
    let total = 3_000_000_u64;
    let run = |connection: &Connection, seed| {
        let words = words();
        let rings = Rings::new(connection, Progress::new(&words));
        let mut random = SmallRng::seed_from_u64(seed);
        let (mut sent, mut received) = (0_u64, 0_u64);
        while sent < total || received < total {
            let length = random.random_range(0..9000).min(total - sent) as usize;
            let bytes: Vec<u8> = (sent..sent + length as u64).map(|at| (at % 251) as u8).collect();
            sent += rings.send(&[Source::new(&bytes)], 0).unwrap() as u64;
            let got = receive(&rings, random.random_range(0..9000));
            assert!(got.iter().zip(received..).all(|(byte, at)| u64::from(*byte) == at % 251), "after {received}");
            received += got.len() as u64;
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| run(&one, 1));
        run(&other, 2);
    });
}

#[test]
fn a_connection_to_which_nobody_came_is_given_out_again() {
    let (acceptor, memory) = Arena::create(Geometry { capacity: 1, ..GEOMETRY }, 7).unwrap();
    let geometry = acceptor.geometry();
    let (acceptor, connector) = (Arc::new(acceptor), Arc::new(Arena::attach(memory, geometry, 7).unwrap()));
    let first = acceptor.claim(1).unwrap();
    let token = first.own_token();
    assert!(acceptor.claim(2).is_err());
    drop(first);
    // Who comes too late is kept out, and out of what comes after it.
    assert!(connector.join(token).is_err());
    let second = acceptor.claim(3).unwrap();
    assert!(connector.join(token).is_err());
    let other = connector.join(second.own_token()).unwrap();
    drop(second);
    assert!(acceptor.claim(4).is_err());
    drop(other);
    assert!(acceptor.claim(5).is_ok());
}

#[test]
fn memory_of_an_empty_ring_is_given_back_and_comes_again() {
    let (one, other) = pair();
    let (ours, theirs) = (words(), words());
    let sender = Rings::new(&one, Progress::new(&ours));
    let receiver = Rings::new(&other, Progress::new(&theirs));
    let stored = |at: usize| one.region().word(one.peer_buffer() + at).load(Ordering::Acquire);
    for round in 0..5 {
        let bytes = vec![round + 1; 10_000];
        assert_eq!(sender.send(&[Source::new(&bytes)], 0), Ok(10_000));
        assert_eq!(receive(&receiver, 9_999), bytes[1..]);
        // One byte is still to be read.
        assert!(!sender.give_back());
        assert_eq!(receive(&receiver, 10), [round + 1]);
        assert!(sender.give_back());
        assert_eq!([stored(4096), stored(8192)], [0, 0]);
        // What the two say about themselves stands there still.
        assert_eq!((sender.sent(), receiver.readable()), (10_000 * (u64::from(round) + 1), Ok(0)));
    }
}
