//! Two ends do not agree: neither is found, one says no, or one is gone.

use super::*;

#[test]
fn what_nobody_looks_for_is_withdrawn_after_its_time() {
    let end = End::with(Settings { offer_limit: Duration::from_millis(20), ..settings() });
    let tuple = new_tuple();
    end.service.offer(1, tuple).unwrap();
    assert_eq!(end.host.wait_declined(1), (DeclineReason::PEER_WITHOUT_SMC, false));
    assert!(Rendezvous::new().go_to(tuple).is_err(), "nobody waits there any more");
    end.service.offer(2, tuple).unwrap();
}

#[test]
fn a_name_is_offered_once() {
    let (one, other) = (End::new(), End::new());
    let tuple = new_tuple();
    one.service.offer(1, tuple).unwrap();
    assert!(matches!(other.service.offer(1, tuple), Err(OfferError::Taken)));
    assert!(matches!(one.service.offer(2, tuple.reversed()), Err(OfferError::Taken)));
}

#[test]
fn who_withdraws_an_offer_is_not_found() {
    let (connector, acceptor) = (End::new(), End::new());
    let tuple = new_tuple();
    connector.service.offer(1, tuple).unwrap();
    connector.service.withdraw(1);
    connector.service.withdraw(99);
    // The offer that is made next is dealt with after that.
    connector.agree_with(&acceptor, 2);
    assert!(!acceptor.service.seek(1, tuple.reversed()));
    assert_eq!(connector.host.heard_of(1), []);
}

#[test]
fn who_withdraws_while_the_answer_is_due_tells_the_peer() {
    let connector = End::new();
    let tuple = new_tuple();
    connector.service.offer(1, tuple).unwrap();
    let stranger = Stranger::seeking(tuple);
    stranger.receive().expect("a proposal");
    connector.service.withdraw(1);
    assert_eq!(stranger.receive_decline(), DeclineReason::PEER_DECLINED);
    assert_eq!(connector.host.heard_of(1), []);
}

#[test]
fn the_reason_of_a_decline_reaches_the_other_side() {
    let (connector, acceptor) = (End::new(), End::answering(|_| false));
    let tuple = new_tuple();
    connector.service.offer(1, tuple).unwrap();
    assert!(acceptor.service.seek(2, tuple.reversed()));
    assert_eq!(connector.host.wait_declined(1), (DeclineReason::PEER_DECLINED, true));
    assert_eq!(acceptor.host.heard_of(2), [Heard::Prepare(2)], "who is gone hears nothing");
}

#[test]
fn a_connector_that_is_gone_lets_the_acceptor_know() {
    let (connector, acceptor) = (End::answering(|key| key != 1), End::new());
    let tuple = new_tuple();
    connector.service.offer(1, tuple).unwrap();
    assert!(acceptor.service.seek(2, tuple.reversed()));
    assert_eq!(acceptor.host.wait_declined(2), (DeclineReason::PEER_DECLINED, true));
    assert_eq!(acceptor.host.heard_of(2)[0], Heard::Prepare(2));
    assert_eq!(connector.host.heard_of(1), [Heard::Prepare(1)]);
    // The arena came with the accept that led to nothing: the next one brings another.
    connector.agree_with(&acceptor, 3);
}

#[test]
fn any_reason_is_handed_on_as_it_is() {
    let acceptor = End::new();
    let reason = DeclineReason(0x0123_4567);
    let stranger = Stranger::found_by(&acceptor, 1);
    stranger.send(decline(reason), None, None);
    assert_eq!(acceptor.host.wait_declined(1), (reason, true));
    let stranger = Stranger::found_by(&acceptor, 2);
    stranger.propose(Gid(5));
    stranger.receive_accept();
    stranger.send(decline(reason), None, None);
    assert_eq!(acceptor.host.wait_declined(2), (reason, true));
}

#[test]
fn a_peer_that_hangs_up_has_declined_whatever_the_turn() {
    let acceptor = End::new();
    drop(Stranger::found_by(&acceptor, 1));
    assert_eq!(acceptor.host.wait_declined(1), (DeclineReason::PEER_DECLINED, true));
    let stranger = Stranger::found_by(&acceptor, 2);
    stranger.propose(Gid(5));
    drop(stranger);
    assert_eq!(acceptor.host.wait_declined(2), (DeclineReason::PEER_DECLINED, true));
    let stranger = Stranger::found_by(&acceptor, 3);
    stranger.propose(Gid(5));
    stranger.receive_accept();
    drop(stranger);
    assert_eq!(acceptor.host.wait_declined(3), (DeclineReason::PEER_DECLINED, true));

    let connector = End::new();
    let tuple = new_tuple();
    connector.service.offer(4, tuple).unwrap();
    drop(Stranger::seeking(tuple));
    assert_eq!(connector.host.wait_declined(4), (DeclineReason::PEER_DECLINED, true));
    connector.agree_with(&acceptor, 5);
}

#[test]
fn an_acceptor_of_another_user_is_sent_away_and_waiting_goes_on() {
    // To this connector, everybody here is another user.
    let foreign = Rendezvous::new().for_user(own_uid() + 1);
    let connector = End::with(Settings { rendezvous: foreign.clone(), ..settings() });
    let tuple = new_tuple();
    connector.service.offer(1, tuple).unwrap();
    for _ in 0..20 {
        let socket = foreign.go_to(tuple.reversed()).expect("somebody waits there");
        wait_for(&socket, PollFlags::HUP);
    }
    assert_eq!(connector.host.heard(), [], "no stranger was told a thing");
}

#[test]
fn a_connector_of_another_user_is_not_found() {
    let foreign = Rendezvous::new().for_user(own_uid() + 1);
    let acceptor = End::with(Settings { rendezvous: foreign.clone(), ..settings() });
    let tuple = new_tuple();
    let _bound = foreign.wait_at(tuple, 1).unwrap();
    assert!(!acceptor.service.seek(1, tuple.reversed()));
    assert_eq!(acceptor.service.gid(), None);
}

#[test]
fn when_a_process_is_gone_its_arena_goes_with_the_last_connection() {
    let acceptor = End::new();
    let connector = End::new();
    connector.agree_with(&acceptor, 1);
    connector.agree_with(&acceptor, 2);
    let arena = acceptor.host.with_connection(1, |connection| Arc::downgrade(connection.arena()));
    drop(connector);
    drop(acceptor.host.take_connection(1));
    assert!(arena.upgrade().is_some(), "a connection has it still");
    drop(acceptor.host.take_connection(2));
    eventually(|| arena.upgrade().is_none());
    End::new().agree_with(&acceptor, 3);
}

#[test]
fn an_arena_that_the_acceptor_has_given_up_is_followed_by_another() {
    let connector = End::new();
    let acceptor = End::new();
    connector.agree_with(&acceptor, 1);
    let arena = connector.host.with_connection(1, |connection| Arc::downgrade(connection.arena()));
    drop(acceptor);
    drop(connector.host.take_connection(1));
    eventually(|| arena.upgrade().is_none());
    connector.agree_with(&End::new(), 2);
}
