//! A peer of the same user that means no good: its own exchange ends, nothing of it stays, and others go on.

use super::*;

use std::io::IoSlice;
use std::mem::MaybeUninit;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use crate::arena::Arena;
use crate::exchange::message::{MAX_EMITTED, MAX_LENGTH};
use crate::shared_memory::Region;

/// The kernel takes so many descriptors with a message.
const MOST_DESCRIPTORS: usize = 253;

impl Stranger {
    /// Sends any bytes, and so many copies of `descriptor`.
    fn send_raw(&self, bytes: &[u8], descriptor: BorrowedFd<'_>, copies: usize) -> Result<usize, Errno> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let descriptors = vec![descriptor; copies];
        if copies > 0 {
            assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)));
        }
        sendmsg(&self.link, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)
    }
}

fn bytes_of(message: Message, arena: Option<Named>) -> Vec<u8> {
    let mut out = [0; MAX_EMITTED];
    let (header, clc) = Envelope { message, arena }.emit(&mut out);
    [header, clc].concat()
}

/// How far an exchange is when the stranger begins to misbehave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The service has accepted, and waits for a proposal.
    Proposal,
    /// And waits for a confirm.
    Confirm,
    /// The service has connected, and waits for an accept.
    Accept,
}

const STAGES: [Stage; 3] = [Stage::Proposal, Stage::Confirm, Stage::Accept];

/// A stranger with whom `end` has got as far as `stage`.
fn stranger_at(stage: Stage, end: &End, key: u64) -> Stranger {
    match stage {
        Stage::Proposal => Stranger::found_by(end, key),
        Stage::Confirm => {
            let stranger = Stranger::found_by(end, key);
            // Each is another process, so that none waits for another's first contact.
            stranger.propose(Gid(key));
            stranger.receive_accept();
            stranger
        }
        Stage::Accept => {
            let tuple = new_tuple();
            end.service.offer(key, tuple).unwrap();
            let stranger = Stranger::seeking(tuple);
            stranger.receive().expect("a proposal");
            stranger
        }
    }
}

/// That others can agree with `end` as before.
fn is_well(end: &End, key: u64) {
    end.agree_with(&End::new(), key);
    End::new().agree_with(end, key + 1);
}

const MEMORY_ID: u64 = 9;
const NAMED: Named = Named { id: MEMORY_ID, geometry: GEOMETRY, has_memory: true };

/// An arena of a stranger, which has claimed a connection for the one it will offer it to.
fn arena() -> (Connection, OwnedFd) {
    let (arena, memory) = Arena::create(GEOMETRY, MEMORY_ID).unwrap();
    (Arc::new(arena).claim(3).unwrap(), memory)
}

#[test]
fn a_message_out_of_turn_ends_the_exchange() {
    let end = End::new();
    let mut key = 0;
    for stage in STAGES {
        let messages = [
            (Stage::Proposal, proposal(Gid(5)), None),
            (Stage::Confirm, confirm(Gid(5), 7), None),
            (Stage::Accept, accept(Gid(5), 7, false), Some(Named { has_memory: false, ..NAMED })),
        ];
        for (turn, message, named) in messages.into_iter().filter(|(turn, ..)| *turn != stage) {
            key += 1;
            let stranger = stranger_at(stage, &end, key);
            stranger.send(message, named, None);
            assert_eq!(stranger.receive_decline(), DeclineReason::SYNCHRONIZATION, "{turn:?} in {stage:?}");
            assert_eq!(end.host.wait_declined(key), (DeclineReason::SYNCHRONIZATION, false));
        }
    }
    is_well(&end, 1000);
}

