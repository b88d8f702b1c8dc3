//! Connect requests that nobody takes.

use super::{Host, MODELS, Peer};
use softrdma_verbs::{CmEventKind, CmId};

fn listen(host: &Host) -> CmId {
    let listener = CmId::new(&host.channel);
    listener.listen("192.0.2.1:4420".parse().unwrap(), Some(4)).unwrap();
    listener
}

#[test]
fn requests_of_peers_that_have_gone_are_forgotten() {
    for threads in MODELS {
        let host = Host::new(threads);
        let _listener = listen(&host);
        for _ in 0..100 {
            let peer = Peer::request(&host.wire, &[0xaa; 500]);
            host.drive();
            host.wire.reset_by_peer(peer.stream());
            host.drive();
        }
        let last = Peer::request(&host.wire, b"last");
        host.drive();
        let events = host.events();
        assert_eq!(events.len(), 1, "{threads:?}: only who is still there");
        assert!(matches!(events[0].kind, CmEventKind::ConnectRequest { .. }));
        assert_eq!(events[0].private_data(), b"last");
        assert!(!host.wire.is_aborted(last.stream()));
    }
}

#[test]
fn requests_that_nobody_took_end_with_their_listener() {
    for threads in MODELS {
        let host = Host::new(threads);
        let listener = listen(&host);
        let taken = Peer::request(&host.wire, b"taken");
        host.drive();
        // The event names the listener too, and would keep it.
        let id = host.events().pop().unwrap().id;
        let waiting = Peer::request(&host.wire, b"waiting");
        let begun = host.wire.incoming();
        host.drive();
        drop(listener);
        host.drive();
        assert!(host.wire.is_aborted(waiting.stream()) && host.wire.is_aborted(begun), "{threads:?}");
        assert!(host.events().is_empty());
        assert!(!host.wire.is_aborted(taken.stream()), "what the application has is the application's to decide");
        id.reject(b"no").unwrap();
    }
}
