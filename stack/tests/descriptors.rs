//! A process that runs out of descriptors. Alone in its program: the limit is the process's.

#![allow(clippy::disallowed_methods, reason = "the kernel's sockets live in real time")]

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use softrdma_stack::kernel::{KernelConfig, KernelEngine};
use softrdma_stack::stream::{Abort, Engine, Source, StreamEvent, StreamId, Streams};
use softrdma_stack::time::Instant;

#[derive(Default)]
struct Count(usize);

impl Streams for Count {
    fn handle_bytes(&mut self, _stream: StreamId, _parts: &[&[u8]]) -> Result<usize, Abort> {
        Ok(0)
    }

    fn with_source(&mut self, _stream: StreamId, _use_source: &mut dyn FnMut(&mut dyn Source)) {}

    fn handle_event(&mut self, event: StreamEvent) {
        self.0 += usize::from(matches!(event, StreamEvent::Incoming { .. }));
    }
}

#[test]
fn a_listener_without_descriptors_rests_and_then_accepts() {
    let mut engine = KernelEngine::new(KernelConfig::default()).expect("an engine");
    let mut accepted = Count::default();
    let now = Instant::ZERO;
    let listener = engine.listen(now, SocketAddr::from(([127, 0, 0, 1], 0)), 8).expect("a listener");
    let address = engine.listener_address(listener).expect("its address");
    let peer = TcpStream::connect(address).expect("a connection");
    let before = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(0), maximum: before.maximum }).expect("a lower limit");
    engine.poll(now, &mut accepted);
    // poll(2) itself is under the limit.
    setrlimit(Resource::Nofile, before).expect("the limit of before");
    let is_readable = {
        let descriptor = engine.readiness().expect("a descriptor");
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        rustix::event::poll(&mut [PollFd::new(&*descriptor, PollFlags::IN)], Some(&at_once)).expect("poll") > 0
    };
    assert_eq!(accepted.0, 0, "there was no descriptor");
    assert!(!is_readable, "a sleeper would spin");
    let deadline = engine.next_deadline(now).expect("another attempt");
    assert!(deadline > now && deadline - now <= Duration::from_secs(1));
    for _ in 0..3 {
        engine.poll(deadline, &mut accepted);
    }
    assert_eq!(accepted.0, 1);
    drop(peer);
}
