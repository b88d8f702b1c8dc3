//! Two ends agree.

use super::*;

use nix::sys::signal::{SigSet, Signal};

use crate::wire::clc::{Kind, Parsed, parse};

const PROPOSAL: u8 = Kind::PROPOSAL.0;
const ACCEPT: u8 = Kind::ACCEPT.0;
const CONFIRM: u8 = Kind::CONFIRM.0;

/// How often `end` has sent an Accept that is a first contact.
fn first_contacts(end: &End) -> usize {
    let state = end.host.state.lock().unwrap();
    let is_first = |(_, direction, bytes): &&(Tuple, Direction, Vec<u8>)| {
        let Ok(Parsed::Complete { message: Message::Accept(accept), .. }) = parse(bytes) else { return false };
        *direction == Direction::Sent && accept.is_first_contact
    };
    state.messages.iter().filter(is_first).count()
}

#[test]
fn an_end_prepares_before_it_says_so_and_sends_once_the_other_has() {
    use Direction::{Received, Sent};
    use Heard::{Establish, Prepare, Saw};
    let (connector, acceptor) = (End::new(), End::new());
    let tuple = connector.agree_with(&acceptor, 7);
    let expected = [Saw(Sent, PROPOSAL), Saw(Received, ACCEPT), Prepare(7), Saw(Sent, CONFIRM), Establish(7)];
    assert_eq!(connector.host.heard(), expected);
    let expected = [Saw(Received, PROPOSAL), Prepare(7), Saw(Sent, ACCEPT), Saw(Received, CONFIRM), Establish(7)];
    assert_eq!(acceptor.host.heard(), expected);
    let state = connector.host.state.lock().unwrap();
    assert!(state.messages.iter().all(|(seen, ..)| *seen == tuple));
}

#[test]
fn both_ends_have_the_same_connection() {
    let (connector, acceptor) = (End::new(), End::new());
    connector.agree_with(&acceptor, 7);
    let (there, here) = (connector.host.take_connection(7), acceptor.host.take_connection(7));
    assert_eq!((there.own_token(), there.peer_token()), (here.peer_token(), here.own_token()));
    there.switch_sending(41);
    assert_eq!(here.peer_switch(), Some(41));
    assert_eq!(there.peer_switch(), None);
}

#[test]
fn a_host_hears_who_the_peer_is() {
    let (connector, acceptor) = (End::new(), End::new());
    connector.agree_with(&acceptor, 7);
    let peer = |end: &End| end.host.state.lock().unwrap().connections[&7].1;
    assert_eq!(Some(peer(&connector)), acceptor.service.gid());
    assert_eq!(Some(peer(&acceptor)), connector.service.gid());
    assert_ne!(connector.service.gid(), acceptor.service.gid());
}

#[test]
fn two_processes_have_one_arena() {
    let (connector, acceptor) = (End::new(), End::new());
    for key in 0..10 {
        connector.agree_with(&acceptor, key);
    }
    assert_eq!(first_contacts(&acceptor), 1);
    for end in [&connector, &acceptor] {
        let arenas = (0..10).map(|key| end.host.with_connection(key, |connection| connection.arena().clone()));
        let arenas: Vec<_> = arenas.collect();
        assert!(arenas.iter().all(|arena| Arc::ptr_eq(arena, &arenas[0])));
    }
    let indices: std::collections::HashSet<_> =
        (0..10).map(|key| acceptor.host.with_connection(key, Connection::index)).collect();
    assert_eq!(indices.len(), 10);
}

#[test]
fn each_direction_has_an_arena_of_its_own() {
    let (one, other) = (End::new(), End::new());
    one.agree_with(&other, 1);
    other.agree_with(&one, 2);
    let id = |end: &End, key| end.host.with_connection(key, |connection| connection.arena().id());
    assert_eq!(id(&one, 1), id(&other, 1));
    assert_eq!(id(&one, 2), id(&other, 2));
    assert_ne!(id(&one, 1), id(&one, 2));
}

#[test]
fn many_that_are_found_at_once_have_one_first_contact() {
    const MANY: u64 = 50;
    let (connector, acceptor) = (End::new(), End::new());
    let tuples: Vec<_> = (0..MANY).map(|_| new_tuple()).collect();
    for (key, tuple) in (0..).zip(&tuples) {
        connector.service.offer(key, *tuple).unwrap();
    }
    std::thread::scope(|scope| {
        for part in [0, 1] {
            let (acceptor, tuples) = (&acceptor, &tuples);
            scope.spawn(move || {
                for key in (part..MANY).step_by(2) {
                    assert!(acceptor.service.seek(key, tuples[key as usize].reversed()));
                }
            });
        }
    });
    for key in 0..MANY {
        connector.host.wait_established(key);
        acceptor.host.wait_established(key);
    }
    assert_eq!(first_contacts(&acceptor), 1);
}

