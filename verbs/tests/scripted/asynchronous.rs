//! Asynchronous events that nobody takes.

use super::{Host, MODELS, send};
use softrdma_verbs::{AsyncEvent, Payload, QueuePairState};

#[test]
fn peers_that_break_rules_cause_no_more_events_than_the_limit_and_no_state_is_lost() {
    for threads in MODELS {
        let host = Host::with(threads, |config| config.limits.max_async_events = 2);
        let ids: Vec<_> = (0..5).map(|_| broken(&host)).collect();
        for id in &ids {
            assert_eq!(id.queue_pair().unwrap().state(), QueuePairState::Error, "{threads:?}");
        }
        assert_eq!(host.device.statistics().async_events_lost, 3);
        let taken: Vec<_> = std::iter::from_fn(|| host.device.try_get_async_event()).collect();
        let fatal = |index: usize| AsyncEvent::QueuePairFatal { number: ids[index].queue_pair().unwrap().number() };
        assert_eq!(taken, [fatal(0), fatal(1), AsyncEvent::EventsLost], "{threads:?}");
        let number = broken(&host).queue_pair().unwrap().number();
        assert_eq!(host.device.try_get_async_event(), Some(AsyncEvent::QueuePairFatal { number }), "{threads:?}");
        assert_eq!(host.device.try_get_async_event(), None);
    }
}

/// An id whose peer sent something that is no FPDU.
fn broken(host: &Host) -> softrdma_verbs::CmId {
    let (id, mut peer, _listener) = host.accept();
    peer.post(send(1, Payload::Inline([1; 8].into())));
    let mut bytes = peer.bytes();
    *bytes.last_mut().unwrap() ^= 1;
    host.wire.arrive(peer.stream(), &bytes);
    host.drive();
    host.wire.acknowledge(peer.stream());
    host.drive();
    host.events();
    id
}