#[test]
fn a_message_while_the_first_contact_is_waited_for_ends_the_exchange() {
    let end = End::new();
    let (first, second) = (Stranger::found_by(&end, 1), Stranger::found_by(&end, 2));
    first.propose(Gid(5));
    first.receive_accept();
    second.propose(Gid(5));
    second.send(confirm(Gid(5), 7), None, None);
    assert_eq!(second.receive_decline(), DeclineReason::SYNCHRONIZATION);
    assert_eq!(end.host.heard_of(1), [Heard::Prepare(1)], "the first is not concerned");
    is_well(&end, 1000);
}

#[test]
fn descriptors_that_nobody_asked_for_are_closed() {
    let end = End::new();
    let mut key = 0;
    for stage in STAGES {
        for copies in [1, 2, 3, MOST_DESCRIPTORS] {
            for bytes in [
                bytes_of(proposal(Gid(5)), None),
                bytes_of(confirm(Gid(5), 7), None),
                bytes_of(accept(Gid(5), 7, false), Some(Named { has_memory: false, ..NAMED })),
                bytes_of(decline(DeclineReason::INTERNAL), None),
                b"junk".to_vec(),
                vec![7; MAX_LENGTH + 1],
            ] {
                key += 1;
                let (tell, stranger) = (Tell::new(), stranger_at(stage, &end, key));
                stranger.send_raw(&bytes, tell.descriptor(), copies).unwrap();
                assert_eq!(stranger.receive_decline(), DeclineReason::SYNCHRONIZATION, "{copies} in {stage:?}");
                assert!(!end.host.wait_declined(key).1);
                tell.wait_closed();
            }
        }
    }
    is_well(&end, 10_000);
}

/// Without bytes a message looks like the end.
#[test]
fn descriptors_without_a_message_are_closed() {
    let end = End::new();
    for (key, stage) in (1..).zip(STAGES) {
        let (tell, stranger) = (Tell::new(), stranger_at(stage, &end, key));
        stranger.send_raw(b"", tell.descriptor(), 2).unwrap();
        assert_eq!(end.host.wait_declined(key), (DeclineReason::PEER_DECLINED, true));
        tell.wait_closed();
    }
    is_well(&end, 1000);
}

#[test]
fn descriptors_behind_the_last_message_are_closed_with_the_exchange() {
    let end = End::new();
    let (tell, stranger) = (Tell::new(), stranger_at(Stage::Accept, &end, 1));
    stranger.send(decline(DeclineReason::INTERNAL), None, None);
    let _ = stranger.send_raw(b"more", tell.descriptor(), 1);
    end.host.wait_declined(1);
    drop(stranger);
    tell.wait_closed();
}

#[test]
fn memory_that_is_none_is_closed() {
    let end = End::new();
    let (short, _) =
        Region::create("test", crate::shared_memory::PAGE).map(|(region, memory)| (memory, region)).unwrap();
    let open = memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    ftruncate(&open, 1 << 20).unwrap();
    let (another, _) = {
        let (arena, memory) = Arena::create(GEOMETRY, MEMORY_ID + 1).unwrap();
        (memory, arena)
    };
    let zeroed = {
        let (arena, memory) = Arena::create(GEOMETRY, MEMORY_ID).unwrap();
        let length = rustix::fs::fstat(&memory).unwrap().st_size as usize;
        drop((arena, memory));
        Region::create("test", length).unwrap().1
    };
    let (pipe, _end) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    for (key, memory) in (1..).zip([short, open, another, zeroed, pipe]) {
        let stranger = stranger_at(Stage::Accept, &end, key);
        stranger.send(accept(Gid(5), 1, true), Some(NAMED), Some(memory.as_fd()));
        let reason = stranger.receive_decline();
        assert!(
            [DeclineReason::SYNCHRONIZATION, DeclineReason::INSUFFICIENT_MEMORY].contains(&reason),
            "{key}: {reason}"
        );
        assert_eq!(end.host.wait_declined(key), (reason, false));
        assert_eq!(end.host.heard_of(key).len(), 1, "nothing was prepared");
    }
    let (tell, stranger) = (Tell::new(), stranger_at(Stage::Accept, &end, 100));
    stranger.send(accept(Gid(5), 1, true), Some(NAMED), Some(tell.descriptor()));
    stranger.receive_decline();
    tell.wait_closed();
    is_well(&end, 1000);
}