/// Whatever the threads do: the second is there while the first contact is made.
#[test]
fn one_that_is_found_during_the_first_contact_waits_for_it() {
    let acceptor = End::new();
    let gid = Gid(0xabc);
    let (first, second) = (Stranger::found_by(&acceptor, 1), Stranger::found_by(&acceptor, 2));
    first.propose(gid);
    let (accept, named, memory) = first.receive_accept();
    assert!(accept.is_first_contact && memory.is_some());
    second.propose(gid);
    let third = Stranger::found_by(&acceptor, 3);
    third.propose(Gid(0xdef));
    assert!(third.receive_accept().0.is_first_contact, "another process does not wait");
    assert_eq!(acceptor.host.heard_of(2), [], "the second waits");

    let Endpoint::Shared(theirs) = accept.endpoint else { panic!("{accept:?}") };
    let arena = Arc::new(crate::arena::Arena::attach(memory.unwrap(), named.geometry, named.id).unwrap());
    let connection = arena.join(theirs.token.0).unwrap();
    first.send(confirm(gid, connection.own_token()), None, None);
    let (accept, again, memory) = second.receive_accept();
    assert!(!accept.is_first_contact && memory.is_none());
    assert_eq!(again.id, named.id);
}

#[test]
fn when_the_first_contact_fails_the_next_in_line_makes_it() {
    let acceptor = End::new();
    let gid = Gid(0xabc);
    let strangers = [1, 2, 3].map(|key| Stranger::found_by(&acceptor, key));
    let ids: Vec<_> = strangers
        .into_iter()
        .map(|stranger| {
            stranger.propose(gid);
            let (accept, named, memory) = stranger.receive_accept();
            assert!(accept.is_first_contact && memory.is_some());
            named.id
        })
        .collect();
    assert!(ids[0] != ids[1] && ids[1] != ids[2], "each brings an arena of its own: {ids:x?}");
    for key in 1..=3 {
        assert_eq!(acceptor.host.wait_declined(key), (DeclineReason::PEER_DECLINED, true));
    }
}

#[test]
fn a_process_agrees_with_itself() {
    let end = End::new();
    for round in 0..3 {
        let (tuple, connected, accepted) = (new_tuple(), 2 * round, 2 * round + 1);
        end.service.offer(connected, tuple).unwrap();
        assert!(end.service.seek(accepted, tuple.reversed()));
        end.host.wait_established(connected);
        end.host.wait_established(accepted);
        let token = |key| end.host.with_connection(key, |connection| (connection.own_token(), connection.peer_token()));
        let (ours, theirs) = token(connected);
        assert_eq!(token(accepted), (theirs, ours));
    }
    assert_eq!(first_contacts(&end), 1);
}

#[test]
fn nothing_is_started_before_it_is_needed() {
    let (connector, acceptor) = (End::new(), End::new());
    assert!(!acceptor.service.seek(1, new_tuple()));
    assert!(!acceptor.service.is_announced(2));
    acceptor.service.withdraw(1);
    assert_eq!(acceptor.service.gid(), None);
    connector.service.offer(1, new_tuple()).unwrap();
    assert!(connector.service.gid().is_some());
}

#[test]
fn no_signal_of_the_program_runs_on_the_thread() {
    let blocked = Arc::new(Mutex::new(None));
    let seen = Arc::clone(&blocked);
    let end = End::answering(move |_| {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).unwrap();
        *seen.lock().unwrap() = Some(u64::from_str_radix(mask.trim(), 16).unwrap());
        true
    });
    end.agree_with(&End::new(), 1);
    // All but what cannot be blocked and the two that the C library needs for itself.
    let bit = |signal: u32| 1u64 << (signal - 1);
    let expected = !(bit(9) | bit(19) | bit(32) | bit(33));
    assert_eq!(*blocked.lock().unwrap(), Some(expected));
    let own = SigSet::thread_get_mask().unwrap();
    assert!(!own.contains(Signal::SIGUSR1), "the caller's own signals are as before");
}
