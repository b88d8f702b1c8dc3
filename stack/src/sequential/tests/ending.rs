//! How streams end, and how they do not.

use std::time::Duration;

use super::world::World;
use crate::memory_port::Impairments;
use crate::stream::StreamEvent;

#[test]
fn an_idle_connection_between_living_hosts_lives_on() {
    let mut world = World::simple(1, Impairments::default());
    world.connect();
    assert!(!world.run(Duration::from_secs(3600), |hosts| {
        hosts.iter().any(|host| host.application.has(|event| matches!(event, StreamEvent::Reset { .. })))
    }));
}
