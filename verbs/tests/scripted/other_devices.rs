//! Objects of one device used on another, or in a protection domain that is not theirs.

use super::{Host, Threads};
use softrdma_verbs::device::CreateQueuePairError;
use softrdma_verbs::{CmError, CmEventKind, CmId, ConnectParameters, QueuePairAttributes, QueuePairState};

fn attributes(host: &Host) -> QueuePairAttributes {
    QueuePairAttributes {
        send_completion_queue: host.completions.clone(),
        receive_completion_queue: host.completions.clone(),
        shared_receive_queue: None,
        max_send: 4,
        max_receive: 4,
        signal_all: false,
    }
}

#[test]
fn a_queue_pair_of_another_device_is_not_connected() {
    let (host, other) = (Host::new(Threads::C2), Host::new(Threads::C2));
    let id = CmId::new(&host.channel);
    id.resolve_address("192.0.2.2:4420".parse().unwrap());
    let stranger = other.queue_pair();
    let number = stranger.number();
    id.set_queue_pair(stranger.clone());
    let refused = id.connect(&ConnectParameters::default());
    assert!(matches!(refused, Err(CmError::OtherDevice { number: found }) if found == number), "{refused:?}");

    let listener = CmId::new(&host.channel);
    listener.listen("192.0.2.1:4420".parse().unwrap(), None).unwrap();
    let _peer = super::Peer::request(&host.wire, &[]);
    host.drive();
    let request = host.events().pop().unwrap();
    assert!(matches!(request.kind, CmEventKind::ConnectRequest { .. }), "{request:?}");
    request.id.set_queue_pair(stranger.clone());
    let refused = request.id.accept(&ConnectParameters::default());
    assert!(matches!(refused, Err(CmError::OtherDevice { number: found }) if found == number), "{refused:?}");
    assert_eq!(stranger.state(), QueuePairState::Init, "nothing has happened to it");
    // With one of its own it goes on.
    request.id.set_queue_pair(host.queue_pair());
    request.id.accept(&ConnectParameters::default()).unwrap();
}

#[test]
fn a_queue_pair_is_made_of_objects_of_its_own_device_and_domain() {
    let (host, other) = (Host::new(Threads::C2), Host::new(Threads::C2));
    let create = |attributes: &QueuePairAttributes| host.device.create_queue_pair(&host.domain, attributes).map(|_| ());
    assert_eq!(create(&attributes(&host)), Ok(()));
    let what = "completion queue";
    for change in [
        |attributes: &mut QueuePairAttributes, other: &Host| {
            attributes.send_completion_queue = other.completions.clone()
        },
        |attributes: &mut QueuePairAttributes, other: &Host| {
            attributes.receive_completion_queue = other.completions.clone();
        },
    ] {
        let mut mixed = attributes(&host);
        change(&mut mixed, &other);
        assert_eq!(create(&mixed), Err(CreateQueuePairError::OtherDevice { what }));
    }
    let second = host.device.allocate_protection_domain().unwrap();
    for domain in [&second, &other.domain] {
        let shared_receive_queue = Some(domain.create_shared_receive_queue(4).unwrap());
        let refused = create(&QueuePairAttributes { shared_receive_queue, ..attributes(&host) });
        assert_eq!(refused, Err(CreateQueuePairError::OtherDomain));
    }
    let refused = host.device.create_queue_pair(&other.domain, &attributes(&host)).map(|_| ());
    assert_eq!(refused, Err(CreateQueuePairError::OtherDevice { what: "protection domain" }));
}