#[test]
fn an_accept_that_contradicts_itself_is_declined() {
    let end = End::new();
    let other_size = Geometry { ring_bytes: 2 * GEOMETRY.ring_bytes, ..GEOMETRY };
    let cases = [
        // No first contact, but memory; a first contact, but none.
        (accept(Gid(5), 1, false), NAMED, true),
        (accept(Gid(5), 1, true), Named { has_memory: false, ..NAMED }, false),
        // An arena that this process has not.
        (accept(Gid(5), 1, false), Named { has_memory: false, ..NAMED }, false),
        // Another size than the rings of the arena have.
        (accept(Gid(5), 1, true), Named { geometry: other_size, ..NAMED }, true),
    ];
    for (key, (message, named, has_memory)) in (1..).zip(cases) {
        let (_claimed, memory) = arena();
        let stranger = stranger_at(Stage::Accept, &end, key);
        stranger.send(message, Some(named), has_memory.then(|| memory.as_fd()));
        assert_eq!(stranger.receive_decline(), DeclineReason::SYNCHRONIZATION, "case {key}");
        end.host.wait_declined(key);
        assert_eq!(end.host.heard_of(key).len(), 1, "nothing was prepared");
    }
    is_well(&end, 1000);
}

#[test]
fn a_token_that_names_no_connection_is_declined() {
    let end = End::new();
    let (claimed, memory) = arena();
    for (key, token) in (1..).zip([0, u64::MAX, claimed.own_token() ^ 1 << 40, claimed.peer_token()]) {
        let stranger = stranger_at(Stage::Accept, &end, key);
        stranger.send(accept(Gid(5), token, true), Some(NAMED), Some(memory.as_fd()));
        assert_eq!(stranger.receive_decline(), DeclineReason::SYNCHRONIZATION, "{token:#x}");
    }
    is_well(&end, 1000);
}

#[test]
fn a_second_arena_of_one_process_is_declined() {
    let end = End::new();
    let (claimed, memory) = arena();
    let first = stranger_at(Stage::Accept, &end, 1);
    first.send(accept(Gid(5), claimed.own_token(), true), Some(NAMED), Some(memory.as_fd()));
    end.host.wait_established(1);
    let (claimed, memory) = arena();
    let second = stranger_at(Stage::Accept, &end, 2);
    second.send(accept(Gid(5), claimed.own_token(), true), Some(NAMED), Some(memory.as_fd()));
    second.receive().expect("a decline");
    assert_eq!(end.host.wait_declined(2), (DeclineReason::SYNCHRONIZATION, false));
    // Once the first has hung up it is another matter.
    let third = stranger_at(Stage::Accept, &end, 3);
    drop(first);
    third.send(accept(Gid(5), claimed.own_token(), true), Some(NAMED), Some(memory.as_fd()));
    end.host.wait_established(3);
}

#[test]
fn a_confirm_by_somebody_else_is_declined() {
    let end = End::new();
    for (key, (gid, flip)) in (1..).zip([(Gid(5), 1 << 50), (Gid(6), 0)]) {
        let stranger = Stranger::found_by(&end, key);
        stranger.propose(Gid(5));
        let (accept, named, memory) = stranger.receive_accept();
        let Endpoint::Shared(theirs) = accept.endpoint else { panic!("{accept:?}") };
        let arena = Arc::new(Arena::attach(memory.unwrap(), named.geometry, named.id).unwrap());
        let token = arena.join(theirs.token.0).unwrap().own_token();
        stranger.send(confirm(gid, token ^ flip), None, None);
        assert_eq!(stranger.receive_decline(), DeclineReason::SYNCHRONIZATION);
        assert_eq!(end.host.wait_declined(key), (DeclineReason::SYNCHRONIZATION, false));
    }
    is_well(&end, 1000);
}

