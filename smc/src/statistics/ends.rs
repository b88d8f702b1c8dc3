//! What the two ends of a connection say together: each knows to the byte how far it is itself, and of the other only what that
//! has told it, which is late by design.

use std::collections::HashMap;

use super::{Cursors, Mode, Process, Socket};

/// Completes the cursors in `processes` by what the other ends say of themselves, which are among `all`.
pub fn join_ends(processes: &mut [Process], all: &[Process]) {
    let sockets = all.iter().flat_map(|process| &process.snapshot.sockets);
    // A token is random and not 0; sockets that several processes have inherited say the same as far as they use it.
    let mut ends: HashMap<u64, (u64, u64)> = HashMap::new();
    for socket in sockets.filter(|socket| socket.mode == Mode::SmcD && socket.own_token != 0) {
        let furthest = ends.entry(socket.own_token).or_default();
        furthest.0 = furthest.0.max(socket.sending.produced);
        furthest.1 = furthest.1.max(socket.receiving.consumed);
    }
    for socket in processes.iter_mut().flat_map(|process| &mut process.snapshot.sockets) {
        let (sent, received) = ends.get(&socket.peer_token).copied().unwrap_or_default();
        if socket.mode == Mode::SmcD {
            join(socket, sent, received);
        }
    }
}

/// The two were not read at the same moment: nothing is consumed that was not produced, and no more is between than fits.
fn join(socket: &mut Socket, sent_by_peer: u64, received_by_peer: u64) {
    let Cursors { produced, consumed } = socket.sending;
    socket.sending.consumed = consumed.max(received_by_peer.min(produced));
    let Cursors { produced, consumed } = socket.receiving;
    let most = consumed.saturating_add(socket.receive_ring.into());
    socket.receiving.produced = produced.max(sent_by_peer).clamp(consumed, most);
}

#[cfg(test)]
mod tests {
    use super::super::{Link, Page, Role, Snapshot, SocketDescription};
    use super::*;

    fn process(id: u32, tokens: (u64, u64), set: impl FnOnce(&super::super::Entry)) -> Process {
        let (page, memory) = Page::create("test").unwrap();
        let description = SocketDescription { descriptor: 5, role: Role::Client, ..SocketDescription::default() };
        let entry = page.open_entry(&description).unwrap();
        let link =
            Link { own_token: tokens.0, peer_token: tokens.1, send_ring: 64, receive_ring: 64, ..Link::default() };
        entry.accelerate(Mode::SmcD, &link);
        set(&entry);
        Process { id, user: 0, started: 0, snapshot: Snapshot::read(&memory).unwrap() }
    }

    #[test]
    fn each_end_says_how_far_it_is_itself() {
        let near = process(1, (10, 11), |entry| {
            entry.set_sending((100, 50));
            entry.set_consumed(7);
        });
        let far = process(2, (11, 10), |entry| {
            entry.set_sending((9, 0));
            entry.set_consumed(90);
        });
        let all = [near, far];
        let mut both = all.clone();
        join_ends(&mut both, &all);
        let [near, far] = both.map(|process| process.snapshot.sockets[0].clone());
        assert_eq!(near.sending, Cursors { produced: 100, consumed: 90 });
        assert_eq!(near.receiving, Cursors { produced: 9, consumed: 7 });
        assert_eq!((far.sending, far.receiving), (near.receiving, near.sending));
    }

    #[test]
    fn what_cannot_be_is_not_shown_whatever_the_other_end_says() {
        let near = process(1, (10, 11), |entry| {
            entry.set_sending((100, 50));
            entry.set_consumed(7);
        });
        let alone = [near.clone()];
        let mut shown = alone.clone();
        join_ends(&mut shown, &alone);
        assert_eq!(shown[0].snapshot.sockets[0].sending, Cursors { produced: 100, consumed: 50 });
        assert_eq!(shown[0].snapshot.sockets[0].receiving, Cursors { produced: 7, consumed: 7 });
        let liar = process(2, (11, 10), |entry| {
            entry.set_sending((u64::MAX, 0));
            entry.set_consumed(u64::MAX);
        });
        let mut shown = alone.clone();
        join_ends(&mut shown, &[near, liar]);
        assert_eq!(shown[0].snapshot.sockets[0].sending, Cursors { produced: 100, consumed: 100 });
        assert_eq!(shown[0].snapshot.sockets[0].receiving, Cursors { produced: 71, consumed: 7 });
    }
}
