//! Everything has a limit, and reaching it is a clear answer.

use super::*;

#[test]
fn no_more_is_under_way_than_may_be() {
    let end = End::with(Settings { max_exchanges: 2, ..settings() });
    let tuples = [(); 3].map(|()| new_tuple());
    end.service.offer(0, tuples[0]).unwrap();
    end.service.offer(1, tuples[1]).unwrap();
    assert!(matches!(end.service.offer(2, tuples[2]), Err(OfferError::Busy)));
    let sought = new_tuple();
    let _bound = Rendezvous::new().wait_at(sought, 1).unwrap();
    assert!(!end.service.seek(3, sought.reversed()));
    end.service.withdraw(0);
    eventually(|| end.service.offer(2, tuples[2]).is_ok());
}

#[test]
fn what_is_agreed_on_does_not_count_any_more() {
    let (connector, acceptor) = (End::with(Settings { max_exchanges: 1, ..settings() }), End::new());
    for key in 0..5 {
        connector.agree_with(&acceptor, key);
    }
}

#[test]
fn a_full_arena_is_said_to_be_full() {
    let geometry = Geometry { capacity: 2, ..GEOMETRY };
    let (connector, acceptor) = (End::new(), End::with(Settings { geometry, ..settings() }));
    connector.agree_with(&acceptor, 1);
    connector.agree_with(&acceptor, 2);
    let tuple = new_tuple();
    connector.service.offer(3, tuple).unwrap();
    assert!(acceptor.service.seek(3, tuple.reversed()));
    assert_eq!(connector.host.wait_declined(3), (DeclineReason::INSUFFICIENT_MEMORY, true));
    assert_eq!(acceptor.host.wait_declined(3), (DeclineReason::INSUFFICIENT_MEMORY, false));
    assert_eq!(acceptor.host.heard_of(3).len(), 1, "nothing was prepared");
    drop((connector.host.take_connection(1), acceptor.host.take_connection(1)));
    connector.agree_with(&acceptor, 4);
}

#[test]
fn an_arena_that_cannot_be_made_is_declined() {
    let geometry = Geometry { capacity: 0, ..GEOMETRY };
    let (connector, acceptor) = (End::new(), End::with(Settings { geometry, ..settings() }));
    for key in 0..3 {
        let tuple = new_tuple();
        connector.service.offer(key, tuple).unwrap();
        assert!(acceptor.service.seek(key, tuple.reversed()));
        assert!(!acceptor.host.wait_declined(key).1);
        assert!(connector.host.wait_declined(key).1);
    }
}

#[test]
fn there_are_arenas_with_so_many_processes() {
    let acceptor = End::with(Settings { max_peers: 1, ..settings() });
    let (first, second) = (End::new(), End::new());
    first.agree_with(&acceptor, 1);
    let tuple = new_tuple();
    second.service.offer(2, tuple).unwrap();
    assert!(acceptor.service.seek(2, tuple.reversed()));
    assert_eq!(second.host.wait_declined(2), (DeclineReason::INSUFFICIENT_MEMORY, true));
    first.agree_with(&acceptor, 3);

    // In the other role too: a second acceptor brings an arena in vain.
    let tuple = new_tuple();
    acceptor.service.offer(4, tuple).unwrap();
    assert!(second.service.seek(4, tuple.reversed()));
    assert_eq!(acceptor.host.wait_declined(4), (DeclineReason::INSUFFICIENT_MEMORY, false));
    assert_eq!(second.host.wait_declined(4), (DeclineReason::INSUFFICIENT_MEMORY, true));

    drop(first);
    eventually(|| {
        let tuple = new_tuple();
        second.service.offer(5, tuple).unwrap();
        assert!(acceptor.service.seek(5, tuple.reversed()));
        let is_over = |heard: &Heard| matches!(heard, Heard::Establish(5) | Heard::Decline(5, ..));
        let is_agreed = second.host.wait(is_over).contains(&Heard::Establish(5));
        second.host.state.lock().unwrap().heard.clear();
        is_agreed
    });
}
