//! How connections end: what still leaves, what completes how, and what a peer can make of it.

use std::time::Duration;

use super::{Host, MODELS, send};
use softrdma_verbs::{CmEventKind, Status};

#[test]
fn what_is_sent_again_after_the_peers_terminate_is_what_was_sent_before() {
    for threads in MODELS {
        let host = Host::new(threads);
        let (id, mut peer) = host.connect();
        let stream = peer.stream();
        let before = host.wire.sent(stream).len();
        id.queue_pair().unwrap().post_send(send(1, host.payload(0, 4000))).unwrap();
        host.drive();
        let sent = host.wire.sent(stream)[before..].to_vec();
        assert!(sent.len() > 4000);
        peer.terminate();
        host.drive();
        assert_eq!(host.events().pop().map(|event| event.kind), Some(CmEventKind::Disconnected));
        assert_eq!(
            host.completed().iter().map(|done| (done.id, done.status)).collect::<Vec<_>>(),
            [(1, Status::Flushed)]
        );
        host.wire.send_again(stream, before);
        host.drive();
        if let Some(again) = host.wire.sent_again(stream) {
            assert!(again == sent, "{threads:?}: other bytes than the first time");
        }
        host.wait(Duration::from_secs(10));
        assert!(host.wire.is_aborted(stream), "nothing keeps the stream");
    }
}