#[test]
fn who_has_no_shared_memory_is_told_so() {
    use crate::wire::clc::RoceAddress;
    use crate::wire::{Mac, RoceGid};
    let end = End::new();
    let stranger = Stranger::found_by(&end, 1);
    let offer = Offer::Rdma(RoceAddress { gid: RoceGid(std::net::Ipv6Addr::LOCALHOST), mac: Mac([0; 6]) });
    let subnet = Subnet::Ipv4 { subnet: Ipv4Addr::LOCALHOST, bits: 32 };
    stranger.send(Message::Proposal(Proposal { peer: PeerId(1), offer, subnet }), None, None);
    assert_eq!(stranger.receive_decline(), DeclineReason::MODE_UNSUPPORTED);
}

#[test]
fn what_is_sent_over_a_channel_changes_nothing() {
    let end = End::new();
    let (claimed, memory) = arena();
    let stranger = stranger_at(Stage::Accept, &end, 1);
    stranger.send(accept(Gid(5), claimed.own_token(), true), Some(NAMED), Some(memory.as_fd()));
    end.host.wait_established(1);
    let arena = end.host.with_connection(1, |connection| Arc::downgrade(connection.arena()));
    let tell = Tell::new();
    // As much as the kernel keeps.
    while stranger.send_raw(b"junk", tell.descriptor(), 2).is_ok() {}
    is_well(&end, 1000);
    drop(end.host.take_connection(1));
    assert!(arena.upgrade().is_some(), "the arena stays as long as the channel");
    drop(stranger);
    tell.wait_closed();
    eventually(|| arena.upgrade().is_none());
}

/// Messages that are almost right, and such that are not at all, with and without descriptors, in every turn.
#[test]
fn whatever_a_stranger_sends_the_service_goes_on() {
    let end = End::new();
    let first_seed = 1 + u64::from(std::process::id()) * 1000;
    for seed in first_seed..first_seed + 300 {
        println!("seed {seed}"); // Shown if it fails.
        let mut random = StdRng::seed_from_u64(seed);
        let key = seed << 8;
        let (tell, stage) = (Tell::new(), STAGES[random.random_range(0..STAGES.len())]);
        let stranger = stranger_at(stage, &end, key);
        for _ in 0..random.random_range(1..4) {
            let bytes = any_bytes(&mut random);
            let copies = [0, 0, 0, 1, 2, 9][random.random_range(0..6)];
            // The service may have hung up by now.
            let _ = stranger.send_raw(&bytes, tell.descriptor(), copies);
        }
        drop(stranger);
        end.host.wait_declined(key);
        tell.wait_closed();
    }
    is_well(&end, 1);
}

fn any_bytes(random: &mut StdRng) -> Vec<u8> {
    let mut bytes = match random.random_range(0..6) {
        0 => bytes_of(proposal(Gid(random.random())), None),
        1 => bytes_of(confirm(Gid(random.random()), random.random()), None),
        2 => bytes_of(accept(Gid(random.random()), random.random(), random.random()), Some(NAMED)),
        3 => bytes_of(accept(Gid(random.random()), random.random(), false), Some(Named { has_memory: false, ..NAMED })),
        4 => bytes_of(decline(DeclineReason(random.random())), None),
        _ => (0..random.random_range(0..MAX_LENGTH + 100)).map(|_| random.random()).collect(),
    };
    for _ in 0..random.random_range(0..3) {
        match random.random_range(0..3) {
            0 => bytes.truncate(random.random_range(0..=bytes.len())),
            1 => bytes.push(random.random()),
            _ if !bytes.is_empty() => {
                let at = random.random_range(0..bytes.len());
                bytes[at] ^= 1 << random.random_range(0..8);
            }
            _ => {}
        }
    }
    bytes
}
