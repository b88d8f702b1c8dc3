//! Two processes with shared memory between them.

mod common;

use std::thread;
use std::time::{Duration, Instant};

use common::{Side, argument, bytes, eal, pattern, queues, receive_exactly, role, send_pattern, unique_name};
use softrdma_dpdk_glue::{EthPort, MemifRole, PortConfig, PortError};
use softrdma_stack::port::{LinkState, Packet, Port, ReceiveQueue, TransmitQueue};

const LENGTHS: [usize; 9] = [14, 60, 64, 128, 1500, 1514, 2048, 4000, 9014];
const ROUNDS: usize = 200;

/// Opens this process's end; the test's argument is the socket.
fn open(role: MemifRole, mtu: usize) -> EthPort {
    let port = EthPort::open(&eal(), &PortConfig::memif(role, 0, &argument()).with_mtu(mtu)).expect("memif opens");
    assert!(port.wait_for_link(Duration::from_secs(20)), "the link does not come up");
    port
}

#[test]
fn frames_of_every_length_come_back_from_another_process() {
    const TEST: &str = "frames_of_every_length_come_back_from_another_process";
    match role().as_deref() {
        Some("server") => echo_server(),
        Some("client") => echo_client(),
        _ => {
            let socket = unique_name("echo");
            let server = Side::start(TEST, "server", &socket);
            Side::start(TEST, "client", &socket).expect_success();
            server.expect_success();
        }
    }
}

fn echo_server() {
    let mut port = open(MemifRole::Server, 9000);
    let (mut receive, mut transmit) = queues(&mut port);
    for round in 0..ROUNDS {
        for packet in receive_exactly(&mut receive, &mut transmit, LENGTHS.len()) {
            let length = packet.length();
            assert!(bytes(&packet).into_iter().eq(pattern(round, length)), "round {round}, {length} bytes");
            send_pattern(&mut transmit, round + 1, length);
        }
    }
    while transmit.flush() > 0 {
        thread::yield_now();
    }
    // The client leaves when it has everything; its leaving must be seen and survived.
    let begin = Instant::now();
    let mut packets = Vec::new();
    while port.link_state() == LinkState::Up {
        receive.receive(&mut packets);
        assert!(begin.elapsed() < Duration::from_secs(20), "the client's leaving goes unnoticed");
    }
    let statistics = port.statistics();
    assert_eq!(statistics.received_packets, (ROUNDS * LENGTHS.len()) as u64);
    assert_eq!(statistics.transmitted_bytes, (ROUNDS * LENGTHS.iter().sum::<usize>()) as u64);
}

fn echo_client() {
    let mut port = open(MemifRole::Client, 9000);
    assert_eq!(port.capabilities().mtu, 9000);
    assert_eq!(port.driver_name(), "net_memif");
    let (mut receive, mut transmit) = queues(&mut port);
    let (capacity, before) = port.pool_buffers();
    for round in 0..ROUNDS {
        for length in LENGTHS {
            send_pattern(&mut transmit, round, length);
        }
        let packets = receive_exactly(&mut receive, &mut transmit, LENGTHS.len());
        for (packet, length) in packets.iter().zip(LENGTHS) {
            assert_eq!((packet.length(), packet.segments()), (length, 1), "round {round}");
            assert!(bytes(packet).into_iter().eq(pattern(round + 1, length)), "round {round}, {length} bytes");
        }
    }
    let (_, after) = port.pool_buffers();
    assert!(after + 64 >= before, "{} of {capacity} buffers are lost", before - after);
}
