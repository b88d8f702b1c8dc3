//! What is accepted, and how much of it.

use super::*;
use crate::stream::{ConnectError, ListenError};
use crate::table::{Name, Table};

#[test]
fn a_bad_setting_is_named_with_what_is_accepted() {
    let bad = KernelConfig { receive_buffer_bytes: 1_000, ..KernelConfig::default() };
    let error = KernelEngine::new(bad).err().expect("a refusal");
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    assert_eq!(error.to_string(), "receive_buffer_bytes is 1000; accepted are 65536 to 1073741824");
}

#[test]
fn the_limits_of_listeners_and_connections_are_named() {
    let mut host = Host::new(KernelConfig { max_listeners: 1, max_connections: 1, ..KernelConfig::default() });
    let address = host.listen();
    let now = host.now();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    assert_eq!(host.engine.listen(now, any, 1), Err(ListenError::TooManyListeners { limit: 1 }));
    host.engine.connect(now, address, None).expect("a beginning");
    let error = host.engine.connect(now, address, None).expect_err("a refusal");
    assert_eq!(error, ConnectError::TooManyConnections { limit: 1 });
    assert!(error.to_string().contains("max_connections"));
}

#[test]
fn a_poll_receives_no_more_than_its_budget_and_starves_nobody() {
    let mut host = Host::new(KernelConfig { receive_budget_bytes: 1, ..KernelConfig::default() });
    let address = host.listen();
    let mut peers: Vec<_> = (0..20).map(|_| TcpStream::connect(address).expect("a connection")).collect();
    host.until("the streams", |host| (host.upper.incoming().len() == peers.len()).then_some(()));
    for peer in &mut peers {
        std::io::Write::write_all(peer, &[1; 100]).expect("room");
    }
    for polls in 1..=2 * peers.len() {
        let before = host.engine.statistics().received_bytes;
        host.poll();
        assert!(host.engine.statistics().received_bytes - before <= 500, "poll {polls}");
    }
    assert_eq!(host.upper.received.len(), peers.len(), "each was served");
}

#[test]
fn a_name_is_never_used_again() {
    let mut table = Table::new(2);
    let first = table.insert('a').expect("room");
    let second = table.insert('b').expect("room");
    assert_eq!(table.insert('c'), None);
    assert_eq!(table.remove(first), Some('a'));
    assert_eq!(table.remove(first), None);
    let third = table.insert('c').expect("room");
    assert_eq!((third.index, third == first), (first.index, false));
    assert_eq!((table.get(first), table.get(second), table.get(third)), (None, Some(&'b'), Some(&'c')));
    assert_eq!(table.get(Name { index: 7, generation: 0 }), None);
    assert_eq!(table.len(), 2);
}
